"""Moves: every output element is a copy of one input element, or of a constant. `back` says where from."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, Shares, move, sum_to

aten = torch.ops.aten


def _same(r: Tensor, call: Call) -> Tensor:
    return r


def _reshaped(r: Tensor, call: Call) -> Tensor:
    return r.reshape(call.shape("self"))


def _slice(r: Tensor, call: Call) -> Tensor:
    start = 0 if call.start is None else call.start
    end = torch.iinfo(torch.int64).max if call.end is None else call.end
    back: Tensor = aten.slice_backward(r, list(call.shape("self")), call.dim, start, end, call.step)
    return back


def _narrow(r: Tensor, call: Call) -> Tensor:
    shape: torch.Size = call.shape("self")
    start = call.start if call.start >= 0 else call.start + shape[call.dim]
    back: Tensor = aten.slice_backward(r, list(shape), call.dim, start, start + call.length, 1)
    return back


def _select(r: Tensor, call: Call) -> Tensor:
    back: Tensor = aten.select_backward(r, list(call.shape("self")), call.dim, call.index)
    return back


def _permute(r: Tensor, call: Call) -> Tensor:
    dims = [d % len(call.dims) for d in call.dims]
    return r.permute([dims.index(d) for d in range(len(dims))])


def _cat(r: Tensor, call: Call) -> tuple[Tensor, ...]:
    shapes = _list_shapes(call)
    old_style = [len(s) == 1 and s[0] == 0 and r.dim() > 1 for s in shapes]  # torch lets [0] stand beside anything
    sizes = [0 if old else s[call.dim] for s, old in zip(shapes, old_style, strict=True)]
    return tuple(p.reshape(s) for p, s in zip(r.split(sizes, call.dim), shapes, strict=True))


def _list_shapes(call: Call) -> list[torch.Size]:
    return [call.shape(f"tensors.{i}") for i in range(len(call.tensors))]


def _stack(r: Tensor, call: Call) -> tuple[Tensor, ...]:
    return tuple(r.unbind(call.dim))


def _item(r: Tensor, call: Call) -> Shares:
    """One output of several: the others get nothing from here."""
    shapes = call.shape("a")
    parts: list[Any] = [None] * len(shapes)
    parts[call.b] = r
    return Shares({"a": parts})


def _where(r: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    zero = torch.zeros((), dtype=r.dtype, device=r.device)
    mine, other = torch.where(call.condition, r, zero), torch.where(call.condition, zero, r)
    return sum_to(mine, call.shape("self")), sum_to(other, call.shape("other"))


def _masked_fill(r: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    kept = r.masked_fill(call.mask, 0)
    filled = (r * call.mask).sum_to_size(call.shape("value"))
    return sum_to(kept, call.shape("self")), filled


def _repeat(r: Tensor, call: Call) -> Tensor:
    """The copies lie beside each other once every dimension is cut into (how often, size)."""
    shape: torch.Size = call.shape("self")
    grown = (*[1] * (len(call.repeats) - len(shape)), *shape)
    cut: Tensor = r.reshape([n for pair in zip(call.repeats, grown, strict=True) for n in pair])
    return cut.sum(list(range(0, cut.dim(), 2))).reshape(shape) if cut.dim() else cut


def _repeat_interleave(r: Tensor, call: Call) -> Tensor:
    shape: torch.Size = call.shape("self")
    if call.dim is None:
        return r.reshape(*shape, call.repeats).sum(-1)
    dim = call.dim % len(shape)
    copies: Tensor = r.unflatten(dim, (shape[dim], call.repeats))
    return copies.sum(dim + 1)


def _drops(bound: Mapping[str, Any]) -> str | None:
    """Training mode is refused before tracing; this is `F.dropout(x)` in a model that evaluates."""
    if bound["train"] is False or bound["p"] == 0:
        return None
    return "it drops values at random although the model is in eval mode: say F.dropout(x, training=self.training)"


SAME = ("clone", "alias", "detach", "_to_copy", "lift_fresh_copy", "contiguous", "to", "type_as")

ROWS: list[Row] = [
    *(move(f"aten::{op}", x="self", back=_same) for op in SAME),
    *(move(f"aten::{op}", back=_same, refuses=_drops) for op in ("dropout", "feature_dropout")),
    move("aten::native_dropout", back=lambda r, call: r[0], refuses=_drops),
    # fake strides differ from real ones after attention: a view of the trace must be allowed to copy
    move("aten::view.default", back=_reshaped, forward=lambda self, size: self.reshape(size)),
    move("aten::_unsafe_view", back=_reshaped, forward=lambda self, size: self.reshape(size)),
    move("aten::reshape", back=_reshaped),
    move("aten::flatten", back=_reshaped),
    move("aten::unflatten", back=_reshaped),
    move("aten::squeeze", back=_reshaped),
    move("aten::unsqueeze", back=_reshaped),
    move("aten::transpose.int", back=lambda r, call: r.transpose(call.dim0, call.dim1)),
    move("aten::t", back=lambda r, call: r.t()),
    move("aten::permute", back=_permute),
    move("aten::expand", back=lambda r, call: sum_to(r, call.shape("self"))),
    move("aten::expand_as", x="self", back=lambda r, call: sum_to(r, call.shape("self"))),
    move("aten::broadcast_to", back=lambda r, call: sum_to(r, call.shape("self"))),
    move("aten::view_as", x="self", back=_reshaped, forward=lambda self, other: self.reshape(other.shape)),
    move("aten::reshape_as", x="self", back=_reshaped),
    move("aten::swapaxes", back=lambda r, call: r.transpose(call.axis0, call.axis1)),
    move("aten::swapdims", back=lambda r, call: r.transpose(call.dim0, call.dim1)),
    move("aten::movedim", back=lambda r, call: r.movedim(call.destination, call.source)),
    move("aten::numpy_T", back=lambda r, call: r.permute(list(range(r.dim()))[::-1])),
    move("aten::repeat", back=_repeat),
    move("aten::repeat_interleave.self_int", back=_repeat_interleave),
    move("aten::roll", back=lambda r, call: r.roll([-n for n in call.shifts], call.dims) if r.dim() else r),
    move("aten::flip", back=lambda r, call: r.flip(call.dims) if r.dim() else r),
    move("aten::pixel_shuffle", back=lambda r, call: aten.pixel_unshuffle(r, call.upscale_factor)),
    move("aten::pixel_unshuffle", back=lambda r, call: aten.pixel_shuffle(r, call.downscale_factor)),
    move("aten::slice.Tensor", back=_slice),
    move("aten::narrow.default", back=_narrow),
    move("aten::select.int", back=_select),
    *(move(f"aten::{op}", x="tensors", back=_cat) for op in ("cat", "concat")),
    move("aten::stack", x="tensors", back=_stack),
    move("aten::split", back=lambda r, call: torch.cat(r, call.dim)),
    move("aten::split_with_sizes", back=lambda r, call: torch.cat(r, call.dim)),
    move("aten::chunk", back=lambda r, call: torch.cat(r, call.dim)),
    move("aten::unbind", back=lambda r, call: torch.stack(r, call.dim)),
    move("operator.getitem", x="a", back=_item, forward=operator.getitem),
    *(
        move(f"aten::where.{overload}", x=("self", "other"), back=_where, reads=("condition",))
        for overload in ("self", "ScalarOther", "ScalarSelf")
    ),
    *(
        move(f"aten::masked_fill.{overload}", x=("self", "value"), back=_masked_fill, reads=("mask",))
        for overload in ("Scalar", "Tensor")
    ),
]
