"""Text in boxes coloured by relevance, the numbers small beneath; lines break where the width ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from matplotlib.collections import PolyCollection
from torch import Tensor

from dlb_core.viz.plots.heading import above
from dlb_core.viz.plots.picture import FAINT, GREY, INK, SMALL, Block, Picture, label
from dlb_core.viz.plots.scale import COLOURS, Scale
from dlb_core.viz.plots.words import fit, shown_token, width_of
from dlb_core.viz.view import View

TITLE = 0.3
WIDTH, HALF = 8.6, 5.8  # inches: of a text alone, of each of two
#: up to so many tokens: points of their text and of the numbers
SIZES = ((80, 10.5, 6.5), (250, 9.0, 6.0), (10**9, 7.5, 5.0))
PAD, BETWEEN = 0.035, 0.025


@dataclass(frozen=True)
class Tokens:
    """texts, units: of each token. marked: tokens that stand out by a frame, without a number (units NaN).

    breaks: tokens that begin a line of their own.
    """

    name: str
    title: str
    texts: Sequence[str]
    units: Tensor
    scale: Scale
    width: float = WIDTH
    marked: frozenset[int] = frozenset()
    breaks: frozenset[int] = frozenset()

    @cached_property
    def _points(self) -> tuple[float, float]:
        return next((text, number) for most, text, number in SIZES if len(self.texts) <= most)

    @cached_property
    def _words(self) -> list[str]:
        return [fit(shown_token(text), self.width - 2 * PAD, self._points[0]) for text in self.texts]

    @cached_property
    def _numbers(self) -> list[str]:
        digits = self.scale.digits
        return [digits.text(value) if np.isfinite(value) else "" for value in self.units.tolist()]

    @property
    def _heights(self) -> tuple[float, float]:
        """Of a box, and of a line with its numbers."""
        text, number = self._points
        box = 1.5 * text / 72
        return box, box + 1.9 * number / 72

    @cached_property
    def _places(self) -> list[tuple[float, int, float]]:
        """Left end, line and width of each box."""
        places = []
        x, line = 0.0, 0
        for i, (word, number) in enumerate(zip(self._words, self._numbers, strict=True)):
            wide = max(width_of(word, self._points[0]), width_of(number, self._points[1])) + 2 * PAD
            if x and (x + wide > self.width or i in self.breaks):
                x, line = 0.0, line + 1
            places.append((x, line, wide))
            x += wide + BETWEEN
        return places

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        lines = max((line for _, line, _ in self._places), default=0) + 1
        widest = max((x + wide for x, _, wide in self._places), default=0.0)
        title = width_of(self.title, SMALL) + 0.2 + self.scale.flat_width()
        return min(self.width, max(widest, title)), TITLE + lines * self._heights[1]

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Draws boxes, texts and numbers."""
        width, height = self.size
        room = width - self.scale.flat_width() - 0.19
        picture.write(left, top + TITLE / 2 - 0.05, fit(self.title, room, SMALL), size=SMALL)
        self.scale.draw_flat(picture, left + width, top + TITLE / 2 - 0.05)
        size = (width, height - TITLE)
        axes = picture.panel(self.name, left, top + TITLE, size, (0.0, size[0]), (size[1], 0.0))
        box, step = self._heights
        corners = [
            [(x, line * step), (x + wide, line * step), (x + wide, line * step + box), (x, line * step + box)]
            for x, line, wide in self._places
        ]
        boxes = PolyCollection(
            corners, array=np.ma.masked_invalid(self.units.numpy()), cmap=COLOURS, norm=self.scale.norm,
            edgecolors=[INK if i in self.marked else FAINT for i in range(len(corners))],
            linewidths=[1.2 if i in self.marked else 0.5 for i in range(len(corners))],
        )  # fmt: skip
        axes.add_collection(boxes, autolim=False)
        text, number = self._points
        for (x, line, wide), word, written, value in zip(
            self._places, self._words, self._numbers, self.units.tolist(), strict=True
        ):
            ink = self.scale.ink(value)
            middle = x + wide / 2
            axes.add_artist(label(middle, line * step + box / 2, word, text, ink, "center", axes.transData))
            if written:
                below = line * step + box + 0.75 * number / 72
                axes.add_artist(label(middle, below, written, number, GREY, "center", axes.transData))


def token_blocks(sides: Sequence[View]) -> list[list[Block]]:
    """The text of one map, or of two beside each other on one scale."""
    scale = Scale.of(*(side.units for side in sides))
    width = WIDTH if len(sides) == 1 else HALF
    return [[text_of(side, scale, width) for side in sides]]


def text_of(side: View, scale: Scale, width: float) -> Tokens:
    """One input as text."""
    return Tokens(f"{side.name} {side.side}".strip(), above(side), side.labels, side.units, scale, width)
