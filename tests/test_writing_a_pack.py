"""The pack of docs/writing-a-pack.md and the one of `dlb new-pack`: built, installed by pip, used, taken out again."""

from __future__ import annotations

import json
import os
import re
import site
import subprocess
import sys
import venv
from pathlib import Path
from typing import Any

import pytest

import dlb_core
from dlb_core.cli import main

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "writing-a-pack.md"
FILE = re.compile(r"^```\w+\n# (?P<path>[\w./-]+\.\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)

MODEL = """
import torch
from torch import nn
import swoosh

class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.fade, self.after = nn.Linear(3, 4), swoosh.Fade(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.after(self.fade(torch.ops.swoosh.swoosh(self.before(x))))

model, x = Model().eval(), torch.tensor([[1.0, -2.0, 0.5], [0.0, 1.0, 2.0]])
"""

USES = (
    MODEL
    + """
import contextlib, io, json, sys
import pytest
from dlb_core import DLBacktrace
from dlb_core.cli import main

def listed(*argv):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        code = main([*argv, "--json"])
    return code, json.loads(out.getvalue())

explanation = DLBacktrace(model, x).explain(x, mode="epsilon", keep="all")
nodes = explanation.ledger.by_node.values()
with contextlib.redirect_stdout(sys.stderr):
    tests = pytest.main(["-q", "-p", "no:cacheprovider", sys.argv[1]])
print(json.dumps({
    "plugins": listed("plugins")[1],
    "ops": listed("ops", "swoosh")[1],
    "check": listed("check", "swoosh"),
    "rules": {entry.op: entry.pack for entry in nodes},
    "passes": bool((explanation.relevance["swoosh"] == explanation.relevance["before"]).all()),
    "tests": int(tests),
    "residual": explanation.ledger.residual,
}))
"""
)

WITHOUT = (
    MODEL
    + """
from dlb_core import DLBacktrace, UnsupportedOpError
try:
    DLBacktrace(model, x)
except UnsupportedOpError as error:
    print(error)
"""
)


class Environment:
    """A fresh environment that borrows what the tests run with, so that torch is not installed again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        venv.create(folder / "env", with_pip=False)
        self.python = folder / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
        (packages,) = (folder / "env").rglob("site-packages")
        lent = [p for p in (*site.getsitepackages(), *sys.path) if Path(p).name == "site-packages"]
        lines = [str(Path(dlb_core.__file__).parents[1]), *(f"import site; site.addsitedir({p!r})" for p in lent)]
        (packages / "lent.pth").write_text("\n".join(lines) + "\n")

    def install(self, project: Path) -> None:
        """Builds the project's wheel and installs it, offline."""
        dist = project / "dist"
        offline = ("--no-deps", "--no-index", "--disable-pip-version-check", "-q")
        _run(sys.executable, "-m", "pip", "wheel", *offline, "--no-build-isolation", "-w", dist, project)
        (wheel,) = dist.glob("*.whl")
        _run(sys.executable, "-m", "pip", "--python", self.python, "install", *offline, wheel)

    def uninstall(self, distribution: str) -> None:
        _run(sys.executable, "-m", "pip", "--python", self.python, "uninstall", "-y", "-q", distribution)

    def run(self, *argv: Any, cwd: Path) -> str:
        return _run(self.python, *argv, cwd=cwd)


def _run(*argv: Any, cwd: Path | None = None) -> str:
    outside = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "PYTEST", "DLB_"))}
    done = subprocess.run(
        [str(a) for a in argv], cwd=cwd, env=outside, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, f"{argv}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> Environment:
    return Environment(tmp_path_factory.mktemp("fresh"))


def documented(folder: Path) -> Path:
    """The files of the page, in a folder of their own; the library that the pack is for lies beside them."""
    project = folder / "swoosh-pack"
    for found in FILE.finditer(PAGE.read_text(encoding="utf-8")):
        target = (folder if found["path"] == "swoosh.py" else project) / found["path"]
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(found["text"], encoding="utf-8")
    return project


def test_the_documented_pack(environment: Environment, tmp_path: Path) -> None:
    project = documented(tmp_path)
    pack = (project / "swoosh_pack" / "__init__.py").read_text()
    assert len([line for line in pack.splitlines() if line.strip()]) <= 20
    environment.install(project)
    # the library on the path, the pack from where pip put it
    used = json.loads(environment.run("-c", USES, project / "tests", cwd=tmp_path).splitlines()[-1])
    plugin = next(p for p in used["plugins"] if p["pack"] == "swoosh")
    assert (plugin["status"], plugin["rows"], plugin["origin"]) == ("loaded", 2, "swoosh-pack (swoosh_pack)")
    assert {row["op"]: (row["kind"], row["pack"]) for row in used["ops"]} == {
        "swoosh::swoosh": ("elementwise", "swoosh"),
        "layer::swoosh.Fade": ("rule", "swoosh"),
    }
    assert used["rules"] == {
        "aten::linear.default": "builtin",
        "swoosh::swoosh.default": "swoosh",
        "layer::swoosh.Fade": "swoosh",
    }
    assert used["passes"]
    assert abs(used["residual"]) < 1e-3
    code, reports = used["check"]
    assert code == 0
    results = {report["op"]: report["result"] for report in reports}
    assert results["swoosh::swoosh"] == "passed"
    assert used["tests"] == 0
    environment.uninstall("swoosh-pack")
    error = environment.run("-c", WITHOUT, cwd=tmp_path)
    assert "no pack has a rule for 1 op(s) of this model:" in error
    assert "swoosh::swoosh.default   (node 'swoosh' in module '(top level)')" in error
    assert "packs looked in: builtin" in error


def test_the_skeleton_passes_its_own_tests(environment: Environment, tmp_path: Path) -> None:
    folder = tmp_path / "my-ops"
    assert main(["new-pack", "my-ops", "--out", str(folder)]) == 0
    environment.install(folder)
    done = environment.run("-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=folder)
    assert "3 passed" in done
    environment.uninstall("my-ops")


def test_the_page_names_every_property_and_kind() -> None:
    from dlb_core import rules
    from dlb_core.testing.properties import PROPERTIES

    page = PAGE.read_text(encoding="utf-8")
    assert [p.name for p in PROPERTIES if f"`{p.name}`" not in page] == []
    makers = ("attention", "bilinear", "constant", "elementwise", "linear", "lookup", "move", "normalise", "product")
    rows = (*makers, "softmax", "sum_", "rule", "share", "accumulate", "compound", "choice")
    assert [name for name in rows if f"`{name}(op" not in page and f"`@{name}(op" not in page] == []
    assert all(hasattr(rules, name) for name in rows)
