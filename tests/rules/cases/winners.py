"""Arguments for the winners: of two values, of a dimension, of a window."""

from __future__ import annotations

from typing import Any

import torch

from ..case import Case
from .moves import POOL
from .picks import BOUNDS, CUBE, PAIR, _each, _first, _interleaved, _with

aten = torch.ops.aten


def _samples(dims: int) -> Any:
    shape = (2, 3, *[5, 6, 4][:dims])
    samples = torch.tensor([0.3, 0.7, 0.2])[:dims].expand(2, 3, dims)
    return lambda t: {"self": t.distinct(*shape), "samples": samples.to(t.dtype)}


def _fractional(dims: int) -> Case:
    op = getattr(aten, f"fractional_max_pool{dims}d").default
    window = [2] * dims
    return Case(op, _samples(dims), ("self",), program=lambda self, samples: op(self, window, window, samples)[0])


CASES: list[Case] = [
    *(
        case
        for op in (aten.maximum.default, aten.minimum.default, aten.max.other, aten.min.other)
        for case in _each(op, PAIR, "self", "other")
    ),
    *_each(aten.clamp.Tensor, BOUNDS, "self", "min", "max"),
    Case(aten.clamp.Tensor, _interleaved((3, 4), (4,), names=("self", "max")), ("self", "max"), "above"),
    *_each(aten.clamp_min.Tensor, _interleaved((3, 4), (4,), names=("self", "min")), "self", "min"),
    *_each(aten.clamp_max.Tensor, _interleaved((3, 4), (4,), names=("self", "max")), "self", "max"),
    _first(aten.max.dim, 3, 4, dim=-1),
    _first(aten.min.dim, 3, 4, dim=0, keepdim=True),
    _first(aten.topk.default, 3, 5, k=2, dim=0),
    _first(aten.topk.default, 3, 5, k=2, dim=-1, largest=False),
    _first(aten.sort.default, 3, 4, dim=0, descending=True),
    _first(aten.sort.stable, 3, 4, stable=True),
    Case(aten.max.default, _with(2, 3), ("self",)),
    Case(aten.min.default, _with(2, 3), ("self",)),
    Case(aten.max_pool2d.default, _with(2, 3, 6, 5, **POOL), ("self",)),
    Case(aten.max_pool2d.default, _with(3, 4, 4, kernel_size=[2]), ("self",), "no batch"),
    Case(aten.max_pool1d.default, _with(2, 3, 7, kernel_size=[3], stride=[2], padding=[1]), ("self",)),
    Case(aten.max_pool1d.default, _with(3, 7, kernel_size=[2]), ("self",), "no batch"),
    Case(aten.max_pool3d.default, _with(1, 2, 4, 5, 4, **CUBE), ("self",)),
    _first(aten.max_pool2d_with_indices.default, 2, 3, 6, 5, **POOL),
    _first(aten.max_pool3d_with_indices.default, 1, 2, 4, 5, 4, **CUBE),
    _first(aten.adaptive_max_pool1d.default, 2, 3, 7, output_size=[3]),
    _first(aten.adaptive_max_pool2d.default, 2, 3, 5, 7, output_size=[2, 3]),
    _first(aten.adaptive_max_pool3d.default, 1, 2, 4, 5, 3, output_size=[2, 2, 2]),
    *_each(aten.fmax.default, PAIR, "self", "other"),
    *_each(aten.fmin.default, PAIR, "self", "other"),
    *_each(aten.clip.Tensor, BOUNDS, "self", "min", "max"),
    *_each(aten.clip.Tensor, _interleaved((3, 4), (4,), names=("self", "max")), "self", "max"),
    Case(aten.amax.default, _with(2, 3, 4, dim=[0, -1]), ("self",)),
    Case(aten.amax.default, _with(2, 3, dim=[]), ("self",), "all"),
    Case(aten.amin.default, _with(2, 3, 4, dim=[1], keepdim=True), ("self",)),
    Case(aten.amin.default, _with(), ("self",), "no dimension"),
    Case(aten.aminmax.default, _with(2, 3, 4, dim=1), ("self",)),
    Case(aten.aminmax.default, _with(2, 3), ("self",), "all"),
    _first(aten.median.dim, 3, 5, dim=0),
    _first(aten.nanmedian.dim, 3, 4, dim=-1, keepdim=True),
    _first(aten.mode.default, 3, 4, dim=0),
    _first(aten.kthvalue.default, 3, 4, k=3, dim=0, keepdim=True),
    _first(aten.cummax.default, 3, 5, dim=-1),
    _first(aten.cummin.default, 5, 3, dim=0),
    Case(aten.median.default, _with(3, 5), ("self",)),
    Case(aten.nanmedian.default, _with(3, 5), ("self",)),
    Case(aten.msort.default, _with(4, 3), ("self",)),
    _first(aten.max_pool1d_with_indices.default, 2, 3, 7, kernel_size=[3], stride=[2], padding=[1]),
    _fractional(2),
    _fractional(3),
]
