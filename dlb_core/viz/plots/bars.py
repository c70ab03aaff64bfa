"""Lying bars with names and numbers beside them: features, values, layers, the ledger's waterfall."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from matplotlib.axes import Axes

from dlb_core.viz.plots.picture import FAINT, GREY, INK, SMALL, Picture
from dlb_core.viz.plots.scale import NEGATIVE, POSITIVE
from dlb_core.viz.plots.words import fit, width_of

ROW, HEAD, TITLE = 0.235, 0.24, 0.3
SPACE = 0.12  # between columns
MOST_LABEL = 5.0
Colour = Any  # as matplotlib takes it


@dataclass(frozen=True)
class Column:
    """Bars in one column, and the numbers to the right of them.

    lengths: with signs; None: there is no bar in that row. starts: where the bars begin (default: all at zero). texts:
    columns of numbers. reach: the ends of the axis, (lowest <= 0, highest >= 0). joined: a line leads from the end of
    each bar to the next.
    """

    title: str
    lengths: Sequence[float | None]
    texts: Sequence[Sequence[str]]
    reach: tuple[float, float]
    width: float = 2.4
    starts: Sequence[float] = ()
    colours: Sequence[Colour] = ()
    joined: bool = False

    @property
    def text_widths(self) -> list[float]:
        """Of each column of numbers."""
        return [max((width_of(text, SMALL) for text in texts), default=0.0) for texts in self.texts]

    @property
    def whole_width(self) -> float:
        """Bars and numbers."""
        return max(self.width + sum(width + SPACE for width in self.text_widths), width_of(self.title, SMALL))


@dataclass(frozen=True)
class Bars:
    """Rows of names, notes and bars. quiet: rows whose name is no name ("... 12 more")."""

    name: str
    title: str
    labels: Sequence[str]
    columns: Sequence[Column]
    notes: Sequence[str] = ()
    quiet: frozenset[int] = field(default_factory=frozenset)

    @property
    def _label_width(self) -> float:
        return max((width_of(fit(text, MOST_LABEL, SMALL), SMALL) for text in self.labels), default=0.0)

    @property
    def _note_width(self) -> float:
        return max((width_of(fit(text, MOST_LABEL / 2, SMALL), SMALL) + SPACE for text in self.notes), default=0.0)

    @property
    def _above(self) -> float:
        return (TITLE if self.title else 0.0) + (HEAD if any(column.title for column in self.columns) else 0.0)

    @property
    def size(self) -> tuple[float, float]:
        """Width and height in inches."""
        beside = self._label_width + self._note_width + sum(SPACE + column.whole_width for column in self.columns)
        return max(beside, width_of(self.title, SMALL)), self._above + ROW * len(self.labels)

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Draws names, notes and columns."""
        if self.title:
            picture.write(left, top + TITLE / 2 - 0.05, self.title, size=SMALL)
        first = top + self._above
        for i, text in enumerate(self.labels):
            colour = GREY if i in self.quiet else INK
            picture.write(left, first + (i + 0.5) * ROW, fit(text, MOST_LABEL, SMALL), size=SMALL, colour=colour)
        here = left + self._label_width + self._note_width
        for i, text in enumerate(self.notes):
            short = fit(text, MOST_LABEL / 2, SMALL)
            picture.write(here, first + (i + 0.5) * ROW, short, size=SMALL, colour=GREY, side="right")
        for column in self.columns:
            here += SPACE
            if column.title:
                picture.write(here, first - HEAD / 2, column.title, size=SMALL, colour=GREY)
            _draw(picture, f"{self.name} {column.title}".strip(), column, here, first)
            here += column.whole_width


def _draw(picture: Picture, name: str, column: Column, left: float, top: float) -> None:
    count = len(column.lengths)
    low, high = column.reach
    span = (high - low) or 1.0
    reach = (low - 0.01 * span, (high or low + span) + 0.01 * span)
    axes = picture.panel(name, left, top, (column.width, count * ROW), reach, (count - 0.5, -0.5))
    axes.vlines(0.0, -0.5, count - 0.5, colors=FAINT, linewidth=0.8, zorder=1)
    starts = column.starts or [0.0] * count
    colours = column.colours or [tone(length or 0.0) for length in column.lengths]
    for i, (start, length, colour) in enumerate(zip(starts, column.lengths, colours, strict=True)):
        if length is not None and math.isfinite(length):
            axes.barh(i, length, height=0.68, left=start, color=[colour], edgecolor="none", linewidth=0, zorder=2)
    if column.joined:
        _join(axes, starts, column.lengths)
    here = left + column.width
    for texts, width in zip(column.texts, column.text_widths, strict=True):
        here += SPACE + width
        for i, text in enumerate(texts):
            picture.write(here, top + (i + 0.5) * ROW, text, size=SMALL, side="right")


def _join(axes: Axes, starts: Sequence[float], lengths: Sequence[float | None]) -> None:
    ends = [start + (length or 0.0) for start, length in zip(starts, lengths, strict=True)]
    axes.vlines(starts[1:], [i + 0.34 for i in range(len(ends) - 1)], [i + 0.66 for i in range(len(ends) - 1)],
                colors=GREY, linewidth=0.8, zorder=3)  # fmt: skip


def tone(units: float, *, pale: bool = False) -> Colour:
    """The colour of a bar: red above zero, blue below."""
    red, green, blue = POSITIVE if units >= 0 else NEGATIVE
    return (red, green, blue) if not pale else tuple(1 - 0.5 * (1 - c) for c in (red, green, blue))


def reach_of(*columns: Sequence[float | None]) -> tuple[float, float]:
    """The ends of an axis that all of these bars fit on."""
    numbers = [n for column in columns for n in column if n is not None and math.isfinite(n)]
    return min(0.0, *numbers, 0.0), max(0.0, *numbers, 0.0)
