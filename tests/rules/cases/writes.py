"""Arguments for the moves that put values into a place."""

from __future__ import annotations

from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors
from .moves import _with

aten = torch.ops.aten


def _put(*shape: int, src: tuple[int, ...], **more: Any) -> Any:
    return lambda t: {"self": t.distinct(*shape), "src": t.distinct(*src), **more}


def _packed(arguments: Any) -> Any:
    """Strides are counted from the start of a tensor in row order."""

    def make(t: Tensors) -> Arguments:
        found = arguments(t)
        return {**found, "self": found["self"].clone(memory_format=torch.contiguous_format)}

    return make


def _each(op: Any, arguments: Any, label: str = "") -> list[Case]:
    return [Case(op, arguments, active, label) for active in (("self", "src"), ("self",), ("src",))]


WINDOWS = {"size": [3, 4], "stride": [2, 1], "storage_offset": 1}
SQUARES = {"size": [2, 2], "stride": [5, 2]}

CASES: list[Case] = [
    Case(aten.copy.default, _put(2, 3, 4, src=(3, 1)), ("src",)),
    Case(aten.copy.default, _put(2, 3, src=(2, 3)), ("self", "src"), "nothing of what is overwritten"),
    Case(aten.fill.Tensor, lambda t: {"self": t.distinct(2, 3), "value": t.distinct()}, ("value",)),
    *_each(aten.select_scatter.default, _put(2, 3, 4, src=(2, 4), dim=-2, index=-1)),
    *_each(aten.slice_scatter.default, _put(2, 7, src=(2, 3), dim=-1, start=-6, end=-1, step=2)),
    *_each(aten.slice_scatter.default, _put(3, 2, src=(3, 2)), "all of it"),
    *_each(aten.diagonal_scatter.default, _put(3, 4, 2, src=(2, 3), offset=1, dim1=0, dim2=1)),
    *_each(aten.as_strided_scatter.default, _packed(_put(2, 5, src=(2, 2), **SQUARES))),
    Case(aten.as_strided.default, _packed(_with(2, 5, **WINDOWS)), ("self",), "overlapping"),
    Case(aten.as_strided.default, _packed(_with(2, 5, **SQUARES)), ("self",)),
]
