"""What tests read back from a picture: its panels, bars, maps and texts."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.text import Text
from torch import Tensor

from dlb_core import Explanation
from dlb_core.relevance import Relevance


def panels(picture: Any) -> dict[str, Axes]:
    """By name."""
    return {axes.get_label(): axes for axes in picture.axes}


def texts(picture: Any) -> list[str]:
    """Everything that is written, in the order it was."""
    return [text.get_text() for text in _texts(picture)]


def _texts(picture: Any) -> list[Text]:
    return [text for text in picture.findobj(Text) if text.get_text() and text.get_visible()]


def shown_map(axes: Axes) -> np.ndarray:
    """The numbers of the last map of a panel."""
    return np.ma.filled(axes.images[-1].get_array(), np.nan)


def bars(axes: Axes) -> list[float]:
    """Lengths of the bars from above, 0 where there is none."""
    found = {round(bar.get_y() + bar.get_height() / 2): bar.get_width() for bar in axes.patches}
    return [found.get(row, 0.0) for row in range(round(axes.get_ylim()[0] + 0.5))]


def boxes(axes: Axes) -> PolyCollection:
    """The boxes of tokens."""
    return next(each for each in axes.collections if isinstance(each, PolyCollection))


def outside(picture: Any) -> list[str]:
    """Texts that reach over the edge of the picture."""
    width, height = picture.canvas.get_width_height()
    found = []
    for text in _texts(picture):
        box = text.get_window_extent()
        if box.x0 < 0 or box.y0 < 0 or box.x1 > width or box.y1 > height:
            found.append(text.get_text())
    return found


def overlapping(picture: Any) -> list[tuple[str, str]]:
    """Pairs of texts that cover each other, by more than two pixels."""
    extents = [(text.get_text(), text.get_window_extent()) for text in _texts(picture)]
    found = []
    for i, (one, a) in enumerate(extents):
        for other, b in extents[i + 1 :]:
            wide, high = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
            if wide > 2 and high > 2:
                found.append((one, other))
    return found


def with_units(explanation: Explanation, units: Tensor, values: Tensor | None = None) -> Explanation:
    """The same explanation with other relevance of its only input."""
    (name,) = explanation.inputs
    old = explanation.relevance
    relevance = Relevance({name: units}, old.ledgers, inputs=(name,), target=old.target, mode=old.mode)
    return dataclasses.replace(explanation, relevance=relevance, given={} if values is None else {name: values})
