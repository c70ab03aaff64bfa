"""A small printable table: columns, rows, numbers to the right."""

from __future__ import annotations

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


def _text(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    return "" if value is None else str(value)
