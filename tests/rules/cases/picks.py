"""Arguments for the moves that pick: indices, winners, fills."""

from __future__ import annotations

from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors
from .moves import _with

aten = torch.ops.aten


def _picked(*shape: int, high: int, ids: tuple[int, ...], name: str = "index", **more: Any) -> Any:
    return lambda t: {"self": t.distinct(*shape), **more, name: t.ids(high, *ids)}


def _indexed(t: Tensors) -> Arguments:
    return {"self": t.distinct(3, 4, 2), "indices": [t.ids(3, 5, 1), t.ids(4, 2)]}


def _masked(t: Tensors) -> Arguments:
    return {"self": t.distinct(3, 4), "indices": [t.mask(3, 4)]}


def _one_index(t: Tensors) -> Arguments:
    return {"self": t.distinct(2, 3, 4), "index": t.ids(3, 5)}


def _interleaved(*shapes: tuple[int, ...], names: tuple[str, ...]) -> Any:
    """Distinct values of which none wins everywhere."""

    def make(t: Tensors) -> Arguments:
        sizes = [torch.Size(s).numel() for s in shapes]
        mixed = torch.randperm(sum(sizes), generator=t.generator).to(t.dtype) + 1
        return {n: part.reshape(s) for n, s, part in zip(names, shapes, mixed.split(sizes), strict=True)}

    return make


def _each(op: Any, arguments: Any, *names: str) -> list[Case]:
    return [Case(op, arguments, active) for active in (names, *((name,) for name in names))]


def _first(op: Any, *shape: int, **more: Any) -> Case:
    """The values of an op that gives values and indices."""
    return Case(op, _with(*shape), ("self",), ", ".join(map(str, more.values())), lambda self: op(self, **more)[0])


PAIR = _interleaved((4, 1, 3), (2, 1), names=("self", "other"))
BOUNDS = _interleaved((3, 4), (4,), (3, 1), names=("self", "min", "max"))
CUBE = {"kernel_size": [2, 3, 2], "stride": [1, 2, 2], "padding": [1, 1, 0], "ceil_mode": True}
COLUMNS = {"kernel_size": [2, 3], "dilation": [1, 1], "padding": [1, 0], "stride": [2, 1]}

CASES: list[Case] = [
    Case(aten.index_select.default, _picked(2, 3, 4, high=3, ids=(5,), dim=-2), ("self",)),
    Case(aten.index.Tensor, _indexed, ("self",)),
    Case(aten.index.Tensor, _masked, ("self",), "mask"),
    Case(
        aten.index.Tensor,
        _one_index,
        ("self",),
        "later dimension",
        lambda self, index: aten.index.Tensor(self, [None, index]),
    ),
    Case(aten.take_along_dim.default, _picked(3, 1, 4, high=4, ids=(1, 2, 6), name="indices", dim=-1), ("self",)),
    Case(aten.take_along_dim.default, _picked(12, high=12, ids=(5,), name="indices"), ("self",), "flat"),
    Case(aten.unfold.default, _with(2, 7, dimension=-1, size=3, step=2), ("self",)),
    Case(aten.diagonal.default, _with(3, 2, 4, offset=1, dim1=0, dim2=-1), ("self",)),
    Case(aten.im2col.default, _with(2, 3, 4, 5, **COLUMNS), ("self",)),
    Case(aten.pad.default, _with(2, 3, 4, pad=[1, 2, -1, 0]), ("self",)),
    Case(aten.pad.default, _with(2, 3, pad=[1, 0], value=-5.0), ("self",), "value"),
    *(
        Case(aten.pad.default, _with(2, 3, 4, pad=[1, 2], mode=mode), ("self",), mode)
        for mode in ("reflect", "replicate", "circular")
    ),
    Case(aten.constant_pad_nd.default, _with(2, 3, 4, pad=[-1, 2, 0, 1], value=-5.0), ("self",)),
    Case(aten.tril.default, _with(2, 3, 4, diagonal=-1), ("self",)),
    Case(aten.triu.default, _with(4, 3, diagonal=1), ("self",)),
    Case(aten.scatter.value, _picked(3, 4, high=4, ids=(3, 2), dim=-1, value=-5.0), ("self",)),
]
