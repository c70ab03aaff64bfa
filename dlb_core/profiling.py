"""Where the time of an explanation goes: by node, kind, module and pass."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Any

from dlb_core.choices import choose
from dlb_core.kernel.clock import Tick, timed
from dlb_core.kernel.ops import module_path, op_name
from dlb_core.table import Table

BY = ("node", "kind", "op", "module", "pass")
SORTS = ("total", "forward", "relevance", "made", "order")
TOP = 12  # rows of each table in `str(profile)`


@dataclass
class Profile:
    """What the steps of one or several passes took, in the order in which they ran.

    seconds: of everything, with what lies between the steps. `table(by)` sums up; `ticks` are the steps themselves.
    Times are of this run alone: the first run of a mode also builds its plan, and a busy machine is slower.
    """

    ticks: Sequence[Tick] = ()
    seconds: float = 0.0

    def table(self, by: str = "node", *, sort: str = "total", top: int | None = None) -> Table:
        """Milliseconds and MiB by node, kind, op, module or pass; the last row is what lies between the steps.

        by: "node", "kind" (of the rule; forward: of the op), "op", "module" (each counts for
        every module around it) or "pass". sort: by "total", "forward", "relevance" time, by "made"
        (bytes of what the steps returned), or in "order". top: only so many rows. Raises ValueError for other words.
        """
        choose("by", by, BY)
        choose("sort", sort, SORTS)
        if top is not None and top < 1:
            raise ValueError(f"top={top}: must be at least 1")
        sums: dict[str, list[float]] = {}
        for tick in self.ticks:
            for name in _NAMES[by](tick):
                row = sums.setdefault(name, [0, 0.0, 0.0, 0])
                row[0] += 1
                row[1 if tick.during == "forward" else 2] += tick.seconds
                row[3] += tick.made
        rows: list[tuple[Any, ...]] = [
            (name, int(n), 1e3 * f, 1e3 * r, 1e3 * (f + r), self._share(f + r), m / 2**20)
            for name, (n, f, r, m) in sums.items()
        ]
        if sort != "order":
            column = {"total": 4, "forward": 2, "relevance": 3, "made": 6}[sort]
            rows.sort(key=lambda row: row[column], reverse=True)
        shown = rows if top is None else rows[:top]
        between = self.seconds - sum(tick.seconds for tick in self.ticks)
        shown.append(("(between the steps)", 0, 0.0, 0.0, 1e3 * between, self._share(between), 0.0))
        columns = (by, "steps", "forward ms", "relevance ms", "total ms", "share %", "made MiB")
        return Table(columns, shown, title=f"{1e3 * self.seconds:.4g} ms by {by}")

    def _share(self, seconds: float) -> float:
        return 100 * seconds / self.seconds if self.seconds else 0.0

    def __str__(self) -> str:
        return f"{self.table('kind', top=TOP)}\n\n{self.table('node', top=TOP)}"


@contextmanager
def profiled() -> Iterator[Profile]:
    """Times all steps that run inside; the profile is filled when the block ends."""
    profile = Profile()
    start = perf_counter()
    with timed() as clock:
        try:
            yield profile
        finally:
            profile.ticks = tuple(clock.ticks)
            profile.seconds = perf_counter() - start


def _modules(tick: Tick) -> list[str]:
    path = module_path(tick.node)
    parts = path.split(".")
    return [".".join(parts[: i + 1]) for i in range(len(parts))] if path else [""]


_NAMES: dict[str, Callable[[Tick], list[str]]] = {
    "node": lambda tick: [tick.node.name],
    "kind": lambda tick: [tick.kind],
    "op": lambda tick: [op_name(tick.node.target)],
    "module": _modules,
    "pass": lambda tick: [tick.during],
}
