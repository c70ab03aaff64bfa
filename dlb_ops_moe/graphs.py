"""Reading a graph: the family of an op, sizes as traced, which operands are active, who reads a value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from torch import fx

from dlb_core.rules import Program, Registry, facts, fake_tensors, op_name, operand_nodes

#: Ops by family: those that leave every element as it is, and those that only write the sizes in another way.
SAME = frozenset({"clone", "alias", "detach", "_to_copy", "contiguous", "to", "type_as", "dropout", "lift_fresh_copy"})
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "flatten", "unflatten", "unsqueeze", "squeeze"})


def family_of(node: fx.Node) -> str:
    """``topk`` for aten::topk.default; a function's own name; empty for what is no call."""
    if node.op != "call_function":
        return ""
    name = op_name(node.target)
    return name.partition("::")[2].partition(".")[0] if "::" in name else name.rpartition(".")[2]


def shape_of(node: fx.Node) -> tuple[Any, ...] | None:
    """The traced shape of a node with one tensor: ints, and symbols where any size goes."""
    value = node.meta.get("val")
    found = fake_tensors(node)
    return tuple(found[0].shape) if len(found) == 1 and found[0] is value else None


def sizes(node: Any) -> tuple[str, ...]:
    """The traced shape as text, in which sizes that are equal at every call are equal."""
    return tuple(count([length]) for length in (shape_of(node) or ())) if isinstance(node, fx.Node) else ()


def size(length: Any) -> int | None:
    """A size that the trace fixed; None where it is free."""
    fixed = length if isinstance(length, int) else length.node.maybe_as_int()
    return None if fixed is None else int(fixed)


def count(lengths: Sequence[Any]) -> str:
    """How many there are, as text: equal for sizes that are equal at every call."""
    return str(math.prod(lengths))


def active_operands(node: fx.Node, registry: Registry) -> dict[str, fx.Node]:
    """The operands that depend on an explained input, by name."""
    row = registry.row_at(node)
    found = {} if row is None or not facts(node).active else operand_nodes(node, row)
    return {name: source for name, source in found.items() if facts(source).active}


def readers(node: fx.Node, program: Program, registry: Registry) -> list[fx.Node | None]:
    """The nodes from which relevance can come to this one; None among them where it is an output of the model."""
    found: list[fx.Node | None] = [u for u in node.users if node in active_operands(u, registry).values()]
    return [*found, None] if any(out is node for out in program.outputs) else found
