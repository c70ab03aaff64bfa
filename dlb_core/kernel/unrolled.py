"""Ops that run one cell again and again: the cell is written with other ops, bound once, and walked back step by step.

A recurrent op over many time steps would be thousands of nodes if its steps stood in the graph, and their number would
be fixed. So its node stays whole; its cell becomes a small plan of its own in the same mode.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dlb_core.kernel.books import Books
from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.facts import note_activity
from dlb_core.kernel.kinds import Row, Site, one_by_one
from dlb_core.kernel.layout import lay_out
from dlb_core.kernel.modes import Formula
from dlb_core.kernel.plan import build_plan
from dlb_core.kernel.program import Input, Program
from dlb_core.kernel.run import Activations, run_forward, run_relevance
from dlb_core.kernel.written import expand, write


class Cell:
    """A function written with other ops, bound to a mode; `active` names the arguments that receive relevance."""

    def __init__(
        self, written: Callable[..., Any], example: Mapping[str, Any], active: Iterable[str], site: Site
    ) -> None:
        self.active = frozenset(active)
        graph = fx.Graph()

        def placeholder(name: str, value: Any) -> Any:
            if not isinstance(value, Tensor):
                return value
            node = graph.placeholder(name)
            node.meta["val"] = value.to("meta", site.dtype)
            return node

        self._nodes = {name: placeholder(name, value) for name, value in example.items()}
        out = write(graph, written, self._nodes, {})
        outputs = tuple(out) if isinstance(out, (tuple, list)) else (out,)
        inputs = tuple(
            Input(name, node, tuple(node.meta["val"].shape), site.dtype)
            for name, node in self._nodes.items()
            if isinstance(node, fx.Node)
        )
        spec = pytree.tree_structure(((), {}))
        program = Program(graph, inputs, spec, None, {}, outputs, ("",) * len(outputs), None, device=site.device)
        expand(program, site.registry)
        note_activity(program, site.registry, self.active)
        for each in site.registry.passes:
            if each.phase == "facts":
                each.run(program, site.registry)
        self._layout = lay_out(program, site.registry)
        self._plan = build_plan(self._layout, site.registry, site.mode, program.outputs, site.dtype)

    def __call__(self, arguments: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], Callable[..., Shares]]:
        """The cell's outputs for tensors by argument name, and the way back from relevance of those outputs."""
        return self.way_back(self.forward(arguments, self._plan.reads))

    def forward(self, arguments: Mapping[str, Any], keep: frozenset[int] | None = None) -> Activations:
        """The cell's values for tensors by argument name; `keep` names those that stay (None: all)."""
        inputs = {node: arguments[name] for name, node in self._nodes.items() if isinstance(node, fx.Node)}
        return run_forward(self._layout, inputs, keep)

    def way_back(
        self, done: Activations, before: Activations | None = None
    ) -> tuple[tuple[Tensor, ...], Callable[..., Shares]]:
        """The outputs, and the way back from their relevance; `before`: the cell's values one point earlier."""

        def back(*relevance: Tensor) -> Shares:
            slots = self._layout.slots
            seeds: dict[int, Tensor] = {}
            for node, r in zip(self._layout.program.outputs, relevance, strict=True):
                slot = slots[node.name]
                seeds[slot] = seeds[slot] + r if slot in seeds else r
            receives = {name: slots[self._nodes[name].name] for name in self.active}
            accounts = _Accounts()
            kept = run_relevance(
                self._plan, done, seeds, keep=frozenset(receives.values()), books=accounts, before=before
            )
            return Shares({name: kept[slot] for name, slot in receives.items() if slot in kept}, accounts.amounts)

        return tuple(done.outputs), back


class _Accounts(Books):
    """Books that only add up what was put into accounts."""

    def __init__(self) -> None:
        super().__init__(detail=False)
        self.amounts: dict[str, Tensor] = {}

    def relevance(self, kind: Any, slot: int, value: Any, other: int = -1) -> None:
        pass

    def booked(self, slot: int, account: str, amount: Tensor) -> None:
        units = amount.sum()
        self.amounts[account] = self.amounts[account] + units if account in self.amounts else units


@dataclass(frozen=True)
class Cells:
    """The cells of one node, by which of their arguments receive."""

    by_active: Mapping[frozenset[str], Cell]

    def __getitem__(self, active: Iterable[str]) -> Any:
        return self.by_active[frozenset(active)]


@dataclass(frozen=True)
class _Recorded(Cells):
    """Cells whose values are written down, step by step; nothing goes back through them."""

    record: list[Activations]

    def __getitem__(self, active: Iterable[str]) -> Any:
        cell = super().__getitem__(active)

        def run(arguments: Mapping[str, Any]) -> tuple[tuple[Tensor, ...], Callable[..., Shares]]:
            self.record.append(cell.forward(arguments))
            return tuple(self.record[-1].outputs), lambda *relevance: Shares({})

        return run


@dataclass(frozen=True)
class _Compared(Cells):
    """Cells whose steps look at what was written down of the same steps one point earlier."""

    record: Iterator[Activations]

    def __getitem__(self, active: Iterable[str]) -> Any:
        cell = super().__getitem__(active)
        return lambda arguments: cell.way_back(cell.forward(arguments), next(self.record))


def _walk_back(view: tuple[Unrolled, Call], r: Any, mode: Any) -> Shares:
    """Every step of the cell, last first, in the same mode."""
    row, call = view
    assert row.cells is not None
    if call.before is None:
        return row.back(r, call, row.cells)
    record: list[Activations] = []
    row.back(r, call.before, _Recorded(row.cells.by_active, record))
    return row.back(r, call, _Compared(row.cells.by_active, iter(record)))


@dataclass(frozen=True, kw_only=True)
class Unrolled(Row):
    """An op that repeats a cell: `back(r, call, cells)` walks its steps.

    `cell`: the step in ordinary torch code; `example(bound)`: small tensors for its arguments, by name, for a call with
    these arguments (sizes do not matter, None where the call has none); `activities(receivers)`: the sets of cell
    arguments that receive, one cell each.
    """

    kind: ClassVar[str] = "compound"
    default_formula: ClassVar[Formula | None] = Formula(_walk_back, reads=("x",))
    x: tuple[str, ...]
    cell: Callable[..., Any]
    example: Callable[[Mapping[str, Any]], Mapping[str, Any]]
    activities: Callable[[frozenset[str]], Sequence[frozenset[str]]]
    back: Callable[[Any, Call, Cells], Shares]
    cells: Cells | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def runs(self, target: Callable[..., Any]) -> Callable[..., Any]:
        return one_by_one(super().runs(target))

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        return self.default_formula

    def narrow(self, site: Site) -> Row:
        example = self.example(site.bound)
        sets = {frozenset(active) for active in self.activities(site.receivers)}
        made = {active: Cell(self.cell, example, active, site) for active in sets}
        return dataclasses.replace(self, cells=Cells(made))

    def view(self, call: Call) -> tuple[Unrolled, Call]:
        return self, call
