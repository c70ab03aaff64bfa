"""The ledger: what came in and what went out, at every node and between the ends."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from dlb_core.table import Table


@dataclass(frozen=True)
class NodeEntry:
    """The books of one node: units in, units out to other nodes, units booked, and the sum of |R| involved.

    edges: where the units went, by node (an input by its own name). shape: of the node's value; of each of several
    values.
    """

    name: str
    op: str
    modules: tuple[str, ...]  # the paths of the modules around it, outermost first
    rule: str
    pack: str
    into: float
    out: float
    accounts: Mapping[str, float]
    scale: float
    tolerance: float = 1e-5
    edges: Mapping[str, float] = field(default_factory=dict)
    shape: tuple[Any, ...] = ()

    @property
    def module(self) -> str:
        """The path of the innermost module around the node; empty at the top."""
        return self.modules[-1] if self.modules else ""

    @property
    def booked(self) -> float:
        """Units that went into accounts here."""
        return math.fsum(self.accounts.values())

    @property
    def residual(self) -> float:
        """Units in, less units out, less units booked: rounding, when all is well."""
        return self.into - self.out - self.booked


@dataclass(frozen=True, repr=False)
class Ledger:
    """Where the seed went, to the last unit; summed over the batch.

    seed: units at the output. inputs: units by input name. accounts: units by account (``bias:<parameter>``,
    ``constant:<parameter or node>``, ``stabiliser``, ...). In signed modes units carry signs.
    """

    seed: float
    inputs: Mapping[str, float]
    accounts: Mapping[str, float]
    scale: float
    input_scale: float
    seed_scale: float
    tolerance: float
    by_node: Mapping[str, NodeEntry] = field(default_factory=dict)
    seeded: Mapping[str, float] = field(default_factory=dict)

    @property
    def residual(self) -> float:
        """seed - inputs - accounts: rounding, when all is well."""
        return self.seed - math.fsum(self.inputs.values()) - math.fsum(self.accounts.values())

    @property
    def gain(self) -> float:
        """Sum of |R| at the inputs over the sum of |seed|: how much cancels in a signed mode."""
        return self.input_scale / self.seed_scale if self.seed_scale else 0.0

    def table(self) -> Table:
        """Account, units, share of the seed in per cent; inputs first, then sinks by size, then the residual."""
        rows: list[tuple[Any, ...]] = [(f"input:{n}", u, self.share(u)) for n, u in self.inputs.items()]
        sinks = sorted(((n, u) for n, u in self.accounts.items() if u != 0), key=lambda item: -abs(item[1]))
        rows += [(name, units, self.share(units)) for name, units in sinks]
        rows.append(("residual (rounding)", self.residual, self.share(self.residual)))
        rows.append(("= seed", self.seed, self.share(self.seed)))
        return Table(("account", "units", "share %"), rows, title="ledger (units with signs; shares of the seed)")

    def node_table(self) -> Table:
        """Node, units in, out, booked, residual, in the order relevance flowed."""
        rows = [(e.name, e.op, e.into, e.out, e.booked, e.residual, e.module) for e in self.by_node.values()]
        return Table(("node", "op", "in", "out", "booked", "residual", "module"), rows)

    def by_module(self) -> dict[str, dict[str, float]]:
        """Module path -> units in, out and booked; booked over leaf modules + inputs = seed.

        The relevance that enters a module comes from outside it (or is its seed); what leaves goes outside. A node
        counts for every module around it. Nodes of no module are listed under the empty path; nodes that lie in a
        module beside its submodules, under ``path.(ops)``, so that the leaves hold every node once.
        """
        books: dict[str, dict[str, float]] = {}
        containers = {path for entry in self.by_node.values() for path in entry.modules[:-1]}
        inside = {name: _around(entry.modules, containers) for name, entry in self.by_node.items()}
        for name, units in self.seeded.items():
            for path in inside.get(name, ()):
                _add(books, path, "in", units)
        for name, entry in self.by_node.items():
            for path in inside[name]:
                _add(books, path, "booked", entry.booked)
            for other, units in entry.edges.items():
                here, there = set(inside[name]), set(inside.get(other, ()))
                for path in here - there:
                    _add(books, path, "out", units)
                for path in there - here:
                    _add(books, path, "in", units)
        return books

    def check(self) -> list[NodeEntry]:
        """The nodes whose residual is beyond the tolerance, in the order relevance flowed."""
        return [e for e in self.by_node.values() if not abs(e.residual) <= e.tolerance * e.scale]

    def share(self, units: float) -> float:
        """Per cent of the seed; where it has both signs and adds up to nothing, of its size."""
        whole = self.seed if self.sums else self.seed_scale
        return 100 * units / whole if whole else 0.0

    @property
    def sums(self) -> bool:
        """Does the seed add up to something, or do its signs cancel?"""
        return abs(self.seed) > 1e-6 * self.seed_scale

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {units:.6g}" for name, units in self.inputs.items())
        accounts = math.fsum(self.accounts.values())
        return f"Ledger(seed {self.seed:.6g} = {inputs} + accounts {accounts:.6g} + residual {self.residual:.1e})"


def _around(modules: tuple[str, ...], containers: set[str]) -> tuple[str, ...]:
    """The modules around a node, and the line of a container's own ops."""
    if not modules:
        return ("",)
    return (*modules, f"{modules[-1]}.(ops)") if modules[-1] in containers else modules


def _add(books: dict[str, dict[str, float]], path: str, side: str, units: float) -> None:
    books.setdefault(path, {"in": 0.0, "out": 0.0, "booked": 0.0})[side] += units
