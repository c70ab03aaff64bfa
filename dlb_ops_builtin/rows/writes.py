"""Moves that put values into a place of a tensor, and the views that show one; how writes in place read when traced."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, constant, move, sum_to
from dlb_ops_builtin.rows.places import by_places

aten = torch.ops.aten


def _put(show: Callable[[Tensor, Call], Tensor]) -> Any:
    """What `show` shows of the result came from src, the rest from self."""

    def back(r: Tensor, call: Call) -> tuple[Tensor, Tensor]:
        shape = call.shape("self")
        places = show(torch.arange(shape.numel(), device=r.device).reshape(shape), call).reshape(-1)
        kept = r.reshape(-1).index_fill(0, places, 0).reshape(shape)
        return kept, r.reshape(-1).index_select(0, places).reshape(call.shape("src"))

    return back


def _strided(x: Tensor, call: Call) -> Tensor:
    return x.as_strided(call.size, call.stride, call.storage_offset)


def _packed(x: Tensor) -> Tensor:
    """A value has no memory of its own in a graph: strides are counted as if it lay in row order from 0."""
    return x.clone(memory_format=torch.contiguous_format)


def _as_strided(self: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    return _packed(self).as_strided(size, stride, storage_offset)


def _as_strided_scatter(self: Tensor, src: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    return torch.as_strided_scatter(_packed(self), src, size, stride, storage_offset)


def _reads_around(bound: Mapping[str, Any]) -> str | None:
    """Strides go through the memory of an operand, which holds more than its values where it is a view of a part."""
    traced = bound["self"].meta["val"]
    if traced.is_contiguous() and traced.storage_offset() == 0:
        return None
    return "it goes through the memory of an operand that does not lie there in row order from 0: index or reshape it"


BOTH = ("self", "src")

ROWS: list[Row] = [
    # of what is overwritten only the shape counts
    move("aten::copy", x="src", back=lambda r, call: sum_to(r, call.shape("src"))),
    move("aten::fill.Tensor", x="value", back=lambda r, call: r.sum()),
    constant("aten::fill.Scalar"),
    constant("aten::zero"),
    move("aten::select_scatter", x=BOTH, back=_put(lambda x, call: x.select(call.dim, call.index))),
    move(
        "aten::slice_scatter",
        x=BOTH,
        back=_put(lambda x, call: aten.slice.Tensor(x, call.dim, call.start, call.end, call.step)),
    ),
    move("aten::diagonal_scatter", x=BOTH, back=_put(lambda x, call: x.diagonal(call.offset, call.dim1, call.dim2))),
    move("aten::as_strided", x="self", back=by_places(_strided), forward=_as_strided, refuses=_reads_around),
    move("aten::as_strided_scatter", x=BOTH, back=_put(_strided), forward=_as_strided_scatter, refuses=_reads_around),
]
