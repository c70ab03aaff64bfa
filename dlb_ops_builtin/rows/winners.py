"""Moves to the winner: of two values, of a dimension, of a window. Equal ones share, or the op says which it took."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, Shares, compound, move, sum_to
from dlb_ops_builtin.rows.places import home

aten = torch.ops.aten


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


def _shared_extremes(r: Any, call: Call) -> Tensor:
    """amax, amin, aminmax: the winners of the dimensions share; several outputs are told apart by the call."""
    x, dims = call.self, call.dim
    if not x.dim():  # it is its own extremes
        alone: Tensor = r[0] + r[1] if isinstance(r, tuple) else r
        return alone
    dims = list(range(x.dim())) if dims is None or dims == [] else [dims] if isinstance(dims, int) else list(dims)
    values = call.output if isinstance(call.output, tuple) else (call.output,)
    back = torch.zeros_like(x)
    for part, best in zip(r if isinstance(r, tuple) else (r,), values, strict=True):
        grown = x.dim() * (1,) if not best.dim() else ()
        for dim in () if call.keepdim or grown else sorted(d % x.dim() for d in dims):
            part, best = part.unsqueeze(dim), best.unsqueeze(dim)
        won = (x == (best.reshape(grown) if grown else best)).to(x.dtype)
        back = back + (part.reshape(grown) if grown else part) * won / won.sum(dims, keepdim=True)
    return back


def _so_far(find: Callable[[Call], Any]) -> Any:
    """cummax, cummin: the winner up to here."""

    def back(r: Any, call: Call) -> Tensor:
        shape = call.shape("self")
        places = torch.arange(shape.numel(), device=r[0].device).reshape(shape)
        return home(r[0], places.gather(call.dim, find(call)[1]) if shape else places, shape)

    return back


def _window(call: Call) -> tuple[Any, ...]:
    return call.kernel_size, call.stride, call.padding, call.dilation, call.ceil_mode


def _max_pool2d(self: Tensor, kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: Any) -> Tensor:
    """What the op does anyway, with its winners kept: finding them again would cost a second pass."""
    best: Tensor = aten.max_pool2d_with_indices(self, kernel_size, stride, padding, dilation, ceil_mode)[0]
    return best


def _to_winners(r: Any, call: Call) -> Tensor:
    values, winners = r[0], call.output[1]
    like = values.new_zeros(()).expand(call.shape("self"))
    back: Tensor = aten.max_pool2d_with_indices_backward(values, like, *_window(call), winners)
    return back


def _sorted_rows(r: Tensor, call: Call) -> Tensor:
    shape = call.shape("self")
    places = torch.arange(shape.numel(), device=r.device).reshape(shape)
    return home(r, places.gather(0, call.self.argsort(dim=0, stable=True)), shape)


def _fractional(dims: int) -> Row:
    pool = getattr(aten, f"fractional_max_pool{dims}d").default
    return move(
        f"aten::fractional_max_pool{dims}d",
        x="self",
        back=_pooled(dims, lambda call: pool(call.self, call.kernel_size, call.output_size, call.random_samples)),
        reads=("self", "random_samples"),
    )


def _one(op: str, dims: int, find: Callable[[Call], Any]) -> Row:
    return move(op, back=_pooled(dims, find), reads=("self",))


BOTH = ("self", "other")

ROWS: list[Row] = [
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
    compound("aten::max_pool2d", written=_max_pool2d),
    _one("aten::max_pool1d", 1, lambda call: aten.max_pool1d_with_indices(call.self, *_window(call))),
    _one("aten::max_pool3d", 3, lambda call: aten.max_pool3d_with_indices(call.self, *_window(call))),
    move("aten::max_pool2d_with_indices", back=_to_winners, reads=("output",)),
    _one("aten::max_pool3d_with_indices", 3, lambda call: aten.max_pool3d_with_indices(call.self, *_window(call))),
    _one("aten::adaptive_max_pool1d", 1, lambda call: aten.adaptive_max_pool1d(call.self, call.output_size)),
    _one("aten::adaptive_max_pool2d", 2, lambda call: aten.adaptive_max_pool2d(call.self, call.output_size)),
    _one("aten::adaptive_max_pool3d", 3, lambda call: aten.adaptive_max_pool3d(call.self, call.output_size)),
    *(
        move(f"aten::{op}", x="self", back=_shared_extremes, reads=("self", "output"))
        for op in ("amax", "amin", "aminmax")
    ),
    move("aten::fmax", x=BOTH, back=_greater, reads=BOTH),
    move("aten::fmin", x=BOTH, back=_lesser, reads=BOTH),
    move("aten::clip.Tensor", x=("self", "min", "max"), back=_clamp, reads=("self", "min", "max")),
    move("aten::median.dim", back=_winners(lambda call: call.self.median(call.dim, keepdim=True)), reads=("self",)),
    move(
        "aten::nanmedian.dim", back=_winners(lambda call: call.self.nanmedian(call.dim, keepdim=True)), reads=("self",)
    ),
    move("aten::mode", back=_winners(lambda call: call.self.mode(call.dim, keepdim=True)), reads=("self",)),
    move(
        "aten::kthvalue",
        back=_winners(lambda call: call.self.kthvalue(call.k, call.dim, keepdim=True)),
        reads=("self",),
    ),
    move("aten::cummax", back=_so_far(lambda call: call.self.cummax(call.dim)), reads=("self",)),
    move("aten::cummin", back=_so_far(lambda call: call.self.cummin(call.dim)), reads=("self",)),
    move("aten::median.default", back=lambda r, call: _extreme(r, call, call.self.median()), reads=("self",)),
    move("aten::nanmedian.default", back=lambda r, call: _extreme(r, call, call.self.nanmedian()), reads=("self",)),
    move("aten::msort", back=lambda r, call: _sorted_rows(r, call), reads=("self",)),
    _one("aten::max_pool1d_with_indices", 1, lambda call: aten.max_pool1d_with_indices(call.self, *_window(call))),
    *(_fractional(dims) for dims in (2, 3)),
]
