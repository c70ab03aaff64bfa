"""`through=`: only what passes chosen nodes, channels or heads goes on; the rest is booked, and the books close.

The oracle runs in legs: the relevance at the chosen node, with what is not chosen set to zero, is the seed of a second
explanation that starts there (`at=`). That is what passed through it, whatever ways lead around it.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import CASES, MLP
from zoo import traced as zoo_traced

from dlb_core import DLBacktrace, Explanation, Heads, integrated
from dlb_core.kernel.packs import registry

FAMILY = ("default", "epsilon", "gamma", "alpha-beta", "z-plus", "attnlrp", "cp-lrp", "vision")
MODES = [mode for mode in FAMILY if mode in registry().modes]


class Branches(nn.Module):
    """Two branches of two layers between a shared layer and a sum, and a way around all of them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(6, 8), nn.Linear(8, 3)
        self.a1, self.a2, self.b1, self.b2 = (nn.Linear(8, 8) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        h = self.stem(x).relu()
        return self.head(self.a2(self.a1(h).tanh()) + self.b2(self.b1(h).tanh()) + h)


class Asked:
    """A model with one question in one mode, in float64."""

    def __init__(self, dlb: DLBacktrace, call: dict[str, Tensor], **question: Any) -> None:
        self.dlb, self.call, self.question = dlb, call, question

    def __call__(self, through: Any = None, **more: Any) -> Explanation:
        return self.dlb.explain(**self.call, **{**self.question, "keep": "all", **more}, through=through)

    def legs(self, *stops: tuple[str, Any]) -> Tensor:
        """What arrives at the input when relevance is stopped and masked at each node in turn."""
        found = self()
        for name, mask in stops:
            seed = found.relevance[name] * mask
            found = self(at=name, target=seed, multiplier=1.0)
        (arrived,) = found.inputs.values()
        return arrived


def arrived(explanation: Explanation) -> Tensor:
    (found,) = explanation.inputs.values()
    return found


def closes(explanation: Explanation) -> None:
    ledger = explanation.ledger
    booked = math.fsum([*ledger.inputs.values(), *ledger.accounts.values()])
    assert abs(ledger.seed - booked) <= 1e-9 * ledger.scale
    assert ledger.check() == []


@cache
def traced(name: str) -> tuple[DLBacktrace, dict[str, Tensor]]:
    if name != "branches":
        return zoo_traced(name, torch.float64), CASES[name].example(dtype=torch.float64)
    torch.manual_seed(0)
    model = Branches().double().eval()
    call = {"x": torch.randn(4, 6, dtype=torch.float64)}
    return DLBacktrace(model, call), call


def branches(mode: str = "epsilon") -> Asked:
    return Asked(*traced("branches"), mode=mode, target=1)


def zoo(name: str, mode: str) -> Asked:
    return Asked(*traced(name), mode=mode, target=1 if name != "llama-sdpa" else None)


def channels(rank: int, dim: int, size: int, *chosen: int) -> Tensor:
    mask = torch.zeros(size, dtype=torch.float64)
    mask[list(chosen)] = 1
    return mask.reshape(-1, *[1] * (rank - dim - 1))


def heads(*chosen: int) -> Tensor:
    return channels(4, 1, 4, *chosen)


CONDITIONS: dict[str, tuple[str, dict[str, Any], list[tuple[str, Any]]]] = {
    "channels of a convolution": (
        "resnet18",
        {"layer3.0.conv2": [12, 40]},
        [("layer3.0.conv2", channels(4, 1, 256, 12, 40))],
    ),
    "a convolution, not the way around it": ("resnet18", {"layer2.1.conv1": True}, [("layer2.1.conv1", 1)]),
    "two on one path": (
        "resnet18",
        {"layer2.0.conv1": range(8), "layer4.1.conv2": None},
        [("layer4.1.conv2", 1), ("layer2.0.conv1", channels(4, 1, 128, *range(8)))],
    ),
    "heads of a module": (
        "bert-eager",
        {"bert.encoder.layer.1.attention": Heads(0, -1)},
        [("matmul_3", heads(0, 3))],
    ),
    "heads of an attention, by number alone": (
        "bert-sdpa",
        {"scaled_dot_product_attention": [2]},
        [("scaled_dot_product_attention", heads(2))],
    ),
    "heads below a channel": (
        "llama-sdpa",
        {"model.layers.0.self_attn": Heads([1, 2]), "model.layers.1.mlp.down_proj": [5, -1]},
        [
            ("model.layers.1.mlp.down_proj", channels(3, 2, 32, 5, 31)),
            ("scaled_dot_product_attention", heads(1, 2)),
        ],
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", CONDITIONS)
def test_only_what_passes_the_condition_arrives(name: str, mode: str) -> None:
    model, through, legs = CONDITIONS[name]
    asked = zoo(model, mode)
    explanation = asked(through)
    expected = asked.legs(*legs)
    torch.testing.assert_close(arrived(explanation), expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
    assert expected.abs().max() > 0
    closes(explanation)


@pytest.mark.parametrize("mode", MODES)
def test_beside_each_other_each_branch_has_its_own(mode: str) -> None:
    """Relevance passes one of them; the way around both is dropped, and its account names both."""
    asked = branches(mode)
    both = asked({"a1": [0, 3], "b2": [5]})
    alone = [asked({name: parts}) for name, parts in (("a1", [0, 3]), ("b2", [5]))]
    torch.testing.assert_close(arrived(both), arrived(alone[0]) + arrived(alone[1]), rtol=0, atol=1e-9)
    closes(both)
    around = both.ledger.accounts["through:linear_1|linear_4"]
    direct = float(arrived(asked()).sum() - arrived(asked({"a2": True})).sum() - arrived(asked({"b2": True})).sum())
    if mode == "default":  # no biases: what is dropped is what would have arrived
        assert around == pytest.approx(direct, abs=1e-8)


@pytest.mark.parametrize("mode", MODES)
def test_on_one_path_both_hold(mode: str) -> None:
    asked = branches(mode)
    torch.testing.assert_close(
        arrived(asked({"a1": [0, 3], "a2": [1], "stem": [2, 4]})),
        asked.legs(("a2", channels(2, 1, 8, 1)), ("a1", channels(2, 1, 8, 0, 3)), ("stem", channels(2, 1, 8, 2, 4))),
        rtol=0,
        atol=1e-9,
    )


@pytest.mark.parametrize("mode", MODES)
def test_a_condition_below_only_one_branch_leaves_the_other_free(mode: str) -> None:
    asked = branches(mode)
    explanation = asked({"a1": [0, 3], "a2": None, "b2": [5]})
    parts = (
        asked.legs(("a2", 1), ("a1", channels(2, 1, 8, 0, 3))),
        asked.legs(("b2", channels(2, 1, 8, 5))),
    )
    torch.testing.assert_close(arrived(explanation), parts[0] + parts[1], rtol=0, atol=1e-9)
    closes(explanation)


@pytest.mark.parametrize("mode", MODES)
def test_the_channels_make_up_the_node(mode: str) -> None:
    asked = branches(mode)
    parts = sum(arrived(asked({"b1": [channel]})) for channel in range(8))
    torch.testing.assert_close(parts, arrived(asked({"b1": True})), rtol=0, atol=1e-9)


def test_what_is_dropped_is_in_the_books_of_the_node_that_drops_it() -> None:
    asked = branches()
    whole = asked().relevance["a1"]
    explanation = asked({"a1": [0]})
    assert set(explanation.ledger.by_node["linear_1"].accounts) >= {"through:linear_1"}
    dropped = explanation.ledger.by_node["linear_1"].accounts["through:linear_1"]
    assert dropped == pytest.approx(float(whole[:, 1:].sum()))
    torch.testing.assert_close(explanation.relevance["a1"][:, 0], whole[:, 0])
    assert not explanation.relevance["a1"][:, 1:].any()
    assert "b1" not in explanation.relevance  # nothing flows there any more
    booked = math.fsum(units["booked"] for path, units in explanation.by_module().items())
    assert booked + explanation.ledger.inputs["x"] == pytest.approx(400)


def test_several_seeds_and_a_start_inside_take_conditions_too() -> None:
    asked = branches()
    several = asked({"a1": [0]}, target=None, targets=[0, 2])
    for seed, target in enumerate((0, 2)):
        torch.testing.assert_close(several.inputs["x"][seed], arrived(asked({"a1": [0]}, target=target)))
    inside = asked({"stem": [1]}, at="a2", target=3)
    closes(inside)
    assert inside.ledger.accounts["through:linear"] != 0
    whole = arrived(asked(at="a2", target=3))
    torch.testing.assert_close(arrived(asked({"a2": True}, at="a2", target=3)), whole)


def test_the_start_itself_may_be_named() -> None:
    asked = branches()
    torch.testing.assert_close(arrived(asked({"output": True})), arrived(asked()))
    assert arrived(asked({"head": [0]})).count_nonzero() == 0  # the seed is at class 1


def test_each_map_of_a_contrast_closes_under_a_condition() -> None:
    asked = branches("contrastive")
    whole, part = asked(), asked({"a1": [0, 3], "b2": True})
    for side in ("positive", "negative"):
        relevance = getattr(part.relevance, side)
        booked = math.fsum([*relevance.ledger.inputs.values(), *relevance.ledger.accounts.values()])
        assert abs(relevance.ledger.seed - booked) <= 1e-9 * relevance.ledger.scale
        assert relevance.ledger.accounts["through:linear_1"] > 0
        assert (relevance["x"] <= getattr(whole.relevance, side)["x"] + 1e-9).all()


def test_relevance_along_a_path_takes_conditions() -> None:
    """Of an average over points each point is masked alike, so the channels still make up the node."""
    asked = branches()
    along = [
        arrived(asked(through, mode=integrated("epsilon", baseline=0.0, steps=4)))
        for through in (*({"a1": channel} for channel in range(8)), {"a1": True})
    ]
    torch.testing.assert_close(sum(along[:-1]), along[-1], rtol=0, atol=1e-9)


def test_two_names_of_one_node_hold_together() -> None:
    asked = branches()
    torch.testing.assert_close(arrived(asked({"a1": [0, 3], "linear_1": (3, 4)})), arrived(asked({"a1": 3})))


def test_evaluation_takes_conditions() -> None:
    asked = branches()
    asked.dlb.predict(**asked.call)
    relevance = asked.dlb.evaluation(mode="epsilon", target=1, through={"b2": torch.tensor([5])})
    torch.testing.assert_close(relevance["x"], arrived(asked({"b2": [5]})))


@pytest.mark.parametrize("check", ["ends", "off"])
def test_what_is_dropped_does_not_depend_on_the_check(check: str) -> None:
    torch.manual_seed(0)
    model, x = Branches().double().eval(), torch.randn(4, 6, dtype=torch.float64)
    strict, lax = (DLBacktrace(model, x, check=c).explain(x, through={"a1": [0]}) for c in ("raise", check))
    torch.testing.assert_close(strict.inputs["x"], lax.inputs["x"])


REFUSED: list[tuple[Any, str]] = [
    ({"a3": [0]}, r"'a3' is no node or module of this model; did you mean '.*'a1'.*see dlb.graph"),
    ({"a1": [8]}, r"through\['a1'\] names channel 8: choose from 0 .. 7"),
    ({"a1": [-9]}, r"names channel -9: choose from 0 .. 7"),
    ({"a1": []}, "names no channel or head"),
    ({"a1": [1.5]}, "names no channel or head"),
    ({"a1": "all"}, "names no channel or head"),
    ({"a1": False}, "names no channel or head"),
    ({"a1": Heads(0)}, "has no heads, nor has this model"),
    (["a1"], "give a dict"),
]


@pytest.mark.parametrize(("through", "says"), REFUSED, ids=[str(through) for through, _ in REFUSED])
def test_what_is_not_there_is_refused(through: Any, says: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6)
    with pytest.raises(ValueError, match=says):
        DLBacktrace(Branches().eval(), x, tracer="tape").explain(x, through=through)


def test_heads_that_are_not_there_are_refused() -> None:
    dlb, call = zoo_traced("bert-sdpa"), CASES["bert-sdpa"].example()
    with pytest.raises(ValueError, match=r"names head 4: choose from 0 .. 3"):
        dlb.explain(**call, through={"bert.encoder.layer.0.attention": Heads(1, 4)})
    with pytest.raises(ValueError, match=r"holds several attentions: name one of"):
        dlb.explain(**call, through={"bert.encoder": Heads(1)})
    with pytest.raises(ValueError, match="names no channel or head"):
        Heads("all")  # type: ignore[arg-type]


def test_a_node_after_the_start_is_refused() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6)
    with pytest.raises(ValueError, match="no relevance reaches it in mode 'default'"):
        DLBacktrace(MLP().eval(), x).explain(x, at="fc1", target=0, through={"fc2": True})
