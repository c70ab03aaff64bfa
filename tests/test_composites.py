"""Composites: which mode runs where, what they say of themselves, and what they refuse."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_core.rules import Composite, Mode, Part, part
from dlb_ops_builtin.modes.epsilon import EPSILON


class Net(nn.Module):
    """Three convolutions, one of them called twice, a residual sum and two dense layers."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, padding=1)
        self.body = nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.head = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x - 0.5)
        h = torch.relu(h + self.body(h))
        out: Tensor = self.head(h.mean((2, 3)))
        return out


@pytest.fixture(scope="module")
def dlb() -> DLBacktrace:
    torch.manual_seed(0)
    return DLBacktrace(Net().double().eval(), (X,))


X = torch.rand(2, 1, 6, 6, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
PLACES = {
    "conv2d": "stem",
    "conv2d_1": "body.0",
    "conv2d_2": "body.2",
    "linear": "head.0",
    "linear_1": "head.2",
}


def rules(dlb: DLBacktrace, *parts: Part) -> dict[str, str]:
    """Module path of the layers with weights -> the rule that the plan shows."""
    table = dlb.plan(Composite("mine", parts)).table()
    node, rule = table.columns.index("node"), table.columns.index("rule")
    found = {row[node]: row[rule] for row in table}
    return {path: found[name] for name, path in PLACES.items()}


def test_the_first_part_that_fits_runs(dlb: DLBacktrace) -> None:
    found = rules(
        dlb,
        part("flat", first=True),
        part("gamma", layer_type=nn.Conv2d, gamma=0.5),
        part("z-plus", layer="head.2"),
        part("epsilon"),
    )
    assert found == {
        "stem": "flat/linear",
        "body.0": "gamma(gamma=0.5)/linear",
        "body.2": "gamma(gamma=0.5)/linear",
        "head.0": "epsilon/linear",
        "head.2": "z-plus/linear",
    }


@pytest.mark.parametrize(
    ("where", "hits"),
    [
        ({"first": True}, ["stem"]),
        ({"first": False}, ["body.0", "body.2", "head.0", "head.2"]),
        ({"tag": "convolution"}, ["stem", "body.0", "body.2"]),
        ({"op": "aten::linear*"}, ["head.0", "head.2"]),
        ({"layer": "body.*"}, ["body.0", "body.2"]),
        ({"layer_type": "Linear"}, ["head.0", "head.2"]),
        ({"layer_type": nn.Sequential}, ["body.0", "body.2", "head.0", "head.2"]),
        ({"depth": (0.0, 0.0)}, ["stem"]),
        ({"depth": (0.2, 0.5)}, ["body.0", "body.2"]),
        ({"depth": (1.0, 1.0)}, ["head.2"]),
        ({"kind": "linear"}, list(PLACES.values())),
        ({"kind": ("sum", "bilinear")}, []),
        ({"layer_type": "Linear", "depth": (0.0, 0.8)}, ["head.0"]),
    ],
)
def test_conditions(dlb: DLBacktrace, where: dict[str, object], hits: list[str]) -> None:
    found = rules(dlb, part("gamma", **where), part("epsilon"))  # type: ignore[arg-type]
    assert [path for path, rule in found.items() if rule == "gamma/linear"] == hits


def test_it_explains_and_its_books_close(dlb: DLBacktrace) -> None:
    mine = Composite(
        "mine", [part("z-box", first=True, low=-0.5, high=0.5), part("gamma", tag="convolution"), part("epsilon")]
    )
    found = dlb.explain(X, mode=mine, target=1)
    assert found.mode == "mine"
    assert found.ledger.check() == []
    assert found.ledger.seed == 200.0


def test_of_one_mode_it_is_that_mode(dlb: DLBacktrace) -> None:
    for name in ("epsilon", "gamma", "alpha-beta", "attnlrp", "default"):
        alone = dlb.explain(X, mode=name, target=1).inputs["x"]
        assert torch.equal(dlb.explain(X, mode=Composite("same", [part(name)]), target=1).inputs["x"], alone)


def test_a_mode_object_of_ones_own_is_a_part(dlb: DLBacktrace) -> None:
    own = Mode("own", EPSILON.formulas, {"eps": 1e-3, "bias": "absorb"})
    first = dlb.explain(X, mode=own, target=1).inputs["x"]
    assert torch.equal(dlb.explain(X, mode=Composite("c", [part(own)]), target=1).inputs["x"], first)
    assert torch.equal(dlb.explain(X, mode="epsilon", eps=1e-3, target=1).inputs["x"], first)


def test_an_option_goes_to_the_parts_that_have_it_and_do_not_set_it(dlb: DLBacktrace) -> None:
    mine = Composite(
        "mine", [part("gamma", layer="stem", gamma=1.0), part("gamma", tag="convolution"), part("epsilon")]
    )
    named = Composite(
        "named", [part("gamma", layer="stem", gamma=1.0), part("gamma", tag="convolution", gamma=0.5), part("epsilon")]
    )
    assert torch.equal(
        dlb.explain(X, mode=mine, gamma=0.5, target=1).inputs["x"], dlb.explain(X, mode=named, target=1).inputs["x"]
    )
    both = dlb.explain(X, mode=mine, bias="redistribute", target=1)
    assert not [name for name in both.ledger.accounts if name.startswith("bias:")]


def test_rules_for_input_layers_run_there_and_epsilon_beyond(dlb: DLBacktrace) -> None:
    whole = dlb.explain(X, mode="flat", target=1).inputs["x"]
    mine = Composite("mine", [part("flat", first=True), part("epsilon")])
    assert torch.equal(dlb.explain(X, mode=mine, target=1).inputs["x"], whole)
    everywhere = dlb.explain(X, mode=Composite("all", [part("flat")]), target=1).inputs["x"]
    assert not torch.equal(everywhere, whole)


def test_vision_takes_flat_or_the_box_of_its_input(dlb: DLBacktrace) -> None:
    flat = Composite("v", [part("flat", first=True), part("gamma", tag="convolution", gamma=0.25), part("epsilon")])
    boxed = Composite(
        "v",
        [part("z-box", first=True, low=-0.5, high=0.5), part("gamma", tag="convolution", gamma=0.25), part("epsilon")],
    )
    for mine, options in ((flat, {}), (boxed, {"low": -0.5, "high": 0.5})):
        expected = dlb.explain(X, mode=mine, target=1).inputs["x"]
        torch.testing.assert_close(dlb.explain(X, mode="vision", target=1, **options).inputs["x"], expected)


def test_it_is_data(dlb: DLBacktrace) -> None:
    mine = Composite("mine", [part("flat", first=True), part("gamma", depth=(0.0, 0.5), gamma=0.1), part("epsilon")])
    again = Composite.from_dict(json.loads(json.dumps(mine.to_dict())))
    assert again.to_dict() == mine.to_dict()
    assert str(again) == str(mine)
    assert "depth=0.0..0.5" in str(mine)
    assert "gamma(gamma=0.1)" in str(mine)
    assert torch.equal(
        dlb.explain(X, mode=again, target=1).inputs["x"], dlb.explain(X, mode=mine, target=1).inputs["x"]
    )


@pytest.mark.parametrize(
    ("parts", "says"),
    [
        ([part("gamma", layer="stem")], "no part of composite 'mine' fits node 'linear_1'"),
        ([part("nope")], "unknown mode 'nope'; the modes are:"),
        ([part("contrastive")], "'contrastive' is no plain mode"),
        ([part("vision")], "'vision' is no plain mode"),
        ([part("gamma", gamma=-1.0)], "gamma=-1.0: must be"),
        ([part("gamma", alpha=2.0)], "mode 'gamma' has no option 'alpha'; it has: gamma=0.25"),
        ([], "has no parts"),
    ],
)
def test_what_cannot_be_is_refused(dlb: DLBacktrace, parts: list[Part], says: str) -> None:
    with pytest.raises(ValueError, match="(?s)" + says.replace("(", r"\(")):
        dlb.plan(Composite("mine", parts))


def test_a_condition_that_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match=r"depth=\(0.5, 0.2\)"):
        part("gamma", depth=(0.5, 0.2))
    with pytest.raises(ValueError, match="layer=3: give a string"):
        part("gamma", layer=3)  # type: ignore[arg-type]
    for data in ({}, {"parts": 3}, {"parts": [{"gamma": 1}]}, {"parts": ["epsilon"]}):
        with pytest.raises(ValueError, match=r"a part of a composite needs a mode|a composite is"):
            Composite.from_dict(data)


def test_an_option_that_no_part_has_lists_those_there_are(dlb: DLBacktrace) -> None:
    with pytest.raises(ValueError, match=r"mode 'vision' has no option 'gama'; it has: .*gamma=0.25"):
        dlb.explain(X, mode="vision", gama=1)


@pytest.mark.parametrize("mode", ["flat", "w-square"])
def test_a_recurrent_op_is_no_input_layer(mode: str) -> None:
    """All of its steps are one node, and what it carries from one to the next is no input."""
    torch.manual_seed(0)
    model = nn.LSTM(3, 4, batch_first=True).double().eval()
    x = torch.randn(2, 5, 3, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    target = torch.ones(2, 5, 4, dtype=torch.float64)
    found = dlb.explain(x, mode=mode, bias="absorb", target=target).inputs["input"]
    assert torch.equal(found, dlb.explain(x, mode="epsilon", target=target).inputs["input"])
