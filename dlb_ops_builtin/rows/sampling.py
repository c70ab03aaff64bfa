"""Sampling where a grid or boxes say: linear in the image; grid, boxes and offsets receive nothing."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, Shares, choice, constant, linear, move
from dlb_ops_builtin.rows.places import constant_of, home

aten = torch.ops.aten
BICUBIC = 2


def _grid(name: str) -> Row:
    """Bilinear and nearest sampling have weights that are not negative; those of bicubic have both signs."""
    sample = getattr(aten, name).default

    def apply(x: Tensor, w: None, call: Call) -> Tensor:
        y: Tensor = sample(x, call.grid, call.interpolation_mode, call.padding_mode, call.align_corners)
        return y

    def weights(call: Call) -> Tensor:
        """What each pixel gives to each sample, by unit images: [N, pixels, samples]."""
        shape = call.shape("input")
        size = shape[2:].numel()
        units = torch.eye(size, dtype=call.dtype, device=call.device).reshape(1, size, *shape[2:])
        return apply(units.expand(shape[0], *units.shape[1:]), None, call).flatten(2)

    def weighted(x: Tensor, w: Tensor, call: Call) -> Tensor:
        return (x.flatten(2) @ w).reshape(call.shape("output"))

    op = f"aten::{name}"
    plain = linear(op, x="input", apply=apply, reads=("grid",))
    curved = linear(op, x="input", weights=weights, apply=weighted, reads=("grid",))
    return choice(op, "input", lambda arguments: curved if arguments["interpolation_mode"] == BICUBIC else plain)


def _base_grid(call: Call) -> Tensor:
    """The coordinates that a transform is applied to, [..., 3 or 4]: what the op makes of unit transforms."""
    size = list(call.size)
    n = len(size) - 1
    units = torch.zeros(n, n - 1, n, dtype=call.dtype, device=call.device)
    units[:, 0] = torch.eye(n, dtype=call.dtype, device=call.device)
    grids: Tensor = aten.affine_grid_generator(units, [n, *size[1:]], call.align_corners)
    return grids[..., 0].movedim(0, -1)


def _boxes(name: str) -> Any:
    def apply(x: Tensor, w: None, call: Call) -> Tensor:
        sampling = (call.spatial_scale, call.pooled_height, call.pooled_width, call.sampling_ratio, call.aligned)
        y: Tensor = getattr(torch.ops.torchvision, name).default(x, call.rois, *sampling)
        return y

    return apply


def _deformed(x: Tensor, w: Tensor, call: Call) -> Tensor:
    window = (
        "stride_h",
        "stride_w",
        "pad_h",
        "pad_w",
        "dilation_h",
        "dilation_w",
        "groups",
        "offset_groups",
        "use_mask",
    )
    none = x.new_zeros(w.shape[0])
    y: Tensor = torch.ops.torchvision.deform_conv2d.default(
        x, w, call.offset, call.mask, none, *(getattr(call, name) for name in window)
    )
    return y


def _pooled_boxes(r: Any, call: Call) -> Shares:
    """Every bin goes back to its winner, whose number in its plane is the second output; an empty one (-1) is zero."""
    values, winners, shape = r[0], call.output[1].long(), call.shape("input")
    images = call.rois[:, 0].long().reshape(-1, 1, 1, 1)
    channels = torch.arange(shape[1], device=values.device).reshape(1, -1, 1, 1)
    places = (images * shape[1] + channels) * shape[2:].numel() + winners.clamp(min=0)
    empty = torch.where(winners < 0, values, 0)
    return Shares({"input": home(values - empty, places, shape)}, {constant_of(call): empty.sum()})


ROWS: list[Row] = [
    *(_grid(name) for name in ("grid_sampler", "grid_sampler_2d", "grid_sampler_3d")),
    linear(
        "aten::affine_grid_generator",
        x="theta",
        weights=_base_grid,
        apply=lambda x, w, call: torch.einsum("...j,nij->n...i", w, x),
    ),
    linear("torchvision::roi_align", x="input", apply=_boxes("roi_align"), reads=("rois",)),
    linear(
        "torchvision::deform_conv2d",
        x="input",
        weight="weight",
        bias="bias",
        tags={"convolution"},
        bias_dim=-3,
        apply=_deformed,
        reads=("offset", "mask"),
    ),
    move("torchvision::roi_pool", x="input", back=_pooled_boxes, reads=("rois", "output")),
    constant("torchvision::nms"),
]
