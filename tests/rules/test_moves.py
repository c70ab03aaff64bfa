"""Moves: relevance goes back where the value came from, found by the values themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from . import oracle
from .case import Case
from .cases import accumulating, assembling, picks, sampling, winners
from .cases import moves as table
from .harness import MODE_NAMES, MODES, ModeName, assert_conserved, bind_op
from .tensors import Tensors, checked, dim_of, shapes, tensors

aten = torch.ops.aten
CASES = [*table.CASES, *picks.CASES, *winners.CASES, *assembling.CASES, *accumulating.MOVES, *sampling.COPIES]
MOVES = [*table.CASES, *picks.CASES, *winners.CASES, *assembling.CASES, *accumulating.MOVES, *sampling.COPIES]
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def operands(arguments: dict[str, Any]) -> dict[str, Tensor]:
    """The floating operands by name."""
    found = {name: value for name, value in arguments.items() if isinstance(value, Tensor)}
    found |= {f"tensors.{i}": value for i, value in enumerate(arguments.get("tensors", ()))}
    return {name: value for name, value in found.items() if value.is_floating_point()}


def prove(case: Case, arguments: dict[str, Any], t: Tensors, mode: ModeName = MODES[0]) -> None:
    """R_i = the sum of R over the copies of element i; a constant's share is booked under its name."""
    output = case.run(arguments)
    outputs = list(output) if isinstance(output, (tuple, list)) else [output]
    seeds = [t.normal(*o.shape).to(o.dtype) for o in outputs]
    done = case.bind(arguments, mode).back(seeds if isinstance(output, (tuple, list)) else seeds[0])
    left = {f"constant:{name}" for name in operands(arguments)} - {f"constant:{name}" for name in case.active}
    copied = sum(float(r.double().sum()) for r in seeds)
    for name, x in operands(arguments).items():
        back = sum(oracle.origins(o, x).T @ r.flatten().double() for o, r in zip(outputs, seeds, strict=True))
        copied -= float(back.sum())
        if name in case.active:
            torch.testing.assert_close(done[name].double(), back.reshape(x.shape))
        else:
            assert done.booked(f"constant:{name}") == pytest.approx(float(back.sum()))
    numbers = sum(units for account, units in done.accounts.items() if account not in left)
    assert numbers == pytest.approx(copied, abs=1e-6 if t.dtype == torch.float32 else 1e-9)


@every_mode
@pytest.mark.parametrize(
    "case",
    [*table.CASES, *picks.CASES, *winners.CASES, *assembling.CASES, *accumulating.MOVES, *sampling.COPIES],
    ids=str,
)
def test_every_move(mode: ModeName, case: Case) -> None:
    t = Tensors(3)
    prove(case, case.arguments(t), t, mode)


# Each function makes arguments of an op from a maker and hypothesis' data.


def _reshape(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(0, 4, sizes=(0, 3)))
    size = torch.Size(shape).numel()
    return {
        "self": t.distinct(*shape),
        "shape": draw(st.sampled_from([[size], [1, size], [size, 1], list(shape)[::-1]])),
    }


def _transpose(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 4, sizes=(0, 3)))
    return {"self": t.distinct(*shape), "dim0": draw(dim_of(shape)), "dim1": draw(dim_of(shape))}


def _permute(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 4, sizes=(0, 3)))
    dims = draw(st.permutations(range(len(shape))))
    return {"self": t.distinct(*shape), "dims": [d - len(shape) if draw(st.booleans()) else d for d in dims]}


def _expand(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(0, 3, sizes=(1, 3)))
    size = [draw(st.integers(0, 3)) if n == 1 else -1 for n in shape]
    return {"self": t.distinct(*shape), "size": [*draw(shapes(0, 2, sizes=(0, 3))), *size]}


def _slice(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 3, sizes=(0, 6)))
    end = st.none() | st.integers(-8, 8) | st.just(2**63 - 1)
    step = {"start": draw(st.none() | st.integers(-8, 8)), "end": draw(end), "step": draw(st.integers(1, 3))}
    return {"self": t.distinct(*shape), "dim": draw(dim_of(shape)), **step}


def _select(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 3))
    dim = draw(dim_of(shape))
    return {"self": t.distinct(*shape), "dim": dim, "index": draw(dim_of((0,) * shape[dim]))}


def _squeeze(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 4, sizes=(0, 2)))
    dims = {d % len(shape): d for d in draw(st.lists(dim_of(shape)))}
    return {"self": t.distinct(*shape), "dim": list(dims.values())}


def _listed(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 3, sizes=(0, 3)))
    dim = draw(dim_of(shape))
    sizes = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    grown = [[*shape] for _ in sizes]
    for one, size in zip(grown, sizes, strict=True):
        one[dim] = size
    return {"tensors": [t.distinct(*one) for one in grown], "dim": dim}


def _stacked(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(0, 3, sizes=(0, 3)))
    count = draw(st.integers(1, 3))
    return {"tensors": [t.distinct(*shape) for _ in range(count)], "dim": draw(dim_of((*shape, 0)))}


def _split(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 3, sizes=(1, 4)))
    return {"self": t.distinct(*shape), "split_size": draw(st.integers(1, 5)), "dim": draw(dim_of(shape))}


def _chunk(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 3, sizes=(1, 5)))
    return {"self": t.distinct(*shape), "chunks": draw(st.integers(1, 4)), "dim": draw(dim_of(shape))}


def _unbind(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 3, sizes=(1, 3)))
    return {"self": t.distinct(*shape), "dim": draw(dim_of(shape))}


