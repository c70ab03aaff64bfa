"""The ledger: what came in and what went out, at every node and between the ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from dlb_core.errors import ConservationError, NonFiniteError
from dlb_core.kernel.books import Entry
from dlb_core.table import Table

#: allowed |in - out| per unit of sum |R| at a node
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}
CHECKS = ("raise", "warn", "ends", "off")


@dataclass(frozen=True)
class NodeEntry:
    """The books of one node: units in, units out to other nodes, units booked, and the sum of |R| involved."""

    name: str
    op: str
    module: str
    rule: str
    pack: str
    into: float
    out: float
    accounts: Mapping[str, float]
    scale: float
    edges: Mapping[str, float] = field(default_factory=dict)

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
        rows: list[tuple[Any, ...]] = [(f"input:{n}", u, self._share(u)) for n, u in self.inputs.items()]
        sinks = sorted(((n, u) for n, u in self.accounts.items() if u != 0), key=lambda item: -abs(item[1]))
        rows += [(name, units, self._share(units)) for name, units in sinks]
        rows.append(("residual (rounding)", self.residual, self._share(self.residual)))
        rows.append(("= seed", self.seed, self._share(self.seed)))
        return Table(("account", "units", "share %"), rows, title="ledger (units with signs; shares of the seed)")

    def node_table(self) -> Table:
        """Node, units in, out, booked, residual, in the order relevance flowed."""
        rows = [(e.name, e.op, e.into, e.out, e.booked, e.residual, e.module) for e in self.by_node.values()]
        return Table(("node", "op", "in", "out", "booked", "residual", "module"), rows)

    def by_module(self) -> dict[str, dict[str, float]]:
        """Module path -> units in, out and booked; booked over leaf modules + inputs = seed.

        The relevance that enters a module comes from outside it (or is its seed); what leaves goes outside.
        Nodes of no module are listed under the empty path; a node counts for every module around it.
        """
        books: dict[str, dict[str, float]] = {}
        inside = {name: _around(entry.module) for name, entry in self.by_node.items()}
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
        return [e for e in self.by_node.values() if not abs(e.residual) <= self.tolerance * e.scale]

    def _share(self, units: float) -> float:
        return 100 * units / self.seed if self.seed else 0.0

    def __str__(self) -> str:
        return str(self.table())

    def __repr__(self) -> str:
        inputs = ", ".join(f"{name} {units:.6g}" for name, units in self.inputs.items())
        accounts = math.fsum(self.accounts.values())
        return f"Ledger(seed {self.seed:.6g} = {inputs} + accounts {accounts:.6g} + residual {self.residual:.1e})"


def _around(module: str) -> list[str]:
    """A module path and all its parents, the top (empty path) only for nodes outside every module."""
    if not module:
        return [""]
    parts = module.split(".")
    return [".".join(parts[:i]) for i in range(1, len(parts) + 1)]


def _add(books: dict[str, dict[str, float]], path: str, side: str, units: float) -> None:
    books.setdefault(path, {"in": 0.0, "out": 0.0, "booked": 0.0})[side] += units


@dataclass
class _NodeSums:
    into: float = 0.0
    into_scale: float = 0.0
    out: float = 0.0
    out_scale: float = 0.0
    accounts: dict[str, float] = field(default_factory=dict)
    edges: dict[int, float] = field(default_factory=dict)


def settle(
    entries: Sequence[Entry],
    sums: Sequence[float],
    steps: Sequence[Any],
    names: Sequence[str],
    dtype: torch.dtype,
    input_names: Mapping[str, str],
) -> Ledger:
    """The ledger of one seed from the sums of its pass; `steps` are the plan's, `names` the nodes' by slot."""
    nodes: dict[int, _NodeSums] = {}
    seeded: dict[int, float] = {}
    inputs: dict[str, float] = {}
    accounts: dict[str, float] = {}
    input_scale = seed_scale = 0.0
    position = 0
    for entry in entries:
        value = sums[position]
        size = sums[position + 1] if entry.scaled else abs(value)
        position += 2 if entry.scaled else 1
        node = nodes.setdefault(entry.slot, _NodeSums()) if entry.kind in ("in", "out", "account") else _NodeSums()
        if entry.kind == "in":
            node.into += value
            node.into_scale += size
        elif entry.kind == "out":
            node.out += value
            node.out_scale += size
            node.edges[entry.other] = node.edges.get(entry.other, 0.0) + value
        elif entry.kind == "account":
            node.accounts[entry.account] = node.accounts.get(entry.account, 0.0) + value
            node.out_scale += size
            accounts[entry.account] = accounts.get(entry.account, 0.0) + value
        elif entry.kind == "seed":
            seeded[entry.slot] = seeded.get(entry.slot, 0.0) + value
            seed_scale += size
        else:
            name = input_names.get(names[entry.slot], names[entry.slot])
            inputs[name] = inputs.get(name, 0.0) + value
            input_scale += size
    by_node = {}
    for step in steps:
        found = nodes.get(step.slot)
        if found is not None:
            by_node[names[step.slot]] = _entry(step, found, names)
    scales = [seed_scale, input_scale, *(e.scale for e in by_node.values())]
    return Ledger(
        seed=math.fsum(seeded.values()),
        inputs=inputs,
        accounts=accounts,
        scale=max(scales),
        input_scale=input_scale,
        seed_scale=seed_scale,
        tolerance=TOLERANCE.get(dtype, TOLERANCE[torch.float32]),
        by_node=by_node,
        seeded={names[slot]: units for slot, units in seeded.items()},
    )


def _entry(step: Any, sums: _NodeSums, names: Sequence[str]) -> NodeEntry:
    from dlb_core.kernel.ops import module_path, op_name

    return NodeEntry(
        name=names[step.slot],
        op=op_name(step.node.target),
        module=module_path(step.node),
        rule=step.row.kind,
        pack=step.row.pack,
        into=sums.into,
        out=sums.out,
        accounts=sums.accounts,
        scale=sums.into_scale + sums.out_scale,
        edges={names[slot]: units for slot, units in sums.edges.items()},
    )


def raise_on_loss(ledger: Ledger, *, nodes: bool) -> None:
    """Raises `NonFiniteError` or `ConservationError` when the books do not close; `nodes=False`: only the ends."""
    for entry in ledger.by_node.values():
        if math.isfinite(entry.into) and not math.isfinite(entry.out + entry.booked):
            raise NonFiniteError(f"relevance became NaN or infinite at {_at(entry)}. {_ADVICE}")
    if not math.isfinite(ledger.seed):
        raise NonFiniteError("the seed is NaN or infinite: look at the model's output (dlb.predict) for this input")
    if not math.isfinite(ledger.residual):
        raise NonFiniteError(f"relevance became NaN or infinite on its way to the inputs. {_ADVICE}")
    if nodes and (bad := ledger.check()):
        entry = bad[0]
        accounts = ", ".join(f"{n} {u:.6g}" for n, u in entry.accounts.items()) or "none"
        raise ConservationError(
            f"relevance is not conserved at {_at(entry)}: in {entry.into:.9g}, out {entry.out:.9g}, "
            f"accounts: {accounts}; lost {entry.residual:.3g} of {entry.scale:.6g} "
            f"(allowed {ledger.tolerance * entry.scale:.3g}); "
            f"{len(bad)} node(s) in all. If the rule is right, rounding is the cause: "
            "try relevance_dtype=torch.float64."
        )
    allowed = ledger.tolerance * ledger.scale * max(1.0, math.sqrt(len(ledger.by_node)))
    if abs(ledger.residual) > allowed:
        raise ConservationError(
            f"the ends do not meet: seed {ledger.seed:.9g}, inputs {math.fsum(ledger.inputs.values()):.9g}, accounts "
            f"{math.fsum(ledger.accounts.values()):.9g}; residual {ledger.residual:.3g} (allowed {allowed:.3g}). "
            f'Run with check="raise" to see the node.'
        )


_ADVICE = "Look at this node's inputs with dlb.predict; relevance_dtype=torch.float64 or a larger eps= may help."


def _at(entry: NodeEntry) -> str:
    where = f" in module {entry.module!r}" if entry.module else ""
    return f"node {entry.name!r} ({entry.op}, kind {entry.rule}, pack {entry.pack}){where}"
