"""Arguments for every row: a `Case` names an op, makes its arguments, and says who may receive."""

from __future__ import annotations

from ..case import Case
from . import (
    accumulating,
    assembling,
    complex_numbers,
    curves,
    functions,
    linear_maps,
    losses,
    moves,
    picks,
    pointwise,
    sampling,
    weighted,
    winners,
    writes,
    written,
)

FAMILIES = (
    *(linear_maps, accumulating, pointwise, functions, moves, picks, winners, assembling),
    *(writes, sampling, complex_numbers, weighted, written, losses, curves),
)
CASES: list[Case] = [case for family in FAMILIES for case in family.CASES]