def _gather(t: Tensors, draw: Any) -> dict[str, Any]:
    shape = draw(shapes(1, 3))
    dim = draw(dim_of(shape))
    size = [draw(st.integers(0, n)) for n in shape]
    size[dim] = draw(st.integers(0, 5))
    return {"self": t.distinct(*shape), "dim": dim, "index": t.ids(shape[dim], *size)}


def _where(t: Tensors, draw: Any) -> dict[str, Any]:
    full = draw(shapes(0, 3, sizes=(0, 3)))
    one, two, three = ([1 if draw(st.booleans()) else n for n in full] for _ in range(3))
    return {"condition": t.mask(*one), "self": t.distinct(*two), "other": t.distinct(*three)}


def _max_pool(t: Tensors, draw: Any) -> dict[str, Any]:
    kernel = [draw(st.integers(1, 3)), draw(st.integers(1, 3))]
    window = {"kernel_size": kernel, "stride": draw(st.sampled_from([[], [1], [2, 1]]))}
    shape = (*draw(st.sampled_from([(2, 1), (2,)])), draw(st.integers(5, 6)), draw(st.integers(5, 6)))
    padding = [draw(st.integers(0, k // 2)) for k in kernel]
    rest = {"padding": padding, "dilation": [draw(st.integers(1, 2))], "ceil_mode": draw(st.booleans())}
    return {"self": t.distinct(*shape), **window, **rest}


DRAWN = {
    **{aten.reshape.default: _reshape, aten.transpose.int: _transpose, aten.permute.default: _permute},
    **{aten.expand.default: _expand, aten.slice.Tensor: _slice, aten.select.int: _select},
    **{aten.squeeze.dims: _squeeze, aten.cat.default: _listed, aten.stack.default: _stacked},
    **{aten.split.Tensor: _split, aten.chunk.default: _chunk, aten.unbind.int: _unbind},
    **{aten.gather.default: _gather, aten.where.self: _where, aten.max_pool2d.default: _max_pool},
}


@pytest.mark.parametrize("op", DRAWN, ids=str)
@checked
@given(t=tensors((torch.float64, torch.float32)), data=st.data())
def test_moves_of_any_shape(op: Any, t: Tensors, data: st.DataObject) -> None:
    arguments = DRAWN[op](t, data.draw)
    prove(Case(op, lambda t: arguments, tuple(operands(arguments))), arguments, t)


@pytest.mark.parametrize("constant", ["self", "other"])
@checked
@given(t=tensors(), data=st.data())
def test_a_constant_branch_of_where_is_booked(constant: str, t: Tensors, data: st.DataObject) -> None:
    arguments = _where(t, data.draw)
    active = tuple({"self", "other"} - {constant})
    prove(Case(aten.where.self, lambda t: arguments, active), arguments, t)


@every_mode
def test_equal_values_in_a_pool_lose_nothing(mode: ModeName) -> None:
    """Without a single winner some element of the window takes the units."""
    r = torch.tensor([[[100.0]]], dtype=torch.float64)
    x = torch.ones(1, 2, 2, dtype=torch.float64)
    done = bind_op(aten.max_pool2d.default, {"self": x, "kernel_size": [2]}, ["self"], mode).back(r)
    assert_conserved(done)
    assert float(done["self"].sum()) == 100.0


@pytest.mark.parametrize("op", [aten.view.default, aten._unsafe_view.default], ids=str)
def test_a_view_may_copy(op: Any) -> None:
    """A view that was traced with other strides than it meets still runs, and takes relevance back."""
    t = Tensors(1)
    x = t.distinct(2, 6)
    bound = bind_op(op, {"self": x, "size": [3, 4]}, ["self"])
    turned = x.T.contiguous().T
    again = replace(bound, inputs=dict.fromkeys(bound.inputs, turned))
    assert torch.equal(again.output, x.reshape(3, 4))
    r = t.normal(3, 4)
    assert torch.equal(again.back(r)["self"], r.reshape(2, 6))


def test_ties_go_in_halves_and_equal_extremes_share() -> None:
    x, y, r = (torch.tensor(v, dtype=torch.float64) for v in ([1.0, 5.0, 2.0], [1.0, 3.0, 4.0], [8.0, 2.0, 4.0]))
    for op, mine in ((aten.maximum.default, [4.0, 2.0, 0.0]), (aten.minimum.default, [4.0, 0.0, 4.0])):
        done = bind_op(op, {"self": x, "other": y}, ("self", "other")).back(r)
        assert done["self"].tolist() == mine
        assert (done["self"] + done["other"]).tolist() == r.tolist()
    done = bind_op(aten.clamp.Tensor, {"self": x, "min": y, "max": y + 1}, ("self", "min", "max")).back(r)
    assert done["self"].tolist() == [4.0, 0.0, 0.0]
    assert done["min"].tolist() == [4.0, 0.0, 4.0]
    assert done["max"].tolist() == [0.0, 2.0, 0.0]
    equal = torch.tensor([3.0, 1.0, 3.0], dtype=torch.float64)
    assert bind_op(aten.max.default, {"self": equal}, ("self",)).back(r.sum())["self"].tolist() == [7.0, 0.0, 7.0]
    for op in (aten.amax.default, aten.aminmax.default):
        seed = [torch.tensor(0.0).double(), r.sum()] if op is aten.aminmax.default else r.sum()
        assert bind_op(op, {"self": equal}, ("self",)).back(seed)["self"].tolist() == [7.0, 0.0, 7.0]
