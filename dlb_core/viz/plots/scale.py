"""Relevance as colour on a picture: one symmetric scale for everything that is compared."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.colors import Colormap, LinearSegmentedColormap, ListedColormap, Normalize
from torch import Tensor

from dlb_core.viz.colour import STOPS, colour_limit
from dlb_core.viz.plots.digits import Digits
from dlb_core.viz.plots.picture import INK, PAPER, SMALL, Picture
from dlb_core.viz.plots.words import width_of

STEPS = 511  # odd: zero is white, to the bit
BLANK = "#e9e9e9"  # where there is nothing, not even zero
_STOPS = [tuple(c / 255 for c in stop) for stop in STOPS]
COLOURS = LinearSegmentedColormap.from_list("dlb", _STOPS, N=STEPS).with_extremes(bad=BLANK)
POSITIVE, NEGATIVE = _STOPS[3], _STOPS[1]
BAR = 0.12


def _overlay() -> ListedColormap:
    """The same colours, the weaker the more transparent."""
    colours = COLOURS(np.linspace(0, 1, STEPS))
    colours[:, 3] = np.clip(1.7 * np.abs(np.linspace(-1, 1, STEPS)) ** 0.8, 0, 0.92)
    return ListedColormap(colours, name="dlb over a picture")


OVERLAY = _overlay()


@dataclass(frozen=True)
class Scale:
    """Colours from -limit over 0 (white) to +limit; beyond it they get no darker."""

    limit: float

    @classmethod
    def of(cls, *units: Tensor) -> Scale:
        """A scale for all of them together."""
        together = torch.cat([each.detach().cpu().double().flatten() for each in units])
        return cls(colour_limit(together[together.isfinite()]))

    @property
    def norm(self) -> Normalize:
        """What matplotlib scales with; of nothing but zeros all is white."""
        return Normalize(-(self.limit or 1.0), self.limit or 1.0, clip=True)

    @property
    def digits(self) -> Digits:
        """How to write numbers of this size."""
        return Digits.of(self.limit)

    def ink(self, value: float) -> str:
        """A colour that can be read on the colour of `value`."""
        red, green, blue, _ = COLOURS(float(self.norm(value))) if np.isfinite(value) else (1, 1, 1, 1)
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in (red, green, blue)]
        luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
        return INK if (luminance + 0.05) ** 2 > 1.05 * 0.064 else PAPER  # where both contrasts are the same

    @property
    def ends(self) -> tuple[str, str, str]:
        """What stands at the lower end, the middle and the upper end."""
        if not self.limit:
            return ("0", "0", "0")
        return (self.digits.text(-self.limit), "0", self.digits.text(self.limit))

    def width(self) -> float:
        """Of an upright bar with its numbers, in inches."""
        return BAR + 0.06 + max(width_of(text, SMALL) for text in self.ends)

    def draw(self, picture: Picture, left: float, top: float, height: float) -> None:
        """An upright bar with its numbers."""
        ramp(picture.panel("colours", left, top, (BAR, height)), upright=True)
        picture.frame(left, top, (BAR, height))
        low, middle, high = self.ends
        inset = 0.05 if height > 0.5 else 0.0
        marks = [(high, inset), (low, height - inset)] + ([(middle, height / 2)] if height > 0.5 else [])
        for text, below in marks:
            picture.write(left + BAR + 0.06, top + below, text, size=SMALL)

    def flat_width(self) -> float:
        """Of a lying bar with its numbers, in inches."""
        return 1.2 + 0.14 + width_of(self.ends[0], SMALL) + width_of(self.ends[2], SMALL)

    def draw_flat(self, picture: Picture, right: float, middle: float) -> None:
        """A lying bar with its numbers, which ends at `right`."""
        low, _, high = self.ends
        picture.write(right, middle, high, size=SMALL, side="right")
        left = right - width_of(high, SMALL) - 0.07 - 1.2
        ramp(picture.panel("colours", left, middle - BAR / 2, (1.2, BAR)), upright=False)
        picture.frame(left, middle - BAR / 2, (1.2, BAR))
        picture.write(left - 0.07, middle, low, size=SMALL, side="right")


def ramp(axes: Axes, *, upright: bool) -> None:
    """All colours of the scale, the largest above or to the right."""
    colours = np.linspace(-1.0, 1.0, 255)
    shown = colours[::-1, None] if upright else colours[None]
    paint(axes, shown, COLOURS, Normalize(-1, 1))


def paint(axes: Axes, units: np.ndarray, colours: Colormap, norm: Normalize) -> None:
    """An array over the whole axes; NaN is blank. Its numbers stay with the artist (`get_array`)."""
    coarse = max(units.shape) <= 512
    axes.imshow(
        units,
        cmap=colours,
        norm=norm,
        aspect="auto",
        origin="upper",
        interpolation="nearest" if coarse else "antialiased",
        interpolation_stage="data",
        extent=(*axes.get_xlim(), *axes.get_ylim()),
        resample=True,
    )
