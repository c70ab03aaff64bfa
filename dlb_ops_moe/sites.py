"""Where a graph has layers of experts: a pass that finds them by their structure, and marks their routers' gates.

A layer of experts is where rows that experts returned are weighed, each by one weight of a router, and then only moved
and added up by token. What is not recognised with certainty is no site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.rules import (
    SITES,
    Accumulate,
    Bilinear,
    ExpertRows,
    ExpertSite,
    Linear,
    Move,
    Program,
    Registry,
    Sum,
    facts,
    module_chain,
)
from dlb_ops_moe.graphs import active_operands, count, family_of, readers, shape_of, sizes
from dlb_ops_moe.routers import Router
from dlb_ops_moe.ways import MOVES, TURNS, Way, hands_on, keeps_order, operands_of
from dlb_ops_moe.weighings import Returns, Weighing, weighings


@dataclass
class Flow:
    """Where weighed rows go, together with what they are added to: its nodes in graph order."""

    weighings: list[Weighing] = field(default_factory=list)
    nodes: list[fx.Node] = field(default_factory=list)


class Sites:
    """Leaves `ExpertSite`s in the program, in graph order, and says which operands are routers' gates."""

    name = "experts"
    order = 40  # after the pass that notes gates and statistics
    phase = "facts"
    switch: str | None = None
    gates = ("router",)

    def run(self, program: Program, registry: Registry) -> list[str]:
        found = weighings(program, registry)
        sites = _sites(flows(found, program, registry), program, registry)
        program.sites[SITES] = [site for site, _ in sites]
        for _, flow in sites:
            for weighing in flow.weighings:
                fact = facts(weighing.node)
                fact.routers |= {weighing.operand}
                if facts(weighing.weight).active:
                    fact.gates |= {weighing.operand}
        return [f"{site.name}: {site.experts} experts, added up in {site.entry.name}" for site, _ in sites]


def flows(found: dict[fx.Node, Weighing], program: Program, registry: Registry) -> list[Flow]:
    """The ways of weighed rows through sums and moves: one flow for those that meet."""
    of: dict[fx.Node, Flow] = {}
    flowing: list[Flow] = []
    for node in program.graph.nodes:
        sources = active_operands(node, registry).values() if node.op == "call_function" else ()
        mine = [s for s in sources if s in of]
        meeting = [of[s] for s in mine]
        if node in found:
            flow = Flow([found[node]])
            flowing.append(flow)
        elif meeting and _alike(meeting) and hands_on(node, mine, registry):
            flow = meeting[0]
            for other in meeting[1:]:
                if other is not flow:
                    flow.weighings += other.weighings
                    flow.nodes += other.nodes
                    of |= dict.fromkeys(other.nodes, flow)
                    flowing.remove(other)
        else:
            continue
        flow.nodes.append(node)
        of[node] = flow
    order = {node: i for i, node in enumerate(program.graph.nodes)}
    for flow in flowing:
        flow.nodes.sort(key=order.__getitem__)
        flow.weighings.sort(key=lambda w: order[w.node])
    return sorted(flowing, key=lambda flow: order[flow.nodes[0]])


def _alike(meeting: Sequence[Flow]) -> bool:
    """Are these rows of the same experts, weighed by the same router?"""
    return len({(flow.weighings[0].name, flow.weighings[0].router) for flow in meeting}) == 1


def _sites(flowing: Sequence[Flow], program: Program, registry: Registry) -> list[tuple[ExpertSite, Flow]]:
    parts = Counter(flow.weighings[0].router.logits for flow in flowing)
    names: Counter[str] = Counter()
    found = []
    for flow in flowing:
        first = flow.weighings[0]
        entry = _entry(flow, program, registry)
        if entry is None or parts[first.router.logits] > 1 or not _certain(flow):
            continue
        calls = names[first.name]
        names[first.name] += 1
        name = f"{first.name}@{calls}" if calls else first.name
        rows = tuple(_rows(r, weighing, entry, flow, registry) for weighing in flow.weighings for r in weighing.rows)
        site = ExpertSite(name, first.router.experts, rows, entry, _probability(first.router, entry))
        found.append((site, flow))
    return found


