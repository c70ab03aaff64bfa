"""Where a graph has layers of experts: a pass that finds them by their structure, and marks their routers' gates.

A layer of experts is where rows that experts returned are weighed, each by one weight of a router, and then only moved
and added up by token. What is not recognised with certainty is no site.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, fx

from dlb_core.rules import (
    SITES,
    Bilinear,
    ExpertRows,
    ExpertSite,
    Linear,
    Product,
    Program,
    Registry,
    Row,
    bound_arguments,
    facts,
    module_chain,
    operand_nodes,
)
from dlb_ops_moe.graphs import active_operands, count, family_of, readers, shape_of, size
from dlb_ops_moe.returned import Label, Returned
from dlb_ops_moe.routers import Router, router_of
from dlb_ops_moe.ways import MOVES, RESHAPES, SAME, TURNS, Way, hands_on, keeps_order, operands_of


@dataclass(frozen=True)
class Weighing:
    """A product in which a router's weights meet what experts returned."""

    node: fx.Node
    rows: fx.Node
    label: Label
    operand: str  # of the node: the weights
    weight: fx.Node
    router: Router

    @property
    def name(self) -> str:
        """The module path where these experts live."""
        home = self.label.home
        if not self.label.modules:
            return home
        return home[:-1] if home.endswith(".") else home.rpartition(".")[0] or home.rstrip("_")


@dataclass
class Flow:
    """What becomes of weighed rows until they meet something else: its nodes in graph order."""

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


def weighings(program: Program, registry: Registry) -> dict[fx.Node, Weighing]:
    """The products of what experts returned with a router's weights, by node."""
    returned = Returned(program, registry)
    found: dict[fx.Node, Weighing] = {}
    for node in program.graph.nodes:
        if node.op != "call_function" or not facts(node).active or facts(node).statistics or facts(node).source:
            continue
        weighing = _weighing(node, returned, registry)
        if weighing is not None and readers(weighing.rows, program, registry) == [node]:
            found[node] = weighing
    return {node: w for node, w in found.items() if w.label.home not in returned.in_a_row}


def _weighing(node: fx.Node, returned: Returned, registry: Registry) -> Weighing | None:
    row = registry.row_at(node)
    if isinstance(row, (Product, Bilinear)):
        first, second = row.a, row.b
    elif isinstance(row, Linear) and row.weight is not None:
        first, second = row.x, row.weight
    else:
        return None
    operands = operand_nodes(node, row)
    for signal, weight in ((first, second), (second, first)):
        rows, gate = operands.get(signal), operands.get(weight)
        if rows is None or gate is None or not facts(rows).active:
            continue
        label = returned.of(rows, node)
        if label is None or not _one_weight_by_row(node, row, rows, gate):
            continue
        router = router_of(gate, registry)
        if router is None or label.experts not in (None, router.experts):
            continue
        if all(number < router.experts for number in label.numbers):
            return Weighing(node, rows, label, weight, gate, router)
    return None


def _one_weight_by_row(node: fx.Node, row: Row, rows: fx.Node, gate: fx.Node) -> bool:
    """Has every row of experts, its width last, one weight of its own?"""
    signal, weight, out = shape_of(rows), shape_of(gate), shape_of(node)
    if not signal or weight is None or not out:
        return False
    if isinstance(row, Product):
        alone = not weight or (len(weight) <= len(signal) and size(weight[-1]) == 1)
        return alone and [count([s]) for s in signal] == [count([s]) for s in out]
    if family_of(node) in ("matmul", "bmm"):
        first, second = (
            bound_arguments(node).get(name)
            for name in ("self", "other" if "other" in bound_arguments(node) else "mat2")
        )
        alone = len(weight) == 1 or size(weight[-2]) == 1
        return first is gate and second is rows and alone and len(signal) > 1
    if family_of(node) == "einsum":
        return _sums_rows(node, rows)
    return False


def _sums_rows(node: fx.Node, rows: fx.Node) -> bool:
    """An einsum of rows [*rows, width] with weights that have no other letters than the rows'."""
    bound = bound_arguments(node)
    terms, _, out = bound["equation"].replace(" ", "").partition("->")
    letters = terms.split(",")
    if len(letters) != 2 or "." in terms or not out:
        return False
    mine, others = letters if bound["tensors"][0] is rows else letters[::-1]
    return mine[-1] == out[-1] and mine[-1] not in others and set(others) <= set(mine)


