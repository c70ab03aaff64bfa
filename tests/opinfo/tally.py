"""Counts what a replay saw, and prints it."""

from __future__ import annotations

import textwrap
import traceback
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from dlb_core.table import Table

from .recorder import Recorded

TOP = 40  # how many overloads without a row are listed


@dataclass
class Tally:
    """Operators, samples, calls, and what became of the calls."""

    counts: Counter[str] = field(default_factory=Counter)
    overloads: Counter[str] = field(default_factory=Counter)  # calls by overload with a row
    without_row: dict[str, set[tuple[str, int]]] = field(default_factory=dict)  # overload -> samples
    refused: Counter[tuple[str, str]] = field(default_factory=Counter)
    unrecorded: Counter[tuple[str, str]] = field(default_factory=Counter)
    failures: dict[tuple[str, str], list[str]] = field(default_factory=dict)  # overload, error -> where, first in full

    def fail(self, call: Recorded, where: str, error: Exception) -> None:
        """Keeps a failure; the first of its sort with arguments and traceback."""
        self.counts["failures"] += 1
        same = self.failures.setdefault((str(call.op), type(error).__name__), [])
        if not same:
            last = "".join(traceback.format_exception(error)[-3:])
            where = f"{where}\n{_described(call)}\n{textwrap.indent(last, '    ')}"
        same.append(where)

    def __str__(self) -> str:
        parts = [self._failures(), self._without_row(), self._sorted("refused", self.refused)]
        parts += [self._sorted("samples that torch itself does not run here", self.unrecorded), self._summary()]
        return "\n\n".join(part for part in parts if part)

    def _summary(self) -> str:
        rows = [(name, self.counts[name]) for name in ("operators", "operators without a gap", "samples", "calls")]
        rows += [
            ("overloads with a row", len(self.overloads)),
            ("overloads without a row", len(self.without_row)),
            ("calls held to their row", self.counts["held"]),
            ("calls of overloads without a row", self.counts["without row"]),
            *((f"calls left out: {why[5:]}", n) for why, n in sorted(self.counts.items()) if why.startswith("left ")),
            ("calls refused by their row", sum(self.refused.values())),
            ("failures", self.counts["failures"]),
        ]
        return str(Table(("", "count"), rows))

    def _without_row(self) -> str:
        most = sorted(self.without_row.items(), key=lambda item: (-len(item[1]), item[0]))
        rows = [(op, len(samples), ", ".join(sorted({name for name, _ in samples})[:3])) for op, samples in most[:TOP]]
        more = f" (the first {TOP} of {len(most)})" if len(most) > TOP else ""
        return str(Table(("overload", "samples", "in"), rows, title=f"without a row{more}")) if rows else ""

    def _sorted(self, title: str, found: Counter[tuple[str, str]]) -> str:
        rows = [(what, n, text.partition("\n")[0]) for (what, text), n in found.most_common()]
        return str(Table(("what", "count", "text"), rows, title=title)) if rows else ""

    def _failures(self) -> str:
        return "\n".join(
            f"FAILED {op}: {error}, {len(where)} calls; the first in {where[0]}"
            for (op, error), where in self.failures.items()
        )


def _described(call: Recorded) -> str:
    def one(value: Any) -> str:
        if isinstance(value, Tensor):
            return f"{value.dtype} {tuple(value.shape)} strides {value.stride()}"
        if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
            return f"[{', '.join(map(one, value))}]"
        return repr(value)

    return "\n".join(f"    {name} = {one(value)}" for name, value in call.arguments.items())
