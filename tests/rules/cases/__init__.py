"""Arguments for every row: a `Case` names an op, makes its arguments, and says who may receive."""

from __future__ import annotations

from ..case import Case
from . import linear_maps, moves, picks, pointwise, weighted, written

CASES: list[Case] = [*linear_maps.CASES, *pointwise.CASES, *moves.CASES, *picks.CASES, *weighted.CASES, *written.CASES]
