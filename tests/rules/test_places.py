"""Relevance lands where the value came from and nowhere else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from .harness import MODE_NAMES, MODES, ModeName, bind, bind_op
from .tensors import Tensors

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def one_hot(*shape: int, at: tuple[int, ...]) -> Tensor:
    """100 units at one place."""
    r = torch.zeros(shape, dtype=torch.float64)
    r[at] = 100.0
    return r


def touched(relevance: Tensor) -> set[tuple[int, ...]]:
    """The places that got anything at all."""
    return {tuple(place) for place in relevance.nonzero().tolist()}


@every_mode
def test_a_depthwise_convolution_stays_in_its_channel(mode: ModeName) -> None:
    t = Tensors(1)
    arguments = {"input": t(1, 4, 5, 5), "weight": t(4, 1, 3, 3), "bias": t(4), "padding": [1], "groups": 4}
    done = bind_op(aten.conv2d.default, arguments, ["input"], mode).back(one_hot(1, 4, 5, 5, at=(0, 2, 2, 2)))
    assert touched(done["input"]) == {(0, 2, i, j) for i in (1, 2, 3) for j in (1, 2, 3)}


@every_mode
def test_groups_do_not_mix(mode: ModeName) -> None:
    t = Tensors(1)
    arguments = {"input": t(1, 4, 3), "weight": t(6, 2, 1), "groups": 2}
    done = bind_op(aten.conv1d.default, arguments, ["input"], mode).back(one_hot(1, 6, 3, at=(0, 4, 1)))
    assert touched(done["input"]) == {(0, 2, 1), (0, 3, 1)}


@every_mode
def test_a_dilated_and_strided_kernel_touches_only_its_taps(mode: ModeName) -> None:
    t = Tensors(1)
    window = {"stride": [2, 1], "dilation": [3, 2], "padding": [1, 0]}
    arguments = {"input": t(1, 1, 10, 7), "weight": t(1, 1, 3, 2), **window}
    bound = bind_op(aten.conv2d.default, arguments, ["input"], mode)
    done = bound.back(one_hot(*bound.output.shape, at=(0, 0, 1, 4)))
    rows, columns = [1 * 2 - 1 + 3 * k for k in range(3)], [4 + 2 * k for k in range(2)]
    assert touched(done["input"]) == {(0, 0, i, j) for i in rows for j in columns}


@every_mode
def test_padding_takes_nothing(mode: ModeName) -> None:
    """A corner of the output sees only the corner of the input; all units stay there."""
    t = Tensors(1)
    arguments = {"self": t.positive(1, 4, 4), "kernel_size": [2], "padding": [1]}
    done = bind_op(aten.avg_pool2d.default, arguments, ["self"], mode).back(one_hot(1, 3, 3, at=(0, 0, 0)))
    assert touched(done["self"]) == {(0, 0, 0)}
    assert float(done["self"].sum()) == pytest.approx(100.0, rel=1e-4)


@every_mode
def test_a_causal_mask_sends_nothing_to_the_future(mode: ModeName) -> None:
    t = Tensors(1)
    arguments = {"query": t(1, 2, 5, 3), "key": t(1, 2, 5, 3), "value": t(1, 2, 5, 4), "is_causal": True}
    for i in range(5):
        r = one_hot(1, 2, 5, 4, at=(0, 1, i, 2))
        done = bind_op(SDPA, arguments, ["query", "key", "value"], mode).back(r)
        assert touched(done["value"]) == {(0, 1, j, 2) for j in range(i + 1)}


@every_mode
@pytest.mark.parametrize("additive", [False, True])
def test_masked_out_keys_get_nothing(mode: ModeName, additive: bool) -> None:
    t = Tensors(1)
    mask = torch.tensor([True, False, True, False])
    if additive:
        mask = torch.zeros(4, dtype=torch.float64).masked_fill(~mask, float("-inf"))
    arguments = {"query": t(1, 1, 3, 2), "key": t(1, 1, 4, 2), "value": t(1, 1, 4, 2), "attn_mask": mask.expand(3, 4)}
    done = bind_op(SDPA, arguments, ["value"], mode).back(t.normal(1, 1, 3, 2))
    assert {place[2] for place in touched(done["value"])} == {0, 2}


@every_mode
def test_a_query_that_may_see_no_key_is_a_named_sink(mode: ModeName) -> None:
    t = Tensors(1)
    mask = torch.tensor([[True, True, True], [False, False, False]])
    arguments = {"query": t(1, 1, 2, 4), "key": t(1, 1, 3, 4), "value": t(1, 1, 3, 4), "attn_mask": mask}
    done = bind_op(SDPA, arguments, ["value"], mode).back(one_hot(1, 1, 2, 4, at=(0, 0, 1, 0)))
    assert touched(done["value"]) == set()
    assert done.booked("unreached" if mode[0] == "default" else "stabiliser") == pytest.approx(100.0)


DROPPED = {
    "slice": lambda x: aten.slice.Tensor(x, 1, 0, 3),
    "split": lambda x: aten.split.Tensor(x, 3, 1)[0],
    "chunk": lambda x: aten.chunk.default(x, 2, -1)[0],
    "split_with_sizes": lambda x: aten.split_with_sizes.default(x, [3, 3], 1)[0],
    "unbind": lambda x: aten.stack.default([aten.unbind.int(x, 1)[i] for i in range(3)], 1),
    "select": lambda x: aten.stack.default([aten.select.int(x, 1, i) for i in range(3)], 1),
}


@every_mode
@pytest.mark.parametrize("way", DROPPED)
def test_a_dropped_half_gets_nothing(mode: ModeName, way: str) -> None:
    t = Tensors(1)
    r = t.normal(2, 3)
    done = bind(lambda x: aten.neg.default(DROPPED[way](x)), {"x": t(2, 6)}, ["x"], mode).back(r)
    assert torch.equal(done["x"], torch.cat([r, torch.zeros_like(r)], 1))


@every_mode
def test_both_halves_used_differently(mode: ModeName) -> None:
    """What each output of a split got comes together on the whole."""
    t = Tensors(1)

    def swapped(x: Any) -> Any:
        halves = aten.split.Tensor(x, 3, 1)
        return aten.cat.default([aten.relu.default(halves[1]), halves[0]], 1)

    r = t.normal(2, 6)
    done = bind(swapped, {"x": t(2, 6)}, ["x"], mode).back(r)
    assert torch.equal(done["x"], r.roll(3, 1))


@pytest.mark.parametrize("bias", ["redistribute", "absorb"])
def test_four_equal_contributions_get_25_each(bias: str) -> None:
    """Small contributions are not lost: 4 times 0.1 is worth 100."""
    arguments = {"input": torch.full((1, 4), 0.1).double(), "weight": torch.ones(1, 4).double()}
    arguments["bias"] = torch.zeros(1).double()
    done = bind_op(aten.linear.default, arguments, ["input"], ("default", bias)).back(torch.tensor([[100.0]]).double())
    assert done["input"].tolist() == [pytest.approx([25.0] * 4)]


def test_magnitudes_share_whatever_their_signs() -> None:
    arguments = {
        "input": torch.tensor([[1.0, -1.0, 2.0]]).double(),
        "weight": torch.tensor([[1.0, 1.0, -1.0]]).double(),
    }
    done = bind_op(aten.linear.default, arguments, ["input"]).back(torch.tensor([[100.0]]).double())
    assert done["input"].tolist() == [pytest.approx([25.0, 25.0, 50.0])]


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_a_neuron_without_input_shares_by_its_weights(dtype: torch.dtype) -> None:
    """All inputs zero, bright only by its bias: the units go by |w|, and none is lost."""
    arguments = {"input": torch.zeros(1, 3), "weight": torch.tensor([[1.0, -3.0, 4.0]]), "bias": torch.tensor([2.0])}
    cast = {name: value.to(dtype) for name, value in arguments.items()}
    done = bind_op(aten.linear.default, cast, ["input"]).back(torch.tensor([[80.0]], dtype=dtype))
    assert done["input"].tolist() == [pytest.approx([10.0, 30.0, 40.0])]
    assert done.booked("unreached") == 0.0


def test_a_neuron_without_weights_is_named() -> None:
    """Nothing reaches it, so nothing can be said: its units are booked, not spread."""
    arguments = {"input": torch.ones(1, 3), "weight": torch.tensor([[0.0] * 3, [1.0] * 3]), "bias": torch.ones(2)}
    done = bind_op(aten.linear.default, arguments, ["input"]).back(torch.tensor([[30.0, 60.0]]))
    assert done["input"].tolist() == [pytest.approx([20.0] * 3)]
    assert done.booked("unreached") == 30.0
