"""A small printable table: columns, rows, numbers to the right; and numbers that line up."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Table:
    """Rows under named columns. `str(table)` is aligned text; `records()` is the data."""

    columns: tuple[str, ...]
    rows: Sequence[tuple[Any, ...]]
    title: str = ""

    def records(self) -> list[dict[str, Any]]:
        """One dictionary per row."""
        return [dict(zip(self.columns, row, strict=True)) for row in self.rows]

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return iter(self.rows)

    def __len__(self) -> int:
        return len(self.rows)

    def __str__(self) -> str:
        cells = [[_text(value) for value in row] for row in self.rows]
        widths = [max(map(len, column)) for column in zip(self.columns, *cells, strict=True)]
        right = [all(isinstance(row[i], (int, float)) for row in self.rows) for i in range(len(self.columns))]

        def line(texts: Sequence[str]) -> str:
            parts = (t.rjust(w) if r else t.ljust(w) for t, w, r in zip(texts, widths, right, strict=True))
            return "  ".join(parts).rstrip()

        ruler = "  ".join("-" * width for width in widths)
        head = [self.title] if self.title else []
        return "\n".join([*head, line(self.columns), ruler, *map(line, cells)])


def aligned(values: Sequence[Any], *, digits: int = 4, sign: str = "") -> list[str]:
    """Numbers of one column with the same number of decimals: `digits` significant ones for the largest.

    Integers stay as they are; `sign="+"` writes both signs.
    """
    sizes = [abs(value) for value in values if isinstance(value, float) and math.isfinite(value)]
    largest = max(sizes, default=0.0)
    decimals = 0 if largest == 0 else max(0, min(15, digits - 1 - math.floor(math.log10(largest))))

    def text(value: Any) -> str:
        if not isinstance(value, float):
            return str(value)
        return f"{round(value, decimals) + 0.0:{sign}.{decimals}f}"  # + 0.0: no minus before a zero

    return [text(value) for value in values]


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
