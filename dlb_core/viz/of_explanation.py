"""The pictures that an `Explanation` draws of itself; each is drawn in a room of its own."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlb_core.explanation import Explanation
    from dlb_core.viz.text import ColouredText


class Pictures:
    """What can be drawn: `plot...` are figures of matplotlib (the extra `viz`), the others need nothing more."""

    def plot(self: Any, name: str | None = None, *, sample: int = 0, target: int = 0, channels: bool = False) -> Figure:
        """Relevance of the inputs (or of `name` alone), each by what it is: image, tokens, features, series.

        sample: of the batch. target: which of `targets=[...]`. channels: an image by channel, not summed. Two maps of a
        contrastive mode stand side by side. See `captioned` for names. Raises ImportError without matplotlib,
        ValueError for what is not there.
        """
        from dlb_core.viz.plots import plot_inputs

        return plot_inputs(self, name, sample=sample, target=target, channels=channels)

    def plot_layers(self: Any, *, target: int = 0, depth: int | None = None) -> Figure:
        """Units by layer: what entered and what was booked there.

        depth: how deep the modules are listed (default: as deep as there is room).
        """
        from dlb_core.viz.plots import plot_layers

        return plot_layers(self, target=target, depth=depth)

    def plot_ledger(self: Any, *, target: int = 0) -> Figure:
        """A waterfall from the seed to the inputs and the sinks; what is left is the residual."""
        from dlb_core.viz.plots import plot_ledger

        return plot_ledger(self, target=target)

    def plot_experts(self: Any, *, target: int = 0) -> Figure:
        """Units by expert and layer of experts. Raises ValueError for a model without any."""
        from dlb_core.viz.plots import plot_experts

        return plot_experts(self, target=target)

    def text(self: Any, name: str | None = None, *, sample: int = 0, target: int = 0) -> ColouredText:
        """The tokens of an input (default: the only one that has any), coloured by relevance.

        `str()` is plain, `.ansi()` for a terminal (rich prints it in colour too), `.html()` for a page; a notebook
        shows it in colour. Raises ValueError for an input without tokens.
        """
        from dlb_core.viz.text import coloured_text

        return coloured_text(self, name, sample=sample, target=target)

    def to_html(self: Any, path: str | os.PathLike[str], *, beside: Sequence[Explanation] = ()) -> Path:
        """Writes the report: one file that opens from disk and loads nothing.

        beside: explanations of the same inputs, in other modes, to compare with. Returns the path; raises ValueError
        for explanations of other inputs.
        """
        from dlb_core.viz.report import write_report

        return write_report([self, *beside], path)

    def _repr_html_(self: Any) -> str:
        """What a notebook shows: prediction, inputs, ledger."""
        from dlb_core.viz.notebook import card

        return card(self)
