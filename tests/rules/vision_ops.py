"""torchvision's operators from their definitions, where its own library does not load beside torch's CPU build.

The schemas are torchvision's. `register()` defines what is missing, so that the rows for them can be tested.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

BOXES = "Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width"
WINDOW = ", ".join(f"SymInt {name}_{side}" for name in ("stride", "pad", "dilation") for side in "hw")
SCHEMAS = {
    "nms": "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "roi_align": f"({BOXES}, int sampling_ratio, bool aligned) -> Tensor",
    "roi_pool": f"({BOXES}) -> (Tensor, Tensor)",
    "deform_conv2d": f"(Tensor input, Tensor weight, Tensor offset, Tensor mask, Tensor bias, {WINDOW}, "
    "SymInt groups, SymInt offset_groups, bool use_mask) -> Tensor",
}


def _at(image: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Bilinear samples of [1, C, H, W] at pixel coordinates, zero outside."""
    height, width = image.shape[-2:]
    grid = torch.stack([2 * x / (width - 1) - 1, 2 * y / (height - 1) - 1], -1)
    return F.grid_sample(image, grid.unsqueeze(0), align_corners=True)[0]


def roi_align(
    input: Tensor, rois: Tensor, spatial_scale: float, height: int, width: int, sampling_ratio: int, aligned: bool
) -> Tensor:
    """The mean of `sampling_ratio` squared samples in each bin; the boxes must lie inside the image."""
    pooled = []
    for batch, x0, y0, x1, y1 in (rois * rois.new_tensor([1, *[spatial_scale] * 4])).tolist():
        shift = 0.5 if aligned else 0.0
        steps = [(torch.arange(n * sampling_ratio) + 0.5) / (n * sampling_ratio) for n in (height, width)]
        ys, xs = y0 - shift + steps[0] * (y1 - y0), x0 - shift + steps[1] * (x1 - x0)
        y, x = torch.meshgrid(ys.to(input.dtype), xs.to(input.dtype), indexing="ij")
        samples = _at(input[int(batch) : int(batch) + 1], y, x)
        pooled.append(F.avg_pool2d(samples, sampling_ratio))
    return torch.stack(pooled)


def roi_pool(input: Tensor, rois: Tensor, spatial_scale: float, height: int, width: int) -> tuple[Tensor, Tensor]:
    """The largest element of each bin and its number in the plane; -1 and zero where a bin is empty."""
    values = input.new_zeros(len(rois), input.shape[1], height, width)
    winners = torch.full(values.shape, -1, dtype=torch.int32)
    for box, (batch, *edges) in enumerate(rois.tolist()):
        x0, y0, x1, y1 = (round(edge * spatial_scale) for edge in edges)
        for row in range(height):
            for column in range(width):
                top, bottom = (y0 + (row + k) * (y1 - y0 + 1) // height for k in (0, 1))
                left, right = (x0 + (column + k) * (x1 - x0 + 1) // width for k in (0, 1))
                if top >= bottom or left >= right:
                    continue
                for channel in range(input.shape[1]):
                    part = input[int(batch), channel, top:bottom, left:right]
                    best = int(part.argmax())
                    y, x = top + best // (right - left), left + best % (right - left)
                    values[box, channel, row, column] = input[int(batch), channel, y, x]
                    winners[box, channel, row, column] = y * input.shape[3] + x
    return values, winners


def deform_conv2d(input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor, bias: Tensor, *window: int) -> Tensor:
    """A convolution whose taps are moved by `offset` and weighed by `mask`; one group."""
    stride, pad, dilation = window[:2], window[2:4], window[4:6]
    size = offset.shape[-2:]
    out = torch.zeros(len(input), weight.shape[0], *size, dtype=input.dtype) + bias.reshape(-1, 1, 1)
    rows, columns = (torch.arange(n, dtype=input.dtype) * s - p for n, s, p in zip(size, stride, pad, strict=True))
    for tap in range(weight.shape[2] * weight.shape[3]):
        i, j = divmod(tap, weight.shape[3])
        samples = []
        for image, moved in zip(input.split(1), offset, strict=True):
            y = rows[:, None] + i * dilation[0] + moved[2 * tap]
            x = columns[None, :] + j * dilation[1] + moved[2 * tap + 1]
            samples.append(_at(image, y, x))
        taken = torch.stack(samples) * (mask[:, tap : tap + 1] if window[8] else 1)
        out = out + torch.einsum("nchw,oc->nohw", taken, weight[:, :, i, j])
    return out


def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
    """The boxes in the order of their scores, as if none overlapped."""
    return scores.argsort(descending=True)


_libraries: list[torch.library.Library] = []  # what they define lives as long as they do


def register() -> None:
    """Defines the operators that are not there, and implements those that are only named."""
    if _libraries:
        return
    for name, schema in SCHEMAS.items():
        library = torch.library.Library("torchvision", "FRAGMENT")
        _libraries.append(library)
        if not hasattr(torch.ops.torchvision, name):
            library.define(name + schema)
        if not torch._C._dispatch_has_computed_kernel_for_dispatch_key(f"torchvision::{name}", "CPU"):
            library.impl(name, globals()[name], "CPU" if name == "nms" else "CompositeImplicitAutograd")
