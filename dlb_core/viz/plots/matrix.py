"""A matrix as a heat map with names on both sides: experts by layer, channels by time, tokens by token."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from torch import Tensor

from dlb_core.viz.plots.picture import GREY, INK, SMALL, TINY, Picture, label
from dlb_core.viz.plots.scale import COLOURS, Scale, paint
from dlb_core.viz.plots.words import fit, width_of

TITLE = 0.3
SPACE = 0.08
WIDE, LARGE, LEAST = 10.0, 0.42, 0.028  # inches: of the whole, of a cell at most and at least
LINE = 0.15  # what a line of small text takes
MOST_LABEL = 3.5


@dataclass(frozen=True)
class Matrix:
    """Units [rows, columns]; NaN is blank.

    texts: of the cells, shown where there is room (None: none). notes: right of each row. after: columns behind which
    a line is drawn. unit: how the columns are called. cell: width and height of a cell, at most.
    """

    name: str
    title: str
    units: Tensor
    rows: Sequence[str]
    columns: Sequence[str]
    scale: Scale
    texts: Sequence[Sequence[str]] | None = None
    notes: Sequence[str] = ()
    after: Sequence[int] = ()
    bar: bool = True
    cell: tuple[float, float] = (LARGE, LARGE)

    @property
    def _cell(self) -> tuple[float, float]:
        count = max(len(self.columns), 1)
        return min(self.cell[0], max(WIDE / count, LEAST)), self.cell[1] if len(self.rows) <= 24 else max(
            min(self.cell[1], 8.0 / len(self.rows)), LEAST
        )

    @property
    def _body(self) -> tuple[float, float]:
        width, height = self._cell
        return width * len(self.columns), height * len(self.rows)

    @property
    def _left(self) -> float:
        return max((width_of(fit(text, MOST_LABEL, SMALL), SMALL) for text in self.rows), default=0.0) + SPACE

    @property
    def _turned(self) -> bool:
        """Do the names of the columns have to stand upright?"""
        named = self._named
        room = min((b - a for a, b in pairwise(named)), default=len(self.columns)) * self._cell[0]
        return any(width_of(self.columns[j], SMALL) > max(room, self._cell[0]) - 0.04 for j in named)

    @property
    def _named(self) -> list[int]:
        return [j for j, text in enumerate(self.columns) if text]

    @property
    def _above(self) -> float:
        longest = max((width_of(fit(text, MOST_LABEL / 2, SMALL), SMALL) for text in self.columns), default=0.0)
        return (TITLE if self.title else 0.0) + (longest if self._turned else LINE) + SPACE

    @property
    def _right(self) -> float:
        return max((width_of(text, SMALL) + SPACE for text in self.notes), default=0.0)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        width, height = self._body
        bar = 2 * SPACE + self.scale.width() if self.bar else 0.0
        beside = self._left + width + self._right + bar
        return max(beside, width_of(self.title, SMALL)), self._above + max(height, 0.5 if self.bar else 0.0)

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Draws the map, its names and its scale."""
        if self.title:
            picture.write(left, top + TITLE / 2 - 0.05, self.title, size=SMALL)
        x, y = left + self._left, top + self._above
        body, high = self._body, self._cell[1]
        shape = (len(self.columns), len(self.rows))
        axes = picture.panel(self.name, x, y, body, (-0.5, shape[0] - 0.5), (shape[1] - 0.5, -0.5))
        values = self.units.detach().cpu().double().numpy()
        paint(axes, np.ma.masked_invalid(values), COLOURS, self.scale.norm)
        for column in self.after:
            axes.vlines(column + 0.5, -0.5, shape[1] - 0.5, colors=INK, linewidth=0.8)
        picture.frame(x, y, body)
        for i in _every(len(self.rows), LINE / high):
            text = fit(self.rows[i], MOST_LABEL, SMALL)
            picture.write(x - SPACE, y + (i + 0.5) * high, text, size=SMALL, side="right")
        self._write_columns(picture, x, y)
        for i in _every(len(self.notes), LINE / high):
            picture.write(x + body[0] + SPACE, y + (i + 0.5) * high, self.notes[i], size=SMALL, colour=GREY)
        if self.texts is not None and self._room():
            for i, row in enumerate(self.texts):
                for j, text in enumerate(row):
                    if text and math.isfinite(values[i, j]):
                        ink = self.scale.ink(values[i, j])
                        axes.add_artist(label(j, i, text, TINY, ink, "center", axes.transData))
        if self.bar:
            self.scale.draw(picture, x + body[0] + self._right + 2 * SPACE, y, min(max(body[1], 0.5), 2.5))

    def _write_columns(self, picture: Picture, left: float, top: float) -> None:
        wide = self._cell[0]
        turned = self._turned
        named = self._named
        for j in named[:: max(1, math.ceil(LINE / wide)) if turned and len(named) == len(self.columns) else 1]:
            x = left + (j + 0.5) * wide
            text = fit(self.columns[j], MOST_LABEL / 2, SMALL)
            if turned:
                written = picture.write(x, top - SPACE, text, size=SMALL, turned=True, side="center")
                written.set_verticalalignment("bottom")
            else:
                picture.write(x, top - SPACE - LINE / 2 + 0.02, text, size=SMALL, side="center")

    def _room(self) -> bool:
        texts = (text for row in self.texts or () for text in row)
        return self._cell[1] >= 0.16 and max((width_of(t, TINY) for t in texts), default=0.0) <= self._cell[0] - 0.03


def _every(count: int, lines: float) -> range:
    """The rows that get a name, when a name takes so many rows."""
    return range(0, count, max(1, math.ceil(lines - 1e-9)))
