"""Arguments for interpolation, and for sampling where a grid or boxes say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from .. import vision_ops
from ..case import Arguments, Case
from ..tensors import Tensors

vision_ops.register()
aten, torchvision = torch.ops.aten, torch.ops.torchvision
Make = Callable[[Tensors], Arguments]


def _grown(*shape: int, draw: str = "__call__", **more: Any) -> Make:
    """To about twice the size, given as sizes."""
    size = [2 * n + 1 for n in shape[2:]]
    return lambda t: {"input": getattr(t, draw)(*shape), "output_size": size, "scale_factors": None, **more}


def _scaled(*shape: int, draw: str = "__call__", **more: Any) -> Make:
    """By factors, some of which shrink."""
    factors = [2.0, 1.5, 0.7][: len(shape) - 2]
    return lambda t: {"input": getattr(t, draw)(*shape), "output_size": None, "scale_factors": factors, **more}


def _plain(*shape: int, draw: str = "__call__", **more: Any) -> Make:
    """The overload without a choice between sizes and factors."""
    size = [2 * n for n in shape[2:]]
    return lambda t: {"self": getattr(t, draw)(*shape), "output_size": size, **more}


def _interpolated(name: str, *shape: int, draw: str = "__call__", **more: Any) -> list[Case]:
    family = getattr(aten, name)
    return [
        Case(family.vec, _grown(*shape, draw=draw, **more), ("input",), "size"),
        Case(family.vec, _scaled(*shape, draw=draw, **more), ("input",), "factors"),
        Case(family.default, _plain(*shape, draw=draw, **more), ("self",)),
    ]


def _corners(name: str, *shape: int) -> list[Case]:
    return [case for align in (True, False) for case in _interpolated(name, *shape, align_corners=align)]


def _grid(*shape: int, interpolation: int, padding: int, align: bool) -> Make:
    dims = len(shape) - 2
    modes = {"interpolation_mode": interpolation, "padding_mode": padding, "align_corners": align}

    def make(t: Tensors) -> Arguments:
        grid = 2.4 * torch.rand(shape[0], *[3] * dims, dims, generator=t.generator, dtype=torch.float64) - 1.2
        return {"input": t(*shape), "grid": grid.to(t.dtype), **modes}

    return make


def _transform(*size: int, align: bool) -> Make:
    return lambda t: {"theta": t(size[0], len(size) - 2, len(size) - 1), "size": list(size), "align_corners": align}


def _boxes(t: Tensors) -> torch.Tensor:
    return torch.tensor([[1, 1.0, 2.0, 7.0, 9.0], [0, 3.0, 1.0, 9.0, 6.0]], dtype=t.dtype)


def _aligned(t: Tensors) -> Arguments:
    bins = {"spatial_scale": 0.5, "pooled_height": 2, "pooled_width": 3, "sampling_ratio": 2, "aligned": True}
    return {"input": t(2, 3, 6, 6), "rois": _boxes(t), **bins}


def _pooled(input: Any, rois: Any) -> Any:
    return torchvision.roi_pool.default(input, rois, 0.5, 5, 2)[0]


def _boxed(t: Tensors) -> Arguments:
    return {"input": t.distinct(2, 2, 6, 6), "rois": _boxes(t)}


def _deformed(t: Tensors) -> Arguments:
    sides = {"stride": (2, 1), "pad": (1, 0), "dilation": (1, 2)}
    window = {f"{name}_{side}": n for name, both in sides.items() for side, n in zip("hw", both, strict=True)}
    tensors = {
        "input": t(2, 3, 5, 6),
        "weight": t(4, 3, 3, 2),
        "offset": t(2, 12, 3, 4),
        "mask": t.positive(2, 6, 3, 4),
    }
    return {**tensors, "bias": t(4), **window, "groups": 1, "offset_groups": 1, "use_mask": True}


COPIES: list[Case] = [
    case
    for name in ("upsample_nearest", "_upsample_nearest_exact")
    for dims, shape in ((1, (2, 3, 4)), (2, (2, 3, 4, 2)), (3, (1, 2, 3, 2, 2)))
    for case in _interpolated(f"{name}{dims}d", *shape, draw="distinct")
]
MAPS: list[Case] = [
    *_corners("upsample_linear1d", 2, 3, 4),
    *_corners("upsample_bilinear2d", 2, 3, 4, 3),
    *_interpolated("upsample_trilinear3d", 1, 2, 2, 3, 2, align_corners=True),
    *_corners("_upsample_bilinear2d_aa", 2, 2, 4, 5),
    *_corners("upsample_bicubic2d", 2, 2, 4, 5),
    *_corners("_upsample_bicubic2d_aa", 2, 2, 4, 5),
    *_interpolated("_upsample_lanczos2d_aa", 1, 2, 4, 5, align_corners=False),
    *(
        Case(op, _grid(*shape, interpolation=how, padding=pad, align=align), ("input",), f"{how}, {pad}, {align}")
        for op, shape, modes in (
            (aten.grid_sampler.default, (2, 2, 4, 5), (0, 1, 2)),
            (aten.grid_sampler_2d.default, (2, 2, 4, 5), (0,)),
            (aten.grid_sampler_3d.default, (1, 2, 3, 4, 2), (0, 1)),
        )
        for how in modes
        for pad, align in ((0, False), (1, True), (2, False))
    ),
    Case(aten.affine_grid_generator.default, _transform(2, 3, 4, 5, align=True), ("theta",)),
    Case(aten.affine_grid_generator.default, _transform(2, 1, 2, 3, 2, align=False), ("theta",), "volume"),
    Case(torchvision.roi_align.default, _aligned, ("input",)),
    Case(torchvision.deform_conv2d.default, _deformed, ("input",)),
]
POOLED = Case(
    torchvision.roi_pool.default,
    lambda t: {"input": t.distinct(2, 2, 6, 6), "rois": _boxes(t)},
    ("input",),
    "",
    _pooled,
)
CASES: list[Case] = [*COPIES, *MAPS, POOLED]