def flows(found: dict[fx.Node, Weighing], program: Program, registry: Registry) -> list[Flow]:
    """Where weighed rows go, together with what they are added to: one flow for those that meet."""
    of: dict[fx.Node, Flow] = {}
    flowing: list[Flow] = []
    for node in program.graph.nodes:
        sources = active_operands(node, registry).values() if node.op == "call_function" else ()
        meeting = [of[s] for s in sources if s in of]
        if node in found:
            flow = Flow([found[node]])
            flowing.append(flow)
        elif meeting and len(meeting) == len(sources) and _alike(meeting) and hands_on(node, registry):
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
    parts = Counter((flow.weighings[0].name, flow.weighings[0].router) for flow in flowing)
    names: Counter[str] = Counter()
    found = []
    for flow in flowing:
        first = flow.weighings[0]
        entry = _entry(flow, program, registry)
        if entry is None or parts[first.name, first.router] > 1 or not _certain(flow):
            continue
        calls = names[first.name]
        names[first.name] += 1
        name = f"{first.name}@{calls}" if calls else first.name
        rows = tuple(_rows(weighing, entry, flow, registry) for weighing in flow.weighings)
        site = ExpertSite(name, first.router.experts, rows, entry, _probability(first.router, entry))
        found.append((site, flow))
    return found


def _certain(flow: Flow) -> bool:
    """Modules beside each other are experts when several of them are weighed together, or some were chosen."""
    first = flow.weighings[0]
    numbers = {number for weighing in flow.weighings for number in weighing.label.numbers}
    return not first.label.modules or len(numbers) > 1 or first.router.chooses


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
        shape = shape_of(node)
        if not shape or count(shape[:-1]) not in tokens:
            continue
        if entry is None or _goes_on(node, entry, first, registry):
            entry = node
        else:
            break
    return entry


def _goes_on(node: fx.Node, entry: fx.Node, first: Weighing, registry: Registry) -> bool:
    """Does a node behind the sum still belong to it: the same tokens, in the order of the layer's own module?"""
    if [*active_operands(node, registry).values()] == [entry] and keeps_order(node, entry, registry):
        return True
    here = module_chain(first.node)
    mine = family_of(node) not in TURNS and module_chain(node)[: len(here)] == here
    return mine and all(_is_blank(n) for n in operands_of(node, registry) if not facts(n).active)


def _is_blank(node: fx.Node) -> bool:
    """Is a value zeros that something is added into, or a view of such?"""
    while family_of(node) in MOVES and node.all_input_nodes:
        node = node.all_input_nodes[0]
    return family_of(node) in ("zeros", "zeros_like", "new_zeros", "full", "full_like", "new_full")


def _probability(router: Router, entry: fx.Node) -> fx.Node | None:
    """The router's probabilities where they lie token by token as the entry does."""
    node = router.probability
    mine, theirs = shape_of(entry), shape_of(node) if node is not None else None
    if not mine or not theirs or count(mine[:-1]) != count(theirs[:-1]):
        return None
    same = [count([n]) for n in mine[:-1]] == [count([n]) for n in theirs[:-1]]
    return node if same or 2 in (len(mine), len(theirs)) else None


def _rows(weighing: Weighing, entry: fx.Node, flow: Flow, registry: Registry) -> ExpertRows:
    way = Way(weighing.rows, weighing.node, entry, flow.nodes, registry)
    reads = tuple(dict.fromkeys((*weighing.label.reads, *way.reads, *_for_shape(weighing))))

    def places(*values: Any) -> tuple[Tensor, Tensor]:
        known = dict(zip(reads, values, strict=True))
        found = weighing.label.of(known)
        if weighing.rows in known:
            found = found.expand(known[weighing.rows].shape)
        experts = found[..., 0].long()
        return way.tokens(known, experts).reshape(-1), experts.reshape(-1)

    return ExpertRows(weighing.rows, reads, places, _by_row(weighing))


def _for_shape(weighing: Weighing) -> tuple[fx.Node, ...]:
    """The rows themselves, unless the label alone says how many there are."""
    label, shape = weighing.label, shape_of(weighing.rows)
    alone = isinstance(label.key, fx.Node) and label.reads == (label.key,)
    told = alone and len(shape_of(label.reads[0]) or ()) + 1 == len(shape or ())
    return () if told else (weighing.rows,)


def _by_row(weighing: Weighing) -> fx.Node | None:
    """The weights in a node with one of them for every row, seen behind views of the operand."""
    rows = (shape_of(weighing.rows) or ())[:-1]
    node = weighing.weight
    while True:
        shape = shape_of(node) or ()
        if _fits(shape, rows) or (len(shape) == len(rows) + 1 and size(shape[-1]) == 1 and _fits(shape[:-1], rows)):
            return node
        if family_of(node) not in SAME | RESHAPES:
            return None
        node = node.all_input_nodes[0]


def _fits(shape: Sequence[Any], rows: Sequence[Any]) -> bool:
    """Are these the same sizes? Of two free ones that are multiplied with each other, none is broadcast."""
    pairs = [(size(a), size(b)) for a, b in zip(shape, rows, strict=False)]
    return len(shape) == len(rows) and all(a == b for a, b in pairs)
