"""Series over time: the values of each channel on a strip of its relevance; of many channels the strips alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from dlb_core.viz.plots.digits import Digits, plain
from dlb_core.viz.plots.heading import above
from dlb_core.viz.plots.matrix import Matrix
from dlb_core.viz.plots.picture import GREY, INK, SMALL, Block, Picture
from dlb_core.viz.plots.scale import COLOURS, Scale, paint
from dlb_core.viz.plots.words import fit, width_of
from dlb_core.viz.view import View

TITLE, SPACE = 0.3, 0.1
FEW = 8  # channels with a strip of their own
WIDTH, HALF = 7.0, 4.4
STRIP, BETWEEN, TIME = 0.5, 0.08, 0.2
MOST_LABEL = 3.0


@dataclass(frozen=True)
class Series:
    """Channels below each other, time from left to right."""

    view: View
    title: str
    scale: Scale
    width: float

    @property
    def _labels(self) -> list[str]:
        return [fit(text, MOST_LABEL, SMALL) for text in self.view.labels]

    @property
    def _totals(self) -> list[str]:
        sums = self.view.units.nansum(0).tolist()
        digits = Digits.of(max(map(abs, sums), default=0.0))
        return [digits.exact(total) for total in sums]

    @property
    def _left(self) -> float:
        return max((width_of(text, SMALL) for text in self._labels), default=0.0) + SPACE

    @property
    def _right(self) -> float:
        return max((width_of(text, SMALL) for text in self._totals), default=0.0) + SPACE

    @property
    def _body(self) -> float:
        return len(self._labels) * (STRIP + BETWEEN)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        wide = self._left + self.width + self._right + 2 * SPACE + self.scale.width()
        return max(wide, width_of(self.title, SMALL)), TITLE + self._body + TIME

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Draws strips, lines, totals and the ends of time."""
        picture.write(left, top + TITLE / 2 - 0.05, self.title, size=SMALL)
        x, y = left + self._left, top + TITLE
        units = self.view.units.numpy()
        for i, (text, total) in enumerate(zip(self._labels, self._totals, strict=True)):
            self._strip(picture, f"{self.view.name} {self.view.side} {i}".replace("  ", " "), x, y, units[:, i], i)
            picture.write(x - SPACE, y + STRIP / 2, text, size=SMALL, side="right")
            picture.write(x + self.width + self._right, y + STRIP / 2, total, size=SMALL, side="right")
            y += STRIP + BETWEEN
        last = len(units) - 1
        for step in sorted({0, last // 2, last}) if last > 1 else range(last + 1):
            at = x + self.width * (step + 0.5) / (last + 1)
            picture.write(at, y + TIME / 2 - 0.05, str(step), size=SMALL, colour=GREY, side="center")
        right = x + self.width + self._right + 2 * SPACE
        self.scale.draw(picture, right, top + TITLE, min(self._body - BETWEEN, 2.5))

    def _strip(self, picture: Picture, name: str, x: float, y: float, units: np.ndarray, channel: int) -> None:
        size = (self.width, STRIP)
        axes = picture.panel(name, x, y, size, (-0.5, len(units) - 0.5))
        paint(axes, np.ma.masked_invalid(units[None]), COLOURS, self.scale.norm)
        picture.frame(x, y, size)
        if self.view.values is None:
            return
        values = self.view.values[:, channel].double().numpy()
        seen = values[np.isfinite(values)]
        low, high = (float(seen.min()), float(seen.max())) if len(seen) else (0.0, 0.0)
        rim = 0.12 * (high - low) or 1.0
        over = picture.panel(f"{name} values", x, y, size, (-0.5, len(units) - 0.5), (low - rim, high + rim))
        steps = np.arange(len(values))
        over.plot(steps, values, color="white", linewidth=2.6, linestyle="-", marker="None", alpha=0.8)
        dot = "." if len(values) == 1 else "None"
        over.plot(steps, values, color=INK, linewidth=1.1, linestyle="-", marker=dot, label=plain(low))


def series_blocks(sides: Sequence[View]) -> list[list[Block]]:
    """The channels of one map, or of two beside each other on one scale."""
    scale = Scale.of(*(side.units for side in sides))
    width = WIDTH if len(sides) == 1 else HALF
    few = sides[0].units.shape[1] <= FEW
    return [[(_few if few else _many)(side, scale, width) for side in sides]]


def _few(side: View, scale: Scale, width: float) -> Block:
    return Series(side, above(side), scale, width)


def _many(side: View, scale: Scale, width: float) -> Block:
    units = side.units.T
    sums = units.nansum(1).tolist()
    digits = Digits.of(max(map(abs, sums), default=0.0))
    time = units.shape[1]
    ticks = max(1, math.ceil(time / 8))
    steps = [str(t) if t % ticks == 0 else "" for t in range(time)]
    cell = (width / max(time, 1), 0.2)
    notes = [digits.exact(total) for total in sums]
    name = f"{side.name} {side.side}".strip()
    return Matrix(name, above(side), units, side.labels, steps, scale, notes=notes, cell=cell)
