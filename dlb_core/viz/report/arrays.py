"""Arrays as they lie in the page: base64 of float32 or bytes, no larger than a screen can show."""

from __future__ import annotations

import base64
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional


def floats(values: Tensor) -> dict[str, Any]:
    """Any shape, as little-endian float32."""
    data = values.detach().cpu().double().numpy().astype("<f4")
    return {"shape": list(values.shape), "f32": _text(data)}


def pixels(picture: Tensor) -> dict[str, Any]:
    """A picture [1 or 3, H, W] in 0..1, as bytes in that order."""
    data = (picture * 255).round().to(torch.uint8).cpu().numpy()
    return {"shape": list(picture.shape), "u8": _text(data)}


def _text(data: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(data).tobytes()).decode("ascii")


def block(shape: Sequence[int], side: int) -> int:
    """How many pixels a side become one, so that no side is longer than `side`."""
    return max(1, math.ceil(max(shape) / side))


def summed(units: Tensor, size: int) -> Tensor:
    """Relevance [C, H, W] in blocks of size x size, each the sum of its units: none is lost."""
    if size == 1:
        return units
    return averaged(functional.pad(units, _up_to(units, size)), size) * size**2


def averaged(picture: Tensor, size: int) -> Tensor:
    """A picture [C, H, W] in blocks of size x size, each the mean of its pixels."""
    if size == 1:
        return picture
    return functional.avg_pool2d(picture[None], size, ceil_mode=True, count_include_pad=False)[0]


def _up_to(values: Tensor, size: int) -> list[int]:
    """Zeros to add at the right and below, up to whole blocks."""
    height, width = values.shape[-2:]
    return [0, -width % size, 0, -height % size]


def plain(value: Any) -> Any:
    """A number that JSON can hold; what is not finite, by its name."""
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value
