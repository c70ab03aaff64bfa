"""Settling: from the sums of a pass to a ledger, and the verdict on it."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import fx

from dlb_core.errors import ConservationError, NonFiniteError
from dlb_core.kernel.books import Entry
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.kernel.ops import fake_tensors, module_chain, op_name
from dlb_core.kernel.plan import Plan

#: allowed |in - out| per unit of sum |R| at a node
TOLERANCE = {torch.float64: 1e-9, torch.float32: 1e-5, torch.bfloat16: 2e-2, torch.float16: 2e-2}


PAGES = "pages of the ledger"


@dataclass
class _NodeSums:
    into: float = 0.0
    into_scale: float = 0.0
    out: float = 0.0
    out_scale: float = 0.0
    accounts: dict[str, float] = field(default_factory=dict)
    edges: dict[int, float] = field(default_factory=dict)


def settle(
    entries: Sequence[Entry], sums: Sequence[float], plan: Plan, input_names: Mapping[str, str], shapes: Sequence[Any]
) -> Ledger:
    """The ledger of one seed from the sums of its pass.

    input_names: placeholder -> the caller's name. shapes: of the values, by slot.
    """
    names = [input_names.get(node.name, node.name) for node in plan.layout.nodes]
    nodes: dict[int, _NodeSums] = defaultdict(_NodeSums)
    seeded: dict[int, float] = {}
    inputs: dict[str, float] = {}
    accounts: dict[str, float] = {}
    input_scale = seed_scale = 0.0
    position = 0
    for entry in entries:
        value = sums[position]
        size = sums[position + 1] if entry.scaled else abs(value)
        position += 2 if entry.scaled else 1
        if entry.kind == "in":
            node = nodes[entry.slot]
            node.into += value
            node.into_scale += size
        elif entry.kind == "out":
            node = nodes[entry.slot]
            node.out += value
            node.out_scale += size
            node.edges[entry.other] = node.edges.get(entry.other, 0.0) + value
        elif entry.kind == "account":
            node = nodes[entry.slot]
            node.accounts[entry.account] = node.accounts.get(entry.account, 0.0) + value
            node.out_scale += size
            accounts[entry.account] = accounts.get(entry.account, 0.0) + value
        elif entry.kind == "seed":
            seeded[entry.slot] = seeded.get(entry.slot, 0.0) + value
            seed_scale += size
        else:
            name = names[entry.slot]
            inputs[name] = inputs.get(name, 0.0) + value
            input_scale += size
    seen = {entry.slot for entry in entries if entry.kind == "in"}  # none when only the ends were recorded
    pages = _pages(plan)
    by_node = {
        step.node.name: _entry(pages[step.slot], nodes[step.slot], names, shapes[step.slot])
        for step in plan.steps
        if step.slot in seen
    }
    tolerances = [e.tolerance for e in by_node.values()]
    scales = [seed_scale, input_scale, *(e.scale for e in by_node.values())]
    return Ledger(
        seed=math.fsum(seeded.values()),
        inputs=inputs,
        accounts=accounts,
        scale=max(scales),
        input_scale=input_scale,
        seed_scale=seed_scale,
        tolerance=max([TOLERANCE[plan.dtype], *tolerances]),
        by_node=by_node,
        seeded={names[slot]: units for slot, units in seeded.items()},
    )


def _pages(plan: Plan) -> dict[int, dict[str, Any]]:
    """By slot what an entry says in every run of the plan, found once."""
    if PAGES not in plan.memo:
        plan.memo[PAGES] = {
            step.slot: {
                "name": step.node.name,
                "op": op_name(step.node.target),
                "modules": module_chain(step.node),
                "rule": step.row.kind,
                "pack": step.row.pack,
                "tolerance": node_tolerance(step.node, plan.dtype),
            }
            for step in plan.steps
        }
    pages: dict[int, dict[str, Any]] = plan.memo[PAGES]
    return pages


def _entry(page: Mapping[str, Any], sums: _NodeSums, names: Sequence[str], shape: Any) -> NodeEntry:
    return NodeEntry(
        **page,
        into=sums.into,
        out=sums.out,
        accounts=sums.accounts,
        scale=sums.into_scale + sums.out_scale,
        edges={names[slot]: units for slot, units in sums.edges.items()},
        shape=_plain(shape),
    )


def _plain(shape: Any) -> tuple[Any, ...]:
    """A shape as numbers; of several values the shape of each."""
    parts = () if shape is None else shape
    return tuple(part if isinstance(part, int) else _plain(part) for part in parts)


def node_tolerance(node: fx.Node, dtype: torch.dtype) -> float:
    """The coarsest of the relevance's dtype and those of the node's values: a rule divides by what was computed."""
    values = [t.dtype.to_real() for n in (node, *node.all_input_nodes) for t in fake_tensors(n)]
    return max(TOLERANCE[d] for d in (dtype, *values) if d in TOLERANCE)


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
            f"(allowed {entry.tolerance * entry.scale:.3g}); "
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
    pack = f"pack {entry.pack}" if entry.pack else "in no pack"
    return f"node {entry.name!r} ({entry.op}, kind {entry.rule}, {pack}){where}"
