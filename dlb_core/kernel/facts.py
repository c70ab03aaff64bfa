"""Facts on nodes: what depends on an explained input, and what passes found out (gates, statistics, regions)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from torch import fx

from dlb_core.errors import MissingOp, UnsupportedOpError
from dlb_core.kernel.kinds import Compound, Constant, Lookup, Move, Row, Sum, argument
from dlb_core.kernel.ops import bound_arguments, fake_tensors, is_active_dtype, module_path, op_name, op_schema
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry

KEY = "dlb"
LEARNED = "dlb_learned"


@dataclass
class Facts:
    """What is known about a node.

    active: depends on an explained input. gate: its value weights something (softmax, sigmoid). gates: operands
    that are gates beside a signal. routers: operands by which a router weighs what experts returned. statistics:
    operands that are a normaliser's statistic of the same source. source: the node of which this one is a single
    elementwise function. folded: the nodes that a pass took into it.
    """

    active: bool = False
    gate: bool = False
    gates: frozenset[str] = frozenset()
    routers: frozenset[str] = frozenset()
    statistics: frozenset[str] = frozenset()
    source: fx.Node | None = None
    folded: tuple[str, ...] = ()


def facts(node: fx.Node) -> Facts:
    """The facts of a node."""
    found: Facts = node.meta.setdefault(KEY, Facts())
    return found


def row_of(node: fx.Node, program: Program, registry: Registry, mode: str | None = None) -> Row | None:
    """The row for a node on the program's device and in its dtype; with `mode` None, of any mode."""
    if node.op != "call_function":
        return None
    tensors = fake_tensors(node)
    row = registry.find(node.target, mode, program.device.type, tensors[0].dtype if tensors else None)
    return None if row is None else row.at(bound_arguments(node))


def operand_nodes(node: fx.Node, row: Row) -> dict[str, fx.Node]:
    """Operand name -> the node that feeds it, for operands that are nodes."""
    bound = bound_arguments(node)
    found = ((name, argument(bound, name)) for name in row.operands(bound))
    return {name: value for name, value in found if isinstance(value, fx.Node)}


def note_activity(program: Program, registry: Registry, explain_inputs: Iterable[str] | None = None) -> None:
    """Marks every node that depends on an explained input, and checks that all of those have a row that takes them.

    Explained are floating inputs and integer inputs that a lookup reads, or exactly `explain_inputs`. Raises
    `UnsupportedOpError` with every op that misses a row, or whose row refuses its arguments.
    """
    explained = explained_inputs(program, registry, explain_inputs)
    missing: dict[str, MissingOp] = {}
    for node in program.graph.nodes:
        fact = facts(node)
        if node.op == "placeholder":
            fact.active = node.name in explained
        elif node.op == "call_function":
            row = row_of(node, program, registry)
            if row is None:
                fact.active = any(facts(n).active for n in node.all_input_nodes)
                if fact.active:
                    _note_missing(missing, node)
            else:
                fact.active = _is_active(node, row, program)
                reason = row.refuses(bound_arguments(node)) if fact.active and row.refuses else None
                if reason:
                    _note_missing(missing, node, f"{reason} (row of pack {row.pack or '?'})")
    if missing:
        raise UnsupportedOpError(list(missing.values()), registry.loaded, registry.failed)


def _is_active(node: fx.Node, row: Row, program: Program) -> bool:
    if isinstance(row, Constant):
        return False
    if isinstance(row, Compound):  # one that refused to be written out
        return any(facts(source).active for source in node.all_input_nodes)
    whole = isinstance(row, Lookup) or _hands_on_ids(node, row, program)
    return any(
        facts(source).active and (whole or is_active_dtype(source)) for source in operand_nodes(node, row).values()
    )


def _hands_on_ids(node: fx.Node, row: Row, program: Program) -> bool:
    """Are the integers that come out those of one input, moved or shifted by constants (one table, many columns)?"""
    if isinstance(row, Sum):
        return sum(_learned(source, program) is None for source in operand_nodes(node, row).values()) == 1
    return isinstance(row, Move)


def _note_missing(missing: dict[str, MissingOp], node: fx.Node, reason: str = "") -> None:
    name = op_name(node.target)
    seen = missing.get(name + reason)
    first = (seen.node, seen.module, seen.count + 1) if seen else (node.name, module_path(node), 1)
    missing[name + reason] = MissingOp(name, op_schema(node.target), *first, reason)


def explained_inputs(program: Program, registry: Registry, names: Iterable[str] | None) -> set[str]:
    """The placeholder names of the inputs that receive relevance."""
    tensors = {i.name: i.node for i in program.inputs if i.node is not None}
    if names is not None:
        asked = [names] if isinstance(names, str) else list(names)
        if unknown := [n for n in asked if n not in tensors]:
            raise ValueError(f"explain_inputs names {', '.join(unknown)}: the tensor inputs are {', '.join(tensors)}")
        return {tensors[n].name for n in asked}
    read = _read_by_lookups(program, registry)
    return {n.name for n in tensors.values() if is_active_dtype(n) or n.name in read}


def _read_by_lookups(program: Program, registry: Registry) -> set[str]:
    """The integer inputs whose values reach a lookup's ids through moves and shifts."""
    reached: set[fx.Node] = set()
    for node in reversed(list(program.graph.nodes)):
        row = row_of(node, program, registry)
        if row is None or not (isinstance(row, Lookup) or (node in reached and not is_active_dtype(node))):
            continue
        if isinstance(row, Lookup) or _hands_on_ids(node, row, program):
            reached.update(operand_nodes(node, row).values())
    return {n.name for n in reached if n.op == "placeholder"}


def constant_name(node: fx.Node, program: Program) -> str:
    """A constant's name in the books: the one learned tensor it is made from, else the node's name."""
    if node.name in program.parameters:
        return program.parameters[node.name].name
    learned = _learned(node, program)
    return next(iter(learned)) if learned is not None and len(learned) == 1 else node.name


def _learned(node: fx.Node, program: Program) -> frozenset[str] | None:
    """The names of the learned tensors a value is made from; None when an input has a part in it.

    Sizes do not count: a position embedding is cut to the input's length and is a constant all the same.
    """
    if LEARNED not in node.meta:
        found: frozenset[str] | None = frozenset()
        if node.name in program.parameters:
            parameter = program.parameters[node.name]
            found = frozenset({parameter.name}) if parameter.kind in ("parameter", "derived") else frozenset()
        elif node.op == "placeholder":
            found = None
        else:
            for source in node.all_input_nodes:
                part = _learned(source, program) if fake_tensors(source) else frozenset()
                found = None if found is None or part is None else found | part
        node.meta[LEARNED] = found
    known: frozenset[str] | None = node.meta[LEARNED]
    return known
