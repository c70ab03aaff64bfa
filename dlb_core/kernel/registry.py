"""The registry: every row, mode and pass that the packs brought, as dictionaries."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import fx, nn

from dlb_core.kernel.composites import AnyMode, Composite, as_a_whole
from dlb_core.kernel.kinds import OpRule, Row
from dlb_core.kernel.modes import Mode
from dlb_core.kernel.ops import bound_arguments, family_name, op_name, tensor_arguments


class GraphPass(Protocol):
    """A rewrite of the graph, or a reading of it that leaves facts on nodes."""

    name: str
    order: int
    phase: str  # "rewrite" changes the graph; "facts" runs after it is known what is active
    switch: str | None  # the façade's argument that turns it off ("fold"), None: it always runs

    def run(self, program: Any, registry: Registry) -> list[str]:
        """Changes the program in place and says in one line each what it did."""


@dataclass(frozen=True)
class Pack:
    """A loaded or failed pack, as `dlb plugins` shows it."""

    name: str
    version: str
    origin: str
    status: str  # "loaded", "failed", "off"
    reason: str = ""
    n_rows: int = 0
    n_modes: int = 0
    n_passes: int = 0


#: What a pack changes about a model while torch.export traces it: `lend(model)` is a context manager.
Lend = Callable[[nn.Module], AbstractContextManager[None]]

RowKey = tuple[str, str | None, tuple[torch.dtype, ...] | None, tuple[str, ...] | None]


def row_key(row: Row) -> RowKey:
    """What two rows must share to be rivals."""
    return row.op, row.device, row.dtypes, row.modes


@dataclass
class Registry:
    """Rows by op, modes by name, passes in order; built once, then read only."""

    rows: dict[str, list[Row]] = field(default_factory=dict)
    modes: dict[str, Mode | Composite] = field(default_factory=dict)
    passes: list[GraphPass] = field(default_factory=list)
    packs: list[Pack] = field(default_factory=list)
    lends: list[Lend] = field(default_factory=list)
    _found: dict[tuple[Any, ...], Row | None] = field(default_factory=dict, repr=False)

    def extended(self, rows: Iterable[Row]) -> Registry:
        """A registry of its own with more rows; one for the same op is replaced."""
        more = list(rows)
        mine = {op: [r for r in known if all(r.op != m.op for m in more)] for op, known in self.rows.items()}
        for row in more:
            mine.setdefault(row.op, []).append(row)
        return Registry(mine, self.modes, self.passes, self.packs, self.lends)

    def add_rows(self, rows: Iterable[Row]) -> None:
        """Adds rows that were checked for clashes; a row that `replaces` a pack's row takes its place."""
        for row in rows:
            rivals = self.rows.setdefault(row.op, [])
            same = [r for r in rivals if row_key(r) == row_key(row)]
            if any(r.replaces == row.pack for r in same):
                continue  # the winner came first
            rivals[:] = [r for r in rivals if r not in same or row.replaces != r.pack]
            rivals.append(row)
        self._found.clear()

    def find(
        self, target: Any, mode: str | None = None, device: str | None = None, dtype: torch.dtype | None = None
    ) -> Row | None:
        """The most specific row for an op: exact overload, then mode, device and dtype of its own.

        What is None is not asked about: any row will do there, one for all of them first.
        """
        if hasattr(target, "dlb_op"):  # a layer belongs to one program: it is not kept here
            return self._find(target, mode, device, dtype)
        key = (target, mode, device, dtype)
        if key not in self._found:
            self._found[key] = self._find(*key)
        return self._found[key]

    def row_at(self, node: fx.Node) -> Row | None:
        """The row of a node, for its arguments and whatever the mode, device and dtype."""
        row = self.find(node.target) if node.op == "call_function" else None
        return None if row is None else row.at(bound_arguments(node))

    def _find(self, target: Any, mode: str | None, device: str | None, dtype: torch.dtype | None) -> Row | None:
        name = op_name(target)
        rows = [*self.rows.get(name, ())]
        if (family := family_name(name)) != name:
            rows += self.rows.get(family, ())
        fitting = [
            row
            for row in rows
            if (row.modes is None or mode is None or mode in row.modes)
            and (row.device is None or device is None or row.device == device)
            and (row.dtypes is None or dtype is None or dtype in row.dtypes)
        ]
        if not fitting:
            return None

        def fit(row: Row) -> tuple[bool, ...]:
            asked = ((row.modes, mode), (row.device, device), (row.dtypes, dtype))
            return (*((mine is not None) == (wanted is not None) for mine, wanted in asked), row.op == name)

        best: Row = max(fitting, key=fit)
        if getattr(best, "x", None) == ():  # the author named no operand
            names = tensor_arguments(target)
            operands: Any = {"x": names if isinstance(best, OpRule) else names[:1]}
            best = dataclasses.replace(best, **operands)
        return best

    def bind(self, mode: str | Mode | Composite, **options: Any) -> AnyMode:
        """A mode (its name, or one of the caller's own) with its options settled. Raises ValueError."""
        found = self.mode(mode) if isinstance(mode, str) else mode
        if isinstance(found, Mode):
            found = as_a_whole(found)
        if isinstance(found, Composite):
            return found.bind(self.mode, **options)
        if not isinstance(found, Mode):
            raise ValueError(f"mode={mode!r}: give the name of a mode, a Mode or a Composite")
        return found.bind(**options)

    def mode(self, name: str) -> Mode | Composite:
        """The mode of that name, or a ValueError that lists them."""
        if name not in self.modes:
            choices = ", ".join(sorted(self.modes)) or "none (no pack is loaded)"
            raise ValueError(f"unknown mode {name!r}; the modes are: auto, {choices}")
        return self.modes[name]

    def recommended(self, family: str) -> Mode | Composite:
        """The mode that `mode="auto"` takes for a family: of the first pack that brings one for it, else `default`."""
        return next((mode for mode in self.modes.values() if family in mode.suits), self.mode("default"))

    @property
    def failed(self) -> list[str]:
        """One line for each pack that failed."""
        return [f"{p.name}: {p.reason}" for p in self.packs if p.status == "failed"]

    @property
    def loaded(self) -> list[str]:
        """The names of the packs in use."""
        return [p.name for p in self.packs if p.status == "loaded"]


def clashes(rows_by_pack: Mapping[str, Iterable[Row]]) -> dict[str, list[str]]:
    """Pack -> complaints: rows that two packs bring without saying which one replaces the other.

    A row for one overload and a row for all of them are rivals too when they come from different packs.
    """
    groups: dict[tuple[Any, ...], list[Row]] = {}
    for rows in rows_by_pack.values():
        for row in rows:
            groups.setdefault((family_name(row.op), *row_key(row)[1:]), []).append(row)
    complaints: dict[str, list[str]] = {}
    for (family, *_), rivals in groups.items():
        for row in rivals:
            same = [r for r in rivals if r is not row and r.op == row.op and r.pack == row.pack]
            others = [r for r in rivals if r.pack != row.pack and (r.op == row.op or family in (r.op, row.op))]
            open_ = sorted({r.pack for r in others if row.replaces != r.pack and r.replaces != row.pack})
            if same:
                complaints.setdefault(row.pack, []).append(f"brings two rows for {row.op}")
            elif open_:
                complaints.setdefault(row.pack, []).append(
                    f"has a row for {row.op}, and so has {', '.join(open_)}; "
                    f"say replaces={open_[0]!r} on the row that is to win"
                )
    return complaints
