"""Heat maps: relevance of an image as colour, beside the image. Needs Pillow (the extra `viz`)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dlb_core.viz.colour import colour_limit, colours

if TYPE_CHECKING:
    from PIL import Image, ImageDraw

LEAST_SIDE = 256  # pixels of a panel's shorter side ...
MOST_SIDE = 2048  # ... unless its longer side would pass this
MARGIN, CAPTION, BAR = 16, 22, 14
INK, FRAME, PAPER = (60, 60, 60), (170, 170, 170), (255, 255, 255)


def check_pillow() -> None:
    """Raises `ImportError` with what to install when Pillow is missing."""
    try:
        import PIL  # noqa: F401
    except ImportError as error:
        raise ImportError('Pillow is missing: pip install "dlb-core[viz]"') from error


def heatmap(relevance: Tensor, image: Tensor | None = None, *, title: str = "relevance") -> Image.Image:
    """A picture of relevance [H, W] or [C, H, W] (channels are summed), the image [C, H, W] beside it.

    image: 1 or 3 channels; values outside 0..1 are stretched into it. Panels are enlarged by whole factors without
    smoothing, to at least 256 pixels. The colour scale is symmetric, its ends are written beside it.
    """
    check_pillow()
    from PIL import Image, ImageDraw

    plane = relevance.sum(0) if relevance.dim() == 3 else relevance
    if plane.dim() != 2 or plane.numel() == 0:
        raise ValueError(f"relevance of shape {list(relevance.shape)} is no image: expected [H, W] or [C, H, W]")
    factor = enlargement(plane.shape)
    limit = colour_limit(plane)
    panels = [(title, colours(plane, limit))]
    if image is not None:
        panels.insert(0, ("input", _visible(image)))
    ends = [_tick(limit), "0", _tick(-limit)]
    height, width = plane.shape[0] * factor, plane.shape[1] * factor

    font = _font()
    text_width = max(int(font.getlength(text)) for text in ends)
    total = len(panels) * (width + MARGIN) + MARGIN + BAR + 6 + text_width + MARGIN
    canvas = Image.new("RGB", (total, CAPTION + height + 2 * MARGIN), PAPER)
    draw = ImageDraw.Draw(canvas)
    top = MARGIN + CAPTION
    for index, (caption, pixels) in enumerate(panels):
        left = MARGIN + index * (width + MARGIN)
        canvas.paste(Image.fromarray(pixels).resize((width, height), Image.Resampling.NEAREST), (left, top))
        _frame(draw, left, top, width, height)
        draw.text((left, MARGIN), caption, fill=INK, font=font)
    left = MARGIN + len(panels) * (width + MARGIN)
    scale = torch.linspace(1.0, -1.0, height).unsqueeze(1).expand(height, BAR)
    canvas.paste(Image.fromarray(colours(scale, 1.0)), (left, top))
    _frame(draw, left, top, BAR, height)
    for text, y in zip(ends, (top, top + height / 2, top + height), strict=True):
        draw.text((left + BAR + 6, y), text, fill=INK, font=font, anchor="lm")
    return canvas


def enlargement(shape: Sequence[int]) -> int:
    """The whole factor that brings an image [H, W] to at least 256 pixels."""
    return max(1, min(math.ceil(LEAST_SIDE / min(shape)), MOST_SIDE // max(shape)))


def _visible(image: Tensor) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """An image [1 or 3, H, W] as RGB [H, W, 3]."""
    if image.dim() != 3 or image.shape[0] not in (1, 3):
        raise ValueError(f"an image has shape [1 or 3, H, W], got {list(image.shape)}")
    values = image.detach().cpu().float().nan_to_num()
    low, high = float(values.min()), float(values.max())
    if low < -1e-3 or high > 1 + 1e-3:
        values = (values - low) / ((high - low) or 1.0)
    pixels = (values.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).expand(-1, -1, 3)
    made: np.ndarray[Any, np.dtype[np.uint8]] = pixels.contiguous().numpy()
    return made


def _tick(value: float) -> str:
    return f"{value:+.3g}" if value else "0"


def _frame(draw: ImageDraw.ImageDraw, left: int, top: int, width: int, height: int) -> None:
    """A line around a panel, outside its pixels: white relevance on white paper would have no edge."""
    draw.rectangle((left - 1, top - 1, left + width, top + height), outline=FRAME)


def _font() -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(13)
