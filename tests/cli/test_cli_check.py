"""`dlb check` and `dlb new-pack`."""

import pytest

from dlb_core.kernel.packs import registry

PACK = """
import torch
from dlb_core.rules import Shares, elementwise, hookimpl, layer_rule, move, rule
from dlb_core.testing import Case

DLB_API = 1

@torch.library.custom_op("clipack::{op}", mutates_args=())
def {op}(x: torch.Tensor) -> torch.Tensor:
    return x * torch.sigmoid(x)

class Layer(torch.nn.Module):
    def forward(self, x):
        return x.tanh() * 2

RULES = [elementwise("clipack::{op}"){more}]

@layer_rule(Layer)
def layer(call, r, mode):
    return Shares({{"input": r}})

@hookimpl
def dlb_rules(): return RULES

@hookimpl
def dlb_layer_rules(): return [layer]
"""
CASES = '\nDLB_CASES = [Case(Layer, lambda t: {"x": t(2, 3)}, ("x",), batch=("x",), module=Layer)]\n'


def test_the_rules_of_a_module_hold(dlb, place):
    (place.path / "clipack_one.py").write_text(PACK.format(op="one", more="") + CASES)
    answer = dlb("check", "clipack_one", "--json")
    assert answer.code == 0
    reports = {report["op"]: report for report in answer.json}
    assert set(reports) == {"clipack::one", "layer::clipack_one.Layer"}
    assert {report["result"] for report in reports.values()} == {"passed"}
    assert {"conservation", "places", "vmap", "compile"} <= set(reports["clipack::one"]["passed"])
    assert reports["clipack::one"]["skipped"] == {}
    assert reports["clipack::one"]["kind"] == "elementwise"
    assert "clipack_one" not in registry().loaded


def test_what_fails_is_said_and_what_has_no_case_is_skipped(dlb, place):
    more = ', move("aten::relu6", replaces="builtin", back=lambda r, call: r / 2)'
    (place.path / "clipack_two.py").write_text(PACK.format(op="two", more=more))
    answer = dlb("check", "clipack_two")
    assert answer.code == 1
    lines = answer.out.splitlines()
    assert lines[0] == "pack clipack_two: 3 rule(s)  1 passed, 1 failed, 1 skipped"
    (failed,) = [line for line in lines if line.startswith("aten::relu6  ")]
    assert "failed" in failed
    assert "conservation" in failed
    (skipped,) = [line for line in lines if line.startswith("layer::")]
    assert "no case: a layer's module and inputs cannot be guessed; give a Case" in skipped
    assert "aten::relu6 (kind move, pack clipack_two), mode default (bias=absorb): broke 'conservation'" in answer.out
    assert "case: relu6.default[self] with self [" in answer.out
    (record,) = dlb("check", "clipack_two", "RELU", "--json").json
    assert record["failed"]["property"] == "conservation"
    assert record["failed"]["mode"] == "default (bias=absorb)"
    assert "relevance is not conserved" in record["failed"]["why"]


def test_an_installed_pack_and_a_filter(dlb):
    answer = dlb("check", "builtin", "sigmoid", "--json")
    assert answer.code == 0
    results = {report["op"]: report["result"] for report in answer.json}
    assert results == {"aten::hardsigmoid": "passed", "aten::log_sigmoid": "passed", "aten::sigmoid": "passed"}
    nothing = dlb("check", "builtin", "no_such_op")
    assert nothing.code == 0
    assert "none matches 'no_such_op'" in nothing.out


@pytest.mark.parametrize(
    ("module", "body", "code", "said"),
    [
        ("no_such_pack", None, 2, "no pack and no module is called 'no_such_pack'; the installed packs are: builtin"),
        ("not.a..name", None, 2, "no pack and no module is called 'not.a..name'"),
        ("clipack_api", "x = 1", 1, "pack clipack_api is failed: PackError: DLB_API is None"),
        ("clipack_raises", "raise OSError('no compiler')", 1, "pack clipack_raises is failed: OSError: no compiler"),
        (
            "clipack_cases",
            "DLB_API, DLB_CASES = 1, [3]",
            1,
            "DLB_CASES of pack clipack_cases holds 3, which is no",
        ),
    ],
)
def test_a_pack_that_cannot_be_checked(dlb, place, module, body, code, said):
    if body is not None:
        (place.path / f"{module}.py").write_text(body)
    answer = dlb("check", module)
    assert (answer.code, answer.out) == (code, "")
    assert said in answer.err


def test_a_pack_that_is_switched_off(dlb, monkeypatch):
    monkeypatch.setenv("DLB_PACKS", "none")
    answer = dlb("check", "builtin")
    assert answer.code == 1
    assert "pack builtin is off: it is switched off by DLB_PACKS" in answer.err


def test_new_pack_writes_a_skeleton(dlb, place):
    answer = dlb("new-pack", "My.Own_Ops")
    assert answer.code == 0
    for said in ("pip install -e '.[test]'", "pytest", "dlb check my_own_ops", "cd my-own-ops"):
        assert said in answer.out
    folder = place.path / "my-own-ops"
    files = {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}
    assert files == {
        "pyproject.toml",
        "README.md",
        "my_own_ops/__init__.py",
        "my_own_ops/py.typed",
        "tests/test_pack.py",
    }
    text = "".join((folder / name).read_text() for name in files)
    assert "PACKAGE" not in text
    assert "DISTRIBUTION" not in text
    assert 'my_own_ops = "my_own_ops"' in (folder / "pyproject.toml").read_text()
    elsewhere = dlb("new-pack", "my-own-ops", "--out", "some/where", "--json")
    assert elsewhere.json["pack"] == "my_own_ops"
    assert (place.path / "some" / "where" / "my_own_ops" / "__init__.py").is_file()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("my ops", "is no name for a distribution"),
        ("-ops", "--help"),
        ("ops-", "is no name for a distribution"),
        ("../ops", "is no name for a distribution"),
        ("öps", "is no name for a distribution"),
        ("3d-ops", "'3d_ops', which Python cannot import"),
        ("class", "'class', which Python cannot import"),
        ("torch", "'torch', which exists"),
        ("dlb-core", "'dlb_core', which exists"),
        ("json", "'json', which exists"),
        ("taken", "taken exists already: choose another name, or another folder with --out"),
    ],
)
def test_new_pack_refuses(dlb, place, name, said):
    (place.path / "taken").mkdir()
    before = place.entries()
    answer = dlb("new-pack", name)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert place.entries() == before
