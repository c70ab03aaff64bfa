"""Relevance of a change: what each operand's own change did to the change of an output.

Between two points every value changes. A linear map takes the change of x to that of y as it takes x to y, and its bias
cancels; so the formulas of a mode hold for changes as they do for values. An op that is not linear has an exact share
for each operand all the same: its value is taken at the corners between the two points (Shapley 1953), which for a
product a b gives da mean(b) and mean(a) db. The mode's formula for sums divides between operands, its formula for
linear maps goes through each.

Gates receive, since their change has its share like any other. What a normaliser's statistic did is booked as `held`:
every mode holds statistics constant, here at what they are after the change. (At what they were, a path that starts
where a norm divides by almost nothing would begin with a leap there and back.)

`changes` has what changed and the two ways to share it, `formulas` the kinds, `attention` what goes through a softmax.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MappingProxyType
from typing import Any

from dlb_core.kernel.call import Shares
from dlb_core.kernel.composites import AnyMode, BoundComposite
from dlb_core.kernel.differences.attention import attention, softmax
from dlb_core.kernel.differences.changes import HELD, OfDifferences
from dlb_core.kernel.differences.formulas import FORMULAS
from dlb_core.kernel.modes import Formula

__all__ = ["HELD", "OfDifferences", "of_differences"]

_RUNS: dict[str, Callable[[Any, Any, Any], Shares]] = {**FORMULAS, "softmax": softmax, "attention": attention}
_FORMULAS = {name: Formula(run) for name, run in _RUNS.items()}


def of_differences(mode: AnyMode, factor: float = 1.0) -> AnyMode:
    """The mode that takes relevance through changes as `mode` takes it through values.

    factor: changes count this many times, so that beside the changes on one of `factor` pieces of a path a stabiliser
    is as small as it is beside values.
    """
    if isinstance(mode, BoundComposite):
        parts = tuple((part, OfDifferences(each, factor, _FORMULAS)) for part, each in mode.parts)
        return BoundComposite(mode.composite, parts, MappingProxyType(dict(mode.options)))
    return OfDifferences(mode, factor, _FORMULAS)
