"""Rows, modes and passes of a third party at work in an explanation."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from fake_packs import Site, site
from swoosh_ops import One, Swish2d, Swoosh
from torch import nn
from zoo import MLP

from dlb_core import ConservationError, DLBacktrace, Relevance, RuleError, UnsupportedOpError

EXAMPLE = """
RULES = [
    elementwise("swoosh::swoosh"),                                         # R passes
    move("swoosh::mirror", back=lambda r, call: r.flip(call.dims)),        # call: the arguments by their schema names
    linear("swoosh::mix", x="x", weight="w", apply=lambda x, w, call: x @ w, transpose=lambda s, w, call: s @ w.mT),
]

@rule("swoosh::gauss", reads=("x", "output"))
def gauss(call, r, mode):
    share = r / (call.output + mode.eps)
    return Shares({"x": share * call.output}, stabiliser=(share * mode.eps).sum())

@hookimpl
def dlb_rules(): return RULES + [gauss]
"""


@pytest.fixture
def packs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Site]:
    with site(tmp_path, monkeypatch) as made:
        yield made


@pytest.fixture
def x() -> torch.Tensor:
    torch.manual_seed(0)
    return torch.randn(4, 6)


def test_the_example_pack_explains_its_ops(packs: Site, x: torch.Tensor) -> None:
    """Against the same rules written out by hand."""
    packs.add("swoosh", EXAMPLE)
    model = Swoosh().eval()
    dlb = DLBacktrace(model, x)
    explanation = dlb.explain(x, mode="epsilon", target=2, keep="all")
    relevance = explanation.relevance

    eps, w = 1e-6, model.weight.detach()
    mixed = torch.ops.swoosh.swoosh(x) @ w
    output = torch.exp(-(mixed.flip(1) ** 2))
    seed = 100.0 * nn.functional.one_hot(torch.tensor([2] * 4), 3)
    before_gauss = seed / (output + eps) * output
    before_mix = before_gauss.flip(1)
    expected = torch.ops.swoosh.swoosh(x) * ((before_mix / (mixed + torch.copysign(torch.tensor(eps), mixed))) @ w.mT)

    torch.testing.assert_close(explanation.output, output)
    torch.testing.assert_close(relevance["mirror"], before_gauss)
    torch.testing.assert_close(relevance["mix"], before_mix)
    torch.testing.assert_close(explanation.inputs["x"], expected)
    assert {r["pack"] for r in dlb.plan("epsilon").table().records()} == {"swoosh"}
    kinds = {data["op"]: data["kind"] for _, data in dlb.graph("epsilon").nodes(data=True)}
    assert kinds["swoosh::mix.default"] == "linear"
    assert kinds["swoosh::gauss.default"] == "rule"


@pytest.mark.parametrize("mode", ["default", "epsilon"])
def test_the_example_pack_closes_the_books_in_every_mode(mode: str, packs: Site, x: torch.Tensor) -> None:
    packs.add("swoosh", EXAMPLE)
    ledger = DLBacktrace(Swoosh().eval(), x).explain(x, mode=mode).ledger
    assert ledger.seed == 400
    assert abs(ledger.residual) < 1e-2


def test_a_rule_of_one_mode_leaves_the_other_modes_to_the_general_row(packs: Site, x: torch.Tensor) -> None:
    packs.add(
        "swoosh",
        """
        @rule("swoosh::swoosh", modes=("epsilon",))
        def half_is_lost(call, r, mode):
            return Shares({"x": r / 2}, swallowed=(r / 2).sum())

        @hookimpl
        def dlb_rules(): return [elementwise("swoosh::swoosh"), half_is_lost]
        """,
    )
    dlb = DLBacktrace(One("swoosh").eval(), x)
    assert "swallowed" not in dlb.explain(x, mode="default").ledger.accounts
    ledger = dlb.explain(x, mode="epsilon").ledger
    entry = ledger.by_node["swoosh"]
    assert entry.accounts["swallowed"] == pytest.approx(entry.into / 2, rel=1e-5)
    rules = {r["node"]: r["rule"] for r in dlb.plan("epsilon").table().records()}
    assert rules["swoosh"] == "half_is_lost"


def test_a_rule_of_one_mode_alone_serves_that_mode(packs: Site, x: torch.Tensor) -> None:
    packs.add(
        "swoosh",
        """
        @rule("swoosh::swoosh", modes=("epsilon",))
        def passes(call, r, mode): return Shares({"x": r})

        @hookimpl
        def dlb_rules(): return [passes]
        """,
    )
    dlb = DLBacktrace(One("swoosh").eval(), x)
    assert dlb.explain(x, mode="epsilon").ledger.seed == 400
    with pytest.raises((RuleError, UnsupportedOpError), match="swoosh::swoosh"):
        dlb.explain(x, mode="default")


def test_a_device_row_is_bound_on_its_device_with_its_own_forward(packs: Site, x: torch.Tensor) -> None:
    packs.add_rules(
        "swoosh",
        """[
            elementwise("swoosh::swoosh"),
            elementwise("swoosh::swoosh", device="cpu", forward=lambda x: x * 0 + 7, tags={"seven"}),
            elementwise("swoosh::swoosh", device="cuda", forward=lambda x: x * 0 + 8),
        ]""",
    )
    dlb = DLBacktrace(One("swoosh").eval(), x)
    step = next(step for step in dlb.plan().steps if step.node.name == "swoosh")
    assert step.declared.device == "cpu"
    assert dlb.predict(x)["swoosh"].output.unique().tolist() == [7]


def test_an_op_that_only_a_device_row_covers_is_covered_there(packs: Site, x: torch.Tensor) -> None:
    packs.add_rules("swoosh", '[elementwise("swoosh::swoosh", device="cpu")]')
    assert DLBacktrace(One("swoosh").eval(), x).explain(x).ledger.seed == 400


def test_a_dtype_row_is_bound_for_its_dtype(packs: Site, x: torch.Tensor) -> None:
    packs.add(
        "swoosh",
        """
        import torch
        RULES = [elementwise("swoosh::swoosh"), move("swoosh::swoosh", dtypes=(torch.float64,), back=lambda r, call: r)]
        @hookimpl
        def dlb_rules(): return RULES
        """,
    )
    for dtype, kind in ((torch.float32, "elementwise"), (torch.float64, "move")):
        dlb = DLBacktrace(One("swoosh").eval().to(dtype), x.to(dtype))
        kinds = {r["node"]: r["kind"] for r in dlb.plan().table().records()}
        assert kinds["swoosh"] == kind


def test_a_mode_of_a_third_party_is_used_by_name_and_has_its_options(packs: Site, x: torch.Tensor) -> None:
    packs.add(
        "modes",
        """
        @formula(reads=("x", "weight"))
        def equal(k, r, mode):
            '''Every input that an output sees gets the same share of `keep`; the rest is swallowed.'''
            ones = k.weight * 0 + 1
            n = k.apply(k.x * 0 + 1, ones)
            return Shares({k.name: k.transpose(r * mode.keep / n, ones)}, swallowed=(r * (1 - mode.keep)).sum())

        @hookimpl
        def dlb_modes(): return [Mode("equal", {"linear": equal}, options={"keep": 1.0}, summary="equal shares")]
        """,
    )
    dlb = DLBacktrace(MLP().eval(), x)
    assert {"default", "epsilon", "equal"} <= set(dlb.modes)
    dlb.predict(x)
    assert torch.allclose(dlb.evaluation("equal")["x"], torch.full((4, 6), 100 / 6))
    halved = dlb.evaluation("equal", keep=0.5)
    assert torch.allclose(halved["x"], torch.full((4, 6), 100 / 6 / 8))
    assert halved.ledger.accounts == pytest.approx({"swallowed": 350.0})
    with pytest.raises(ValueError, match=r"mode 'equal' has no option 'eps'; it has: keep=1\.0"):
        dlb.evaluation("equal", eps=1.0)


def test_a_mode_without_a_formula_for_a_kind_says_which(packs: Site, x: torch.Tensor) -> None:
    packs.add("modes", "@hookimpl\ndef dlb_modes(): return [Mode('bare', {})]")
    says = r"mode 'bare' has no formula for kind 'linear' \(node 'linear_2', aten::linear.default\).*add one"
    with pytest.raises(RuleError, match=says):
        DLBacktrace(MLP().eval(), x).explain(x, mode="bare")


@pytest.mark.parametrize("way", ["explain", "evaluation"])
def test_a_row_with_shapes_that_depend_on_data_is_looped_over_seeds(way: str, packs: Site, x: torch.Tensor) -> None:
    packs.add(
        "swoosh",
        """
        @rule("swoosh::swoosh", dynamic=True)
        def dropped(call, r, mode):
            kept = r[r.abs() > r.abs().mean().item()]
            back = r.clone()
            back[r.abs() > r.abs().mean().item()] = kept
            return Shares({"x": back})

        @hookimpl
        def dlb_rules(): return [dropped]
        """,
    )
    model = nn.Sequential(One("swoosh"), nn.Tanh(), nn.Linear(3, 3)).eval()
    dlb = DLBacktrace(model, x)
    dlb.predict(x)

    def ask(**question: Any) -> Relevance:
        if way == "evaluation":
            return dlb.evaluation("epsilon", **question)
        return dlb.explain(x, mode="epsilon", **question).relevance

    together = ask(targets=[0, 2])
    for i, target in enumerate((0, 2)):
        torch.testing.assert_close(together["input"][i], ask(target=target)["input"])
    assert [ledger.seed for ledger in together.ledger] == [400, 400]


def test_a_pass_of_a_pack_runs_in_its_order_and_can_be_switched(packs: Site, x: torch.Tensor) -> None:
    packs.add(
        "passes",
        """
        class Double:
            name, order, phase, switch = "double", 15, "rewrite", None
            def run(self, program, registry):
                done = []
                for node in list(program.graph.nodes):
                    if node.op == "call_function" and op_name(node.target) == "aten::tanh.default":
                        program.drop(node, node.args[0])
                        done.append(f"{node.name} taken out")
                return done

        @hookimpl
        def dlb_passes(): return [Double()]
        """,
    )
    orders = [graph_pass.order for graph_pass in packs.registry().passes]
    assert orders == sorted(orders)
    model = MLP().eval()
    explanation = DLBacktrace(model, x).explain(x, keep="all")
    torch.testing.assert_close(explanation.output, model.fc3(model.fc2(model.fc1(x).relu())))
    assert explanation.relevance["tanh"] is explanation.relevance["linear_1"]


NO_PACKS = """
import sys, torch
from torch import nn
import dlb_core
from dlb_core.kernel.packs import registry
from dlb_core.kernel.trace import trace_export
found = registry()
assert not (found.rows or found.modes or found.passes or found.loaded), found
assert "builtin" in [p.name for p in found.packs] and {p.status for p in found.packs} == {"off"}
assert not any(name.startswith("dlb_ops") for name in sys.modules)
model, x = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).eval(), torch.ones(2, 3)
names = [node.name for node in trace_export(model, (x,), {}).graph.nodes if node.op == "call_function"]
assert names == ["linear", "relu", "linear_1"], names
try:
    dlb_core.DLBacktrace(model, x)
