"""Moves that pick: indices, winners, fills."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Row, Shares, move, sum_to
from dlb_ops_builtin.rows.places import by_places, constant_of, home

aten = torch.ops.aten


def _index_select(r: Tensor, call: Call) -> Tensor:
    zeros = torch.zeros(call.shape("self"), dtype=r.dtype, device=r.device)
    return zeros.index_add(call.dim, call.index, r)


def _filled(r: Tensor, call: Call, pads: Sequence[int]) -> Shares:
    """The window goes back; what lies on the padding is the constant's."""
    area = F.pad(torch.zeros(call.shape("self"), dtype=r.dtype, device=r.device), pads, value=1.0)
    return Shares({"self": F.pad(r, [-p for p in pads])}, {constant_of(call): (r * area).sum()})


_mirrored = by_places(lambda x, call: aten.pad(x, call.pad, call.mode), counts=False)


def _pad(r: Tensor, call: Call) -> Any:
    return _filled(r, call, call.pad) if call.mode == "constant" else _mirrored(r, call)


def _triangle(keep: Any, drop: Any, step: int) -> Any:
    """One triangle is kept, the zeros of the other one are a constant."""

    def back(r: Tensor, call: Call) -> Shares:
        return Shares({"self": keep(r, call.diagonal)}, {constant_of(call): drop(r, call.diagonal + step).sum()})

    return back


def _scatter_value(r: Tensor, call: Call) -> Shares:
    area = torch.zeros(r.shape, dtype=r.dtype, device=r.device).scatter(call.dim, call.index, 1.0)
    return Shares({"self": r * (1 - area)}, {constant_of(call): (r * area).sum()})


def _im2col(r: Tensor, call: Call) -> Shares:
    window = (call.kernel_size, call.dilation, call.padding, call.stride)
    shape = call.shape("self")
    inside = aten.im2col(torch.ones(shape, dtype=r.dtype, device=r.device), *window)
    return Shares({"self": aten.col2im(r, shape[-2:], *window)}, {constant_of(call): (r * (1 - inside)).sum()})


def _wins(a: Tensor, b: Tensor) -> Tensor:
    """1 where a is greater, 0 where b is, 0.5 where they tie."""
    return torch.where(a == b, 0.5, torch.where(a > b, 1.0, 0.0))


