"""An image and the relevance of its pixels, drawn over the greyed image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from dlb_core.viz.plots.digits import total
from dlb_core.viz.plots.picture import GAP, GREY, SMALL, Block, Picture
from dlb_core.viz.plots.scale import COLOURS, OVERLAY, Scale, paint
from dlb_core.viz.plots.words import width_of
from dlb_core.viz.view import View

LONG, SHORT = 3.0, 0.4  # inches of a panel's sides: the longer one, and the other at least
TITLE = 0.24
IN_A_ROW, MOST = 4, 16
LUMINANCE = np.array([0.299, 0.587, 0.114])


@dataclass(frozen=True)
class Panel:
    """One map. units: [H, W], or None for the picture alone. picture: [1 or 3, H', W'], shown below the relevance."""

    name: str
    title: str
    units: Tensor | None
    picture: Tensor | None
    body: tuple[float, float]
    scale: Scale

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return max(self.body[0], width_of(self.title, SMALL)), self.body[1] + TITLE

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Draws the picture, greyed where relevance goes over it."""
        picture.write(left, top + TITLE / 2 - 0.03, self.title, size=SMALL)
        axes = picture.panel(self.name, left, top + TITLE, self.body)
        if self.picture is not None:
            pixels = self.picture.permute(1, 2, 0).expand(-1, -1, 3).double().numpy()
            if self.units is not None:
                grey = (pixels @ LUMINANCE)[:, :, None]
                pixels = np.broadcast_to(0.5 + 0.5 * grey, (*grey.shape[:2], 3))  # light: colours show on it
            axes.imshow(
                pixels, aspect="auto", origin="upper", extent=(0, 1, 1, 0), interpolation="antialiased", resample=True
            )
        if self.units is not None:
            shown = np.ma.masked_invalid(self.units.numpy())
            paint(axes, shown, COLOURS if self.picture is None else OVERLAY, self.scale.norm)
        picture.frame(left, top + TITLE, self.body)


@dataclass(frozen=True)
class Colours:
    """The scale beside the last panel of a row."""

    scale: Scale
    height: float

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return self.scale.width(), self.height + TITLE

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Draws the scale."""
        self.scale.draw(picture, left, top + TITLE, self.height)


@dataclass(frozen=True)
class Note:
    """A line of text."""

    text: str

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        return width_of(self.text, SMALL), TITLE

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Writes the line."""
        picture.write(left, top + TITLE / 2, self.text, size=SMALL, colour=GREY)


def image_blocks(sides: Sequence[View], channels: bool) -> list[list[Block]]:
    """Rows of panels: the picture, then relevance (of one or two maps) on one scale, summed or by channel."""
    units = [side.units if channels else side.plane[None] for side in sides]
    scale = Scale.of(*units)
    height, width = sides[0].plane.shape
    factor = LONG / max(height, width, 1)
    body = (max(width * factor, SHORT), max(height * factor, SHORT))
    first = sides[0]
    panels: list[Block] = []
    if first.picture is not None:
        panels.append(Panel(f"{first.name} picture", first.name, None, first.picture, body, scale))
    for side, planes in zip(sides, units, strict=True):
        sizes = planes.abs().nan_to_num().sum((1, 2))
        for channel in sizes.argsort(descending=True, stable=True)[:MOST].sort().values.tolist():
            what = [f"channel {channel}"] if channels else []
            name = " ".join(filter(None, [side.name, side.side, *what]))
            title = ["" if side.picture is not None else side.name, side.side or "relevance" * (not channels), *what]
            title.append(f"sum {total(float(planes[channel].nansum()))}")
            panels.append(Panel(name, ", ".join(filter(None, title)), planes[channel], side.picture, body, scale))
    in_a_row = max(1, min(IN_A_ROW, int((IN_A_ROW * (LONG + GAP)) // (body[0] + GAP))))
    rows = [panels[i : i + in_a_row] for i in range(0, len(panels), in_a_row)]
    rows[0] = [*rows[0], Colours(scale, body[1])]
    left_out = len(units[0]) - MOST
    return rows if left_out <= 0 else [*rows, [Note(f"{left_out} more channels, with less relevance")]]
