"""The examples on these pages run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"


PAGES = ["inside", "adapters", "paths", "generation", "pipeline", "calibration", "moe", "pictures", "report", "graphs"]


@pytest.mark.parametrize("name", PAGES)
def test_the_examples_run(
    name: str, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)  # some read examples, some write files
    run(DOCS / f"{name}.md", least=3)


def test_the_example_of_the_pack_for_experts_runs(capsys: pytest.CaptureFixture[str]) -> None:
    run(ROOT / "dlb_ops_moe" / "README.md", least=1)
    assert capsys.readouterr().out.count("experts of model.layers.") == 2


def run(page: Path, *, least: int) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M)
    assert len(blocks) >= least
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": page.stem})