def _greater(r: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    return _split(r, _wins(call.self, call.other), call)


def _lesser(r: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    return _split(r, _wins(call.other, call.self), call)


def _split(r: Tensor, mine: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    mine = mine.to(r.dtype)
    return sum_to(r * mine, call.shape("self")), sum_to(r * (1 - mine), call.shape("other"))


def _clamp(r: Tensor, call: Call) -> Shares:
    """The lower bound against x, then the upper bound against the winner of the two."""
    x, shares = call.self, {}
    low, high = (getattr(call, n) if call.takes(n) else None for n in ("min", "max"))
    raised = x if low is None else torch.maximum(x, low)
    if high is not None:
        over = _wins(raised, high).to(r.dtype)
        shares["max"] = sum_to(r * over, call.shape("max"))
        r = r * (1 - over)
    if low is not None:
        under = _wins(low, x).to(r.dtype)
        shares["min"] = sum_to(r * under, call.shape("min"))
        r = r * (1 - under)
    return Shares({"self": sum_to(r, call.shape("self")), **shares})


def _winners(find: Callable[[Call], Any]) -> Any:
    """Values and indices along `dim`: the values' relevance goes to where they were; indices carry none."""

    def back(r: Any, call: Call) -> Tensor:
        winners: Tensor = find(call)[1]
        values: Tensor = r[0]
        if values.dim() < winners.dim():  # keepdim=False
            values = values.unsqueeze(call.dim)
        shape = call.shape("self")
        places = torch.arange(shape.numel(), device=values.device).reshape(shape).gather(call.dim, winners)
        return home(values, places, shape)

    return back


def _extreme(r: Tensor, call: Call, value: Tensor) -> Tensor:
    """The one winner of a whole tensor; equal ones share."""
    won = (call.self == value).to(r.dtype)
    shared: Tensor = r * won / won.sum()
    return shared


def _pooled(dims: int, find: Callable[[Call], Any]) -> Any:
    """Winners of windows, numbered over the last `dims` dimensions; they are found again, not kept."""

    def back(r: Any, call: Call) -> Tensor:
        r = r[0] if isinstance(r, (tuple, list)) else r
        shape, winners = call.shape("self"), find(call)[1]
        inner = torch.Size(shape[-dims:]).numel()
        planes = torch.Size(shape[:-dims])
        lanes = torch.arange(planes.numel(), device=winners.device).reshape(*planes, 1) * inner
        return home(r, winners.flatten(-dims) + lanes, shape)

    return back


def _window(call: Call) -> tuple[Any, ...]:
    return call.kernel_size, call.stride, call.padding, call.dilation, call.ceil_mode


def _one(op: str, dims: int, find: Callable[[Call], Any]) -> Row:
    return move(op, back=_pooled(dims, find), reads=("self",))


def _nearest(dims: int) -> Row:
    """Every output is a copy of the input element nearest to it."""
    up = getattr(aten, f"upsample_nearest{dims}d").vec
    back = by_places(lambda x, call: up(x, call.output_size, call.scale_factors), "input", counts=False)
    return move(f"aten::upsample_nearest{dims}d.vec", x="input", back=back)


BOTH = ("self", "other")

ROWS: list[Row] = [
    move("aten::index_select", back=_index_select, reads=("index",)),
    move(
        "aten::index.Tensor",
        x="self",
        back=by_places(lambda x, call: aten.index.Tensor(x, call.indices)),
        reads=("indices",),
    ),
    move(
        "aten::take_along_dim",
        x="self",
        back=by_places(lambda x, call: torch.take_along_dim(x, call.indices, call.dim)),
        reads=("indices",),
    ),
    move("aten::unfold", back=by_places(lambda x, call: x.unfold(call.dimension, call.size, call.step))),
    move("aten::diagonal", back=by_places(lambda x, call: x.diagonal(call.offset, call.dim1, call.dim2))),
    move("aten::im2col", back=_im2col),
    move("aten::pad", x="self", back=_pad),
    move("aten::constant_pad_nd", x="self", back=lambda r, call: _filled(r, call, call.pad)),
    move("aten::tril", back=_triangle(torch.tril, torch.triu, 1)),
    move("aten::triu", back=_triangle(torch.triu, torch.tril, -1)),
    move("aten::scatter.value", x="self", back=_scatter_value, reads=("index",)),
    *(move(f"aten::{op}", x=BOTH, back=_greater, reads=BOTH) for op in ("maximum", "max.other")),
    *(move(f"aten::{op}", x=BOTH, back=_lesser, reads=BOTH) for op in ("minimum", "min.other")),
    move("aten::clamp.Tensor", x=("self", "min", "max"), back=_clamp, reads=("self", "min", "max")),
    move("aten::clamp_min.Tensor", x=("self", "min"), back=_clamp, reads=("self", "min")),
    move("aten::clamp_max.Tensor", x=("self", "max"), back=_clamp, reads=("self", "max")),
    move("aten::max.dim", back=_winners(lambda call: call.self.max(call.dim, keepdim=True)), reads=("self",)),
    move("aten::min.dim", back=_winners(lambda call: call.self.min(call.dim, keepdim=True)), reads=("self",)),
    move(
        "aten::topk",
        back=_winners(lambda call: call.self.topk(call.k, call.dim, call.largest, call.sorted)),
        reads=("self",),
    ),
    move("aten::sort", back=_winners(lambda call: call.self.sort(call.dim, call.descending)), reads=("self",)),
    move(
        "aten::sort.stable",
        back=_winners(lambda call: call.self.sort(dim=call.dim, descending=call.descending, stable=True)),
        reads=("self",),
    ),
    move("aten::max.default", back=lambda r, call: _extreme(r, call, call.self.max()), reads=("self",)),
    move("aten::min.default", back=lambda r, call: _extreme(r, call, call.self.min()), reads=("self",)),
    move("aten::gather", x="self", back=by_places(lambda x, call: x.gather(call.dim, call.index)), reads=("index",)),
    _one("aten::max_pool2d", 2, lambda call: aten.max_pool2d_with_indices(call.self, *_window(call))),
    _one("aten::max_pool1d", 1, lambda call: aten.max_pool1d_with_indices(call.self, *_window(call))),
    _one("aten::max_pool3d", 3, lambda call: aten.max_pool3d_with_indices(call.self, *_window(call))),
    _one("aten::max_pool2d_with_indices", 2, lambda call: aten.max_pool2d_with_indices(call.self, *_window(call))),
    _one("aten::max_pool3d_with_indices", 3, lambda call: aten.max_pool3d_with_indices(call.self, *_window(call))),
    _one("aten::adaptive_max_pool1d", 1, lambda call: aten.adaptive_max_pool1d(call.self, call.output_size)),
    _one("aten::adaptive_max_pool2d", 2, lambda call: aten.adaptive_max_pool2d(call.self, call.output_size)),
    _one("aten::adaptive_max_pool3d", 3, lambda call: aten.adaptive_max_pool3d(call.self, call.output_size)),
    *(_nearest(dims) for dims in (1, 2, 3)),
]