except dlb_core.UnsupportedOpError as error:
    text = str(error)
    assert {m.op for m in error.missing} == {"aten::linear.default", "aten::relu.default"}, error.missing
    assert "packs looked in: none" in text, text
    assert "2 nodes" in text, text
else:
    raise AssertionError("explained without a pack")
"""


def test_without_packs_the_kernel_traces_and_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DLB_PACKS", "none")
    done = subprocess.run([sys.executable, "-c", NO_PACKS], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


LAYER_PACK = """
from swoosh_ops import Swish2d
from dlb_core.rules import layer_rule

@layer_rule(Swish2d)
def swish2d(call, r, mode): return Shares({"input": r})

@hookimpl
def dlb_layer_rules(): return [swish2d]
"""


def test_a_pack_brings_a_rule_for_a_module_class(packs: Site, x: torch.Tensor) -> None:
    packs.add("swish", LAYER_PACK)
    dlb = DLBacktrace(nn.Sequential(nn.Linear(6, 5), Swish2d(), nn.Linear(5, 2)).eval(), x)
    records = dlb.plan("epsilon").table().records()
    (layer,) = [row for row in records if row["op"].startswith("layer::")]
    assert (layer["pack"], layer["module"], layer["relevance goes to"]) == ("swish", "1", "input")
    relevance = dlb.explain(x, mode="epsilon", keep="all").relevance
    torch.testing.assert_close(relevance["0"], relevance["1"])


@pytest.mark.parametrize(
    ("returned", "error", "says"),
    [
        (
            "r.sum()",
            RuleError,
            r"the rule for layer::swoosh_ops\.Swish2d at node '.*' \(pack swish, kind rule\) returned shape \[\] for "
            r"operand 'input' of shape \[4, 5\]; sum broadcast dimensions back",
        ),
        (
            "r / 3",
            ConservationError,
            r"relevance is not conserved at node '.*' \(layer::swoosh_ops\.Swish2d, kind rule, pack swish\) "
            r"in module '1': in .*, out .*, accounts: none; lost ",
        ),
    ],
    ids=["shape", "units"],
)
def test_a_wrong_layer_rule_names_itself_and_its_pack(
    returned: str, error: type[Exception], says: str, packs: Site, x: torch.Tensor
) -> None:
    packs.add("swish", LAYER_PACK.replace('"input": r', f'"input": {returned}'))
    dlb = DLBacktrace(nn.Sequential(nn.Linear(6, 5), Swish2d(), nn.Linear(5, 2)).eval(), x)
    with pytest.raises(error, match=says):
        dlb.explain(x, mode="epsilon")
