"""Facts on nodes, found in the graph: gates, normaliser statistics, regions of one elementwise function."""

from __future__ import annotations

from dataclasses import dataclass

from torch import fx

from dlb_core.rules import (
    Bilinear,
    Elementwise,
    Move,
    Product,
    Program,
    Registry,
    Row,
    Sum,
    bound_arguments,
    facts,
    fake_tensors,
    operand_nodes,
)
from dlb_ops_builtin.passes.signs import decays


@dataclass(frozen=True)
class Origin:
    """What a value is made from: the one node it is a function of, and whether a reduction lies between."""

    root: fx.Node
    reduced: bool = False
    inverse: bool = False  # a reciprocal was taken after the reduction


class Notes:
    """Writes `Facts`: `gate`, `gates`, `statistics`, `source`. One walk, linear in the number of nodes."""

    name = "facts"
    order = 30
    phase = "facts"
    switch: str | None = None

    def run(self, program: Program, registry: Registry) -> list[str]:
        origins: dict[fx.Node, Origin] = {}
        regions: dict[fx.Node, fx.Node] = {}  # node -> the node of which it is a pointwise function
        fading = decays(program.graph.nodes, registry)
        found = []
        for node in program.graph.nodes:
            row = registry.row_at(node)
            if row is None or not facts(node).active:
                continue
            operands = {n: s for n, s in operand_nodes(node, row).items() if facts(s).active}
            origins[node] = _origin(node, row, operands, origins)
            _note_region(node, row, operands, regions)
            if facts(node).source is None:
                _note_statistics(node, row, operands, origins)
            _note_gate(node, row, operands, fading)
            fact = facts(node)
            if fact.source is not None or fact.gates or fact.statistics:
                found.append(f"{node.name}: {_say(node)}")
        return found


def _say(node: fx.Node) -> str:
    fact = facts(node)
    if fact.source is not None:
        return f"one elementwise function of {fact.source.name}"
    parts = [f"gate {name}" for name in sorted(fact.gates)]
    return ", ".join(parts + [f"statistic {name}" for name in sorted(fact.statistics)])


def _origin(node: fx.Node, row: Row, operands: dict[str, fx.Node], origins: dict[fx.Node, Origin]) -> Origin:
    reduction = "reduction" in row.tags
    if not (
        reduction or isinstance(row, (Elementwise, Product, Sum)) or (isinstance(row, Move) and len(operands) == 1)
    ):
        return Origin(node)
    sources = [origins.get(s, Origin(s)) for s in operands.values()]
    if len({s.root for s in sources}) != 1:
        return Origin(node)
    reduced = reduction or any(s.reduced for s in sources)
    inverse = reduced and (any(s.inverse for s in sources) or _inverts(node, row))
    return Origin(sources[0].root, reduced, inverse)


def _inverts(node: fx.Node, row: Row) -> bool:
    if "inverse" in row.tags:
        return True
    exponent = bound_arguments(node).get("exponent") if "power" in row.tags else None
    return isinstance(exponent, (int, float)) and exponent < 0


def _note_region(node: fx.Node, row: Row, operands: dict[str, fx.Node], regions: dict[fx.Node, fx.Node]) -> None:
    """A merge of pointwise branches of one source (x * sigmoid(x), x * x) is one elementwise function of it."""
    if not isinstance(row, (Elementwise, Product, Sum)) or not operands:
        return
    bound = bound_arguments(node)
    if any(isinstance(bound.get(n), fx.Node) and n not in operands and not _is_scalar(bound[n]) for n in row.carriers):
        return
    roots = {regions.get(s, s) for s in operands.values()}
    if len(roots) != 1:
        roots = set(operands.values())
    if len(roots) != 1:
        return
    (root,) = roots
    if _shape(root) != _shape(node):
        return
    regions[node] = root
    if len(operands) > 1:
        facts(node).source = root


def _is_scalar(node: fx.Node) -> bool:
    tensors = fake_tensors(node)
    return not tensors or tensors[0].dim() == 0


def _shape(node: fx.Node) -> tuple[object, ...]:
    tensors = fake_tensors(node)
    return tuple(tensors[0].shape) if tensors else ()


def _note_statistics(node: fx.Node, row: Row, operands: dict[str, fx.Node], origins: dict[fx.Node, Origin]) -> None:
    """x * rsqrt(mean(x^2)), (x - mean(x)) / sqrt(var(x)): what was reduced from the same source gets nothing."""
    if isinstance(row, Product):
        pairs = [(row.a, row.b), (row.b, row.a)]
    elif "quotient" in row.tags:
        pairs = [("self", "other")]
    else:
        return
    for signal, statistic in pairs:
        if signal not in operands or statistic not in operands:
            continue
        mine = origins.get(operands[signal], Origin(operands[signal]))
        theirs = origins.get(operands[statistic], Origin(operands[statistic]))
        divides = theirs.inverse or "quotient" in row.tags
        if theirs.reduced and divides and theirs.root is mine.root and not mine.inverse:
            facts(node).statistics = frozenset({statistic})
            _silence_mean(operands[signal], origins)


def _silence_mean(signal: fx.Node, origins: dict[fx.Node, Origin]) -> None:
    """The mean that was subtracted before a normalising division is a statistic too, seen through weights and moves."""
    while signal.op == "call_function":
        active = [source for source in signal.all_input_nodes if facts(source).active]
        if len(active) != 1 or signal not in origins or origins[signal].root is signal:
            break
        (signal,) = active
    bound = bound_arguments(signal) if signal.op == "call_function" else {}
    x, mean = bound.get("self"), bound.get("other")
    if not isinstance(x, fx.Node) or not isinstance(mean, fx.Node) or signal not in origins:
        return
    theirs = origins.get(mean, Origin(mean))
    if theirs.reduced and theirs.root is origins.get(x, Origin(x)).root and _shape(mean) != _shape(signal):
        facts(signal).statistics = frozenset({"other"})


def _note_gate(node: fx.Node, row: Row, operands: dict[str, fx.Node], fading: set[fx.Node]) -> None:
    fact = facts(node)
    gates = {name for name, source in operands.items() if facts(source).gate}
    beside = isinstance(row, (Product, Bilinear)) and len(operands) == 2 and len(gates) == 1
    if beside and fact.source is None and not fact.statistics:
        fact.gates = frozenset(gates)
    if "gate" in row.tags or node in fading:
        fact.gate = True
    elif gates and gates == set(operands):
        alone = len(operands) == 1
        scalars = alone and isinstance(row, (Product, Sum)) and _others_scalar(node, row, operands)
        fact.gate = isinstance(row, Move) or scalars or (alone and "affine" in row.tags)
        fact.gate = fact.gate or (alone and "quotient" in row.tags and _others_scalar(node, row, operands))
    if fact.statistics and gates == set(operands) - fact.statistics:
        fact.gate = True  # renormalised weights, by a quotient or by a product with the reciprocal


def _others_scalar(node: fx.Node, row: Row, operands: dict[str, fx.Node]) -> bool:
    bound = bound_arguments(node)
    others = [bound.get(name) for name in row.carriers if name not in operands]
    return all(not isinstance(o, fx.Node) or _is_scalar(o) for o in others)
