"""What is made of samples along a line: slopes, areas, powers, and quantiles between two of them in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Row, compound, linear

aten = torch.ops.aten
Spacing = float | Tensor


def _cut(x: Tensor, dim: int, start: int, end: int | None = None) -> Tensor:
    part: Tensor = aten.slice.Tensor(x, dim, start, end)
    return part


def _gradient(
    self: Tensor,
    spacing: Spacing | Sequence[Spacing] | None = None,
    dim: int | Sequence[int] | None = None,
    edge_order: int = 1,
) -> list[Tensor]:
    """The slope along each dimension."""
    dims = list(range(self.dim())) if dim is None else [dim] if isinstance(dim, int) else list(dim)
    steps = list(spacing) if isinstance(spacing, (list, tuple)) else [1.0 if spacing is None else spacing] * len(dims)
    return [_slopes(self, d % self.dim(), step, edge_order) for d, step in zip(dims, steps, strict=True)]


def _slopes(x: Tensor, dim: int, step: Any, edge_order: int) -> Tensor:
    """Of the parabola through each point and its neighbours; at the ends of a line, or of the last parabola."""
    if isinstance(step, Tensor):  # coordinates
        gaps = (_cut(step, 0, 1) - _cut(step, 0, 0, -1)).reshape([-1] + [1] * (x.dim() - 1 - dim))
        along = -(x.dim() - dim)
        one, two = _cut(gaps, along, 0, -1), _cut(gaps, along, 1)
        first, second = _cut(gaps, along, 0, 1), _cut(gaps, along, 1, 2)
        last, before = _cut(gaps, along, -1), _cut(gaps, along, -2, -1)
    else:
        one = two = first = second = last = before = step
    left, here, right = _cut(x, dim, 0, -2), _cut(x, dim, 1, -1), _cut(x, dim, 2)
    inner = right * (one / (two * (one + two))) - left * (two / (one * (one + two)))
    if isinstance(step, Tensor):  # even steps leave the point itself out
        inner = inner + here * ((two - one) / (one * two))
    start, end = ((_cut(x, dim, 0, 1), _cut(x, dim, 1, 2)), (_cut(x, dim, -2, -1), _cut(x, dim, -1)))
    if edge_order == 1:
        edges = (start[1] - start[0]) / first, (end[1] - end[0]) / last
    else:
        edges = (
            _edge(start[0], start[1], _cut(x, dim, 2, 3), first, second),
            -_edge(end[1], end[0], _cut(x, dim, -3, -2), last, before),
        )
    return torch.cat([edges[0], inner, edges[1]], dim)


def _edge(a: Tensor, b: Tensor, c: Tensor, near: Any, far: Any) -> Tensor:
    """The slope at `a` of the parabola through a, b, c."""
    both = near + far
    slope: Tensor = b * (both / (near * far)) - a * ((near + both) / (near * both)) - c * (near / (far * both))
    return slope


def _areas(y: Tensor, x: Tensor, dim: int) -> Tensor:
    """Height by width of the strips between two points."""
    d = dim % y.dim()
    if x.dim() == 1 and y.dim() > 1:
        x = x.reshape([-1] + [1] * (y.dim() - 1 - d))
    along = d - y.dim()
    width = _cut(x, along, 1) - _cut(x, along, 0, -1)
    return (_cut(y, d, 1) + _cut(y, d, 0, -1)) * width / 2


def _trapezoid(y: Tensor, x: Tensor, dim: int) -> Tensor:
    return _areas(y, x, dim).sum(dim)


def _cumulative_trapezoid(y: Tensor, x: Tensor, dim: int) -> Tensor:
    return _areas(y, x, dim).cumsum(dim)


def _vander(x: Tensor, N: int | None, increasing: bool = True) -> Tensor:
    """The powers of each element; its power 0 is a constant. A number alone is one element."""
    x = x if x.dim() else x.unsqueeze(0)
    size = x.shape[-1] if N is None else N
    powers = [torch.ones_like(x) if k == 0 else x.pow(k) for k in range(size)]
    return torch.stack(powers if increasing else powers[::-1], -1)


def _quantile(self: Tensor, q: Any, dim: int | None, keepdim: bool, interpolation: str) -> Tensor:
    """Between the two samples in order beside it, which share as they are mixed; NaN counts as no sample."""
    dim = dim if self.dim() else None
    x = self.reshape(-1) if dim is None else self.movedim(dim, -1)
    ordered = x.sort(-1)[0]
    several = isinstance(q, Tensor) and q.dim() == 1
    last = x.isnan().logical_not().sum(-1, keepdim=True).to(x.dtype) - 1
    rank = last * (q.reshape(-1) if isinstance(q, Tensor) else q)
    if interpolation in STEPS:
        rank = STEPS[interpolation](rank)
    below = rank.floor()
    y = ordered.gather(-1, below.long())
    if interpolation not in STEPS:
        part = torch.full_like(rank, 0.5) if interpolation == "midpoint" else rank - below
        y = torch.lerp(y, ordered.gather(-1, rank.ceil().long()), part)
    y = y.movedim(-1, 0)
    if keepdim:
        for _ in range(self.dim() if dim is None else 0):
            y = y.unsqueeze(-1)
        y = y if dim is None else y.unsqueeze(dim % self.dim() + 1)
    return y if several else y.squeeze(0)


STEPS = {"lower": torch.floor, "higher": torch.ceil, "nearest": torch.round}


def _trapz(x: Tensor, w: None, call: Any) -> Tensor:
    return torch.trapezoid(x, dx=call.dx, dim=call.dim)


ROWS: list[Row] = [
    compound("aten::gradient", written=_gradient),
    compound("aten::trapezoid.x", written=_trapezoid),
    compound("aten::trapz.x", written=_trapezoid),
    linear("aten::trapz.dx", x="y", apply=_trapz),
    compound("aten::cumulative_trapezoid.x", written=_cumulative_trapezoid),
    compound("aten::linalg_vander", written=_vander),
    compound("aten::vander", written=_vander),
    compound("aten::quantile", written=_quantile),
    compound("aten::nanquantile", written=_quantile),
]
