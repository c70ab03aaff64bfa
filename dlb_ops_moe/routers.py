"""From the weights of experts' outputs back to their router: how many experts it knows, and its probabilities."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from dlb_core.rules import (
    Elementwise,
    Linear,
    Move,
    Product,
    Registry,
    Row,
    Softmax,
    Sum,
    bound_arguments,
    facts,
    operand_nodes,
)
from dlb_ops_moe.graphs import family_of, shape_of, size

CHOOSES = frozenset({"topk", "sort", "gather", "take_along_dim", "max"})  # the last dimension is experts
PARTS = frozenset({"select", "slice", "index_select", "unbind", "split", "split_with_sizes", "chunk"})


@dataclass(frozen=True)
class Router:
    """Where weights come from. logits: what it knows about every token and expert. experts: how many those are.

    probability: a gate as wide, before any expert is chosen; None where only chosen experts have one. wide: the nodes
    in which every token has a value for every expert. picks: weights are taken out of these, for some experts.
    """

    logits: frozenset[fx.Node]
    experts: int
    probability: fx.Node | None
    wide: frozenset[fx.Node]
    picks: bool


def router_of(weight: fx.Node, registry: Registry) -> Router | None:
    """The router behind a weight; None where none is found with certainty."""
    ways = _ways(weight, registry)
    gates = [node for node in ways if _is_gate(node, registry)]
    marks = {*gates, *(node for node in ways if family_of(node) in CHOOSES)}
    firsts = [node for node in marks if marks.isdisjoint(_behind(node, ways))]
    logits = frozenset(node for node, sources in ways.items() if not sources)
    wide = [_wide(node, registry) for node in firsts]
    widths = {size((shape_of(node) or (0,))[-1]) if node is not None else None for node in wide}
    if not gates or len(widths) != 1 or (len(firsts) > 1 and len(logits) > 1):
        return None
    (experts,) = widths
    if experts is None or experts < 2:
        return None
    probability = firsts[0] if len(firsts) == 1 and firsts[0] in gates else None
    picks = any(_picks(node, experts) for node in ways)
    return Router(logits, experts, probability, frozenset(node for node in wide if node is not None), picks)


def _ways(weight: fx.Node, registry: Registry) -> dict[fx.Node, list[fx.Node]]:
    """Every node between a weight and its logits, with what it is made from."""
    found: dict[fx.Node, list[fx.Node]] = {}
    waiting = [weight]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = _sources(node, registry)
            waiting += found[node]
    return found


def _behind(node: fx.Node, ways: dict[fx.Node, list[fx.Node]]) -> set[fx.Node]:
    seen: set[fx.Node] = set()
    waiting = list(ways[node])
    while waiting:
        source = waiting.pop()
        if source not in seen:
            seen.add(source)
            waiting += ways[source]
    return seen


def _sources(node: fx.Node, registry: Registry) -> list[fx.Node]:
    """What a weight is a function of, place by place; nothing behind logits, which are a map of the hidden state."""
    row = registry.row_at(node)
    if row is None or not _hands_on(row):
        return []
    operands = [*operand_nodes(node, row).values()]
    return [source for source in operands if facts(source).active] or operands


def _hands_on(row: Row) -> bool:
    if isinstance(row, Linear):
        return row.weight is None and row.weights is None
    return isinstance(row, (Move, Elementwise, Product, Sum, Softmax))


def _is_gate(node: fx.Node, registry: Registry) -> bool:
    row = registry.row_at(node)
    return row is not None and "gate" in row.tags


def _wide(node: fx.Node, registry: Registry) -> fx.Node | None:
    """Over what a gate or a choice goes, where its last dimension is experts."""
    bound = bound_arguments(node)
    source = node if _is_gate(node, registry) else bound.get("self")
    shape = shape_of(source) if isinstance(source, fx.Node) else None
    dim = bound.get("dim", -1)
    last = bool(shape) and isinstance(dim, int) and dim % len(shape or ()) == len(shape or ()) - 1
    return source if last else None


def _picks(node: fx.Node, experts: int) -> bool:
    """Is something taken out of a dimension as long as there are experts?"""
    bound, family = bound_arguments(node), family_of(node)
    shape = shape_of(bound["self"]) if isinstance(bound.get("self"), fx.Node) else None
    if family in CHOOSES or not shape:
        return family in CHOOSES
    if family == "index":
        return any(i is not None and size(n) == experts for i, n in zip(bound["indices"], shape, strict=False))
    return family in PARTS and size(shape[bound.get("dim", 0)]) == experts
