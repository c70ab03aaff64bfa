"""The ledger as a column of numbers on a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from dlb_core.ledger_lines import RESIDUAL, Line
from dlb_core.table import aligned


def units_text(lines: Sequence[Line], seed: float) -> list[str]:
    """The units of all lines and of the seed, to be read in one column; the residual by its order of magnitude."""
    texts = aligned([*(0.0 if line.account == RESIDUAL else line.units for line in lines), seed], digits=5)
    return [f"{lines[i].units:.1e}" if lines[i:] and lines[i].account == RESIDUAL else t for i, t in enumerate(texts)]
