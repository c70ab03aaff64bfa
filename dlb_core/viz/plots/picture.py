"""The sheet that is drawn on: a figure of matplotlib without pyplot, measured in inches from its upper left corner."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any, Literal, Protocol

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.text import Text

from dlb_core.viz.plots.words import fit, font, shown, width_of

DPI = 120
MARGIN, GAP = 0.25, 0.3
INK, GREY, FAINT, PAPER = "#202020", "#666666", "#c8c8c8", "#ffffff"
NORMAL, SMALL, TINY, TITLE = 9.0, 8.0, 6.0, 12.0
LEAST_WIDTH, MOST_TITLE = 5.0, 11.0
Side = Literal["left", "center", "right"]


class Picture(Figure):
    """A figure that shows itself in a notebook; `savefig(path)` writes it (PNG, SVG, PDF)."""

    def __init__(self, width: float, height: float) -> None:
        super().__init__(figsize=(width, height), dpi=DPI, facecolor=PAPER, edgecolor=PAPER)
        self.set_layout_engine("none")
        FigureCanvasAgg(self)

    def panel(
        self,
        name: str,
        left: float,
        top: float,
        size: tuple[float, float],
        x: tuple[float, float] = (0.0, 1.0),
        y: tuple[float, float] = (1.0, 0.0),
    ) -> Axes:
        """Axes without ticks or frame; its label is `name`. y counts downwards unless told otherwise."""
        width, height = self.get_size_inches()
        box = (left / width, 1 - (top + size[1]) / height, size[0] / width, size[1] / height)
        axes = self.add_axes(box, label=name)
        axes.set_axis_off()
        axes.set_autoscale_on(False)
        axes.set_xlim(*x)
        axes.set_ylim(*y)
        return axes

    def write(
        self,
        left: float,
        middle: float,
        text: str,
        *,
        size: float = NORMAL,
        colour: str = INK,
        side: Side = "left",
        turned: bool = False,
    ) -> Text:
        """Text as it is, never a formula: `left` is its left (right, center) end, `middle` half its height."""
        width, height = self.get_size_inches()
        here = (left / width, 1 - middle / height)
        written = label(*here, text, size, colour, side, self.transSubfigure, turned=turned)
        self.add_artist(written)
        return written

    def frame(self, left: float, top: float, size: tuple[float, float], colour: str = FAINT) -> None:
        """A thin line around a panel: white relevance on white paper would have no edge."""
        width, height = self.get_size_inches()
        corner = (left / width, 1 - (top + size[1]) / height)
        edge = Rectangle(corner, size[0] / width, size[1] / height, fill=False, edgecolor=colour, linewidth=0.6)
        edge.set_transform(self.transSubfigure)
        self.add_artist(edge)

    def savefig(self, fname: Any, **options: Any) -> None:
        """Writes the picture; see `matplotlib.figure.Figure.savefig`. Its paper is white in every style."""
        if not options.get("transparent"):
            options.setdefault("facecolor", self.get_facecolor())
        super().savefig(fname, **options)

    def _repr_png_(self) -> bytes:
        """What a notebook shows."""
        file = io.BytesIO()
        self.savefig(file, format="png")
        return file.getvalue()


class Block(Protocol):
    """Something of known size, in inches, that can be drawn anywhere on a picture."""

    @property
    def size(self) -> tuple[float, float]:
        """Width and height."""
        ...

    def draw(self, picture: Picture, left: float, top: float) -> None:
        """Draws it with its upper left corner there."""
        ...


def compose(heading: Sequence[str], rows: Sequence[Sequence[Block]]) -> Picture:
    """Blocks in rows under a heading: its first line is large, the others are grey; what is too long is shortened."""
    heights = [max(block.size[1] for block in row) for row in rows]
    widths = [sum(block.size[0] for block in row) + GAP * (len(row) - 1) for row in rows]
    sizes = [TITLE] + [NORMAL] * (len(heading) - 1)
    titles = [min(width_of(text, size), MOST_TITLE) for text, size in zip(heading, sizes, strict=True)]
    inner = max(LEAST_WIDTH, *widths, *titles)
    steps = [0.3] + [0.22] * (len(heading) - 1)
    picture = Picture(inner + 2 * MARGIN, sum(steps) + sum(heights) + GAP * len(rows) + 2 * MARGIN - 0.1)
    top = MARGIN
    for text, size, step in zip(heading, sizes, steps, strict=True):
        colour = INK if size == TITLE else GREY
        picture.write(MARGIN, top + step / 2 - 0.04, fit(text, inner, size), size=size, colour=colour)
        top += step
    top += GAP - 0.1
    for row, height in zip(rows, heights, strict=True):
        left = MARGIN
        for block in row:
            block.draw(picture, left, top)
            left += block.size[0] + GAP
        top += height + GAP
    return picture


def label(
    x: float,
    y: float,
    text: str,
    size: float,
    colour: str,
    side: Side,
    transform: Any,
    *,
    turned: bool = False,
) -> Text:
    """Text for a figure or axes, whatever the styles in force say about fonts and formulas."""
    words = shown(text)
    return Text(
        x,
        y,
        words,
        color=colour,
        fontproperties=font(words, size),
        horizontalalignment=side,
        verticalalignment="center_baseline" if not turned else "center",
        rotation=90.0 if turned else 0.0,
        parse_math=False,
        usetex=False,
        transform=transform,
    )
