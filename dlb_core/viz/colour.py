"""The one colour scale of all pictures: blue below zero, white at zero, red above."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

#: from -1 over 0 (white) to +1
STOPS: tuple[tuple[int, int, int], ...] = (
    (5, 48, 130),
    (67, 130, 195),
    (255, 255, 255),
    (225, 95, 77),
    (130, 0, 25),
)


def colours(relevance: Tensor, limit: float) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Relevance [H, W] as RGB [H, W, 3]: blue below zero, white at zero, red above; beyond +-limit no darker."""
    scaled = relevance.detach().cpu().double().numpy() / (limit or 1.0)
    steps = np.linspace(-1.0, 1.0, len(STOPS))
    planes = [np.interp(scaled, steps, [stop[channel] for stop in STOPS]) for channel in range(3)]
    return np.stack(planes, axis=-1).round().astype(np.uint8)


def colour_limit(relevance: Tensor) -> float:
    """The end of the colour scale: the |R| that 99.5 % of the non-zero pixels stay within.

    One pixel that stands out among thousands does not make all others white; below 200 pixels it is the largest.
    """
    sizes = relevance.detach().abs().double().flatten()
    sizes = sizes[sizes > 0].sort().values
    return float(sizes[math.ceil(0.995 * len(sizes)) - 1]) if len(sizes) else 0.0


def colour_of(units: float, limit: float) -> tuple[int, int, int]:
    """The colour of one number on the scale, as `colours` has it."""
    red, green, blue = colours(torch.tensor([[units]], dtype=torch.float64), limit)[0, 0].tolist()
    return red, green, blue


def ink_on(colour: Sequence[int]) -> tuple[int, int, int]:
    """Black or white: what is read better on a colour, by the contrast of WCAG 2."""
    linear = [c / 12.92 if (c := part / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for part in colour]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    return (0, 0, 0) if (luminance + 0.05) / 0.05 >= 1.05 / (luminance + 0.05) else (255, 255, 255)


def hexadecimal(colour: Sequence[int]) -> str:
    """A colour as a page writes it."""
    return "#" + "".join(f"{part:02x}" for part in colour)