def _certain(flow: Flow) -> bool:
    """Numbered modules are experts if all of them have a weight, or weights were picked for those that ran."""
    router = flow.weighings[0].router
    labels = [rows.label for weighing in flow.weighings for rows in weighing.rows]
    numbers = {number for label in labels for number in label.numbers}
    if not labels[0].modules or len(numbers) == router.experts:
        return True
    return router.picks and (len(numbers) > 1 or all(isinstance(label.key, int) for label in labels))


def _entry(flow: Flow, program: Program, registry: Registry) -> fx.Node | None:
    """The node in which all weighed rows are added up by token; relevance comes to them through it alone."""
    first = flow.weighings[0]
    last = flow.weighings[-1].node
    tokens = {count(shape[:-1]) for node in first.router.wide if (shape := shape_of(node))}
    inside, open_, entry = set(flow.nodes), set[fx.Node](), None
    waiting: dict[fx.Node, int] = {}
    started = False
    for node in flow.nodes:
        users = readers(node, program, registry)
        waiting[node] = len(set(users))
        for source in set(active_operands(node, registry).values()) & inside:
            waiting[source] -= 1
        open_ = {n for n in (*open_, node) if waiting[n]}
        started = started or node is last
        if not started or open_ - {node}:
            continue
        if count((shape_of(node) or ())[:-1]) not in tokens:
            if entry is not None:
                break
        elif entry is None or _goes_on(node, entry, first, inside, registry):
            entry = node
        else:
            break
    return entry


def _goes_on(node: fx.Node, entry: fx.Node, first: Weighing, inside: set[fx.Node], registry: Registry) -> bool:
    """Does a node behind this one still belong to it: the same tokens in order; or, where every token has one expert
    and nothing was added up yet, their order given back in the same module?
    """
    active = [*active_operands(node, registry).values()]
    if active == [entry] and keeps_order(node, entry):
        return True
    if any(isinstance(registry.row_at(n), (Accumulate, Bilinear, Linear)) for n in inside if n < node):
        return False
    here = module_chain(first.node)
    places = isinstance(registry.row_at(node), (Move, Accumulate, Linear, Sum)) and family_of(node) not in TURNS
    if not places or module_chain(node)[: len(here)] != here or not inside.issuperset(active):
        return False
    return all(_is_blank(n) for n in operands_of(node, registry) if n not in active)


def _is_blank(node: fx.Node) -> bool:
    """Is a value zeros that something is added into, or a view of such?"""
    while family_of(node) in MOVES and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return family_of(node) in ("zeros", "zeros_like", "new_zeros", "full", "full_like", "new_full")


def _probability(router: Router, entry: fx.Node) -> fx.Node | None:
    """The router's probabilities where they lie token by token as the entry does."""
    node = router.probability
    mine, theirs = shape_of(entry), shape_of(node) if node is not None else None
    if node is None or not mine or not theirs or count(mine[:-1]) != count(theirs[:-1]):
        return None
    return node if sizes(entry)[:-1] == sizes(node)[:-1] or 2 in (len(mine), len(theirs)) else None


def _rows(returns: Returns, weighing: Weighing, entry: fx.Node, flow: Flow, registry: Registry) -> ExpertRows:
    label = returns.label
    way = Way(returns.node, entry, [*_between(returns, weighing), *flow.nodes], registry)
    told = (
        isinstance(label.key, fx.Node)
        and label.reads == (label.key,)
        and len(sizes(label.key)) + 1 == len(sizes(returns.node))
    )
    reads = tuple(dict.fromkeys((*label.reads, *way.reads, *(() if told else (returns.node,)))))

    def places(*values: Any) -> tuple[Tensor, Tensor]:
        known = dict(zip(reads, values, strict=True))
        found = label.of(known)
        if returns.node in known:
            found = found.expand(known[returns.node].shape)
        experts = found[..., 0].long()
        tokens = way.tokens(known, experts)
        return tokens.clamp(min=0).reshape(-1), torch.where(tokens < 0, -1, experts).reshape(-1)

    return ExpertRows(returns.node, reads, places, weighing.weight, returns.weigh)


def _between(returns: Returns, weighing: Weighing) -> list[fx.Node]:
    """What lies between a value and its weighing: nothing, or the stack that it is in."""
    return [user for user in returns.node.users if user is not weighing.node and weighing.node in user.users]
