"""What stands above a picture: the model, the target, the mode, the sample."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from dlb_core.viz.plots.digits import total
from dlb_core.viz.view import View

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation


def heading(explanation: Explanation, what: str, *, target: int, sample: int | None = None) -> list[str]:
    """Two lines. what: is drawn. sample: the one that is drawn; None where the batch is summed."""
    chosen = explanation.target
    if explanation.relevance.several and isinstance(chosen, list):
        chosen = chosen[target]
    count = len(explanation.output) if explanation.output.dim() else 1
    where = f"sum of {count} samples" if sample is None else f"sample {sample} of {count}"
    named = _target(explanation, chosen, sample, count)
    second = [explanation.captions.model, f"mode {explanation.mode}", where if count > 1 else ""]
    return [" · ".join(filter(None, [what, named])), " · ".join(filter(None, second))]


def above(view: View) -> str:
    """The line above one input: its name, which of two maps, and the sum of its units."""
    return f"{view.name}   {', '.join(filter(None, [view.side, 'sum ' + total(float(view.units.nansum()))]))}"


def _target(explanation: Explanation, chosen: Any, sample: int | None, count: int) -> str:
    """What was explained, where it can be said in a word."""
    if isinstance(chosen, list) and len(chosen) == count:  # one for each sample
        same = all(each == chosen[0] for each in chosen)
        chosen = chosen[sample] if sample is not None else chosen[0] if same else None
    if isinstance(chosen, int) and not isinstance(chosen, bool):
        name = explanation.captions.of_class(chosen)
        return f"target {chosen}" if name == str(chosen) else f"target {chosen}: {name}"
    if chosen is None or isinstance(chosen, Tensor):
        return ""
    return f"target {chosen}"
