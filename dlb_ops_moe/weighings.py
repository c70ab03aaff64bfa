"""Where a router's weights meet what experts returned: products in which every row has one weight."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dlb_core.rules import (
    Bilinear,
    Linear,
    Product,
    Program,
    Registry,
    Row,
    bound_arguments,
    facts,
    operand_nodes,
)
from dlb_ops_moe.graphs import family_of, readers, shape_of, size, sizes
from dlb_ops_moe.labels import Label
from dlb_ops_moe.returned import Returned
from dlb_ops_moe.routers import Router, router_of

Weigh = Callable[[Tensor, torch.Size], Tensor]


@dataclass(frozen=True)
class Returns:
    """A value that experts returned, its width last. weigh: as `ExpertRows` has it."""

    node: fx.Node
    label: Label
    weigh: Weigh | None


@dataclass(frozen=True)
class Weighing:
    """A product of what experts returned with a router's weights; `operand` is the weights' name in it."""

    node: fx.Node
    rows: tuple[Returns, ...]
    operand: str
    weight: fx.Node
    router: Router

    @property
    def name(self) -> str:
        """The module path where these experts live."""
        home = self.rows[0].label.home
        if not self.rows[0].label.modules:
            return home
        return home[:-1] if home.endswith(".") else home.rpartition(".")[0] or home.rstrip("_")


def weighings(program: Program, registry: Registry) -> dict[fx.Node, Weighing]:
    """The products of a graph in which a router weighs what experts returned, by node."""
    returned = Returned(program, registry)
    found: dict[fx.Node, Weighing] = {}
    for node in program.graph.nodes:
        fact = facts(node)
        if node.op == "call_function" and fact.active and not fact.statistics and fact.source is None:
            weighing = _weighing(node, returned, program, registry)
            if weighing is not None:
                found[node] = weighing
    return {node: w for node, w in found.items() if w.rows[0].label.home not in returned.in_a_row}


def _weighing(node: fx.Node, returned: Returned, program: Program, registry: Registry) -> Weighing | None:
    row = registry.row_at(node)
    for signal, weight in _sides(row):
        operands = operand_nodes(node, row) if row is not None else {}
        value, gate = operands.get(signal), operands.get(weight)
        if value is None or gate is None or not facts(value).active:
            continue
        rows = _rows(node, value, gate, returned)
        router = router_of(gate, registry) if rows else None
        if router is None or readers(value, program, registry) != [node]:
            continue
        if any(r.node is not value and readers(r.node, program, registry) != [value] for r in rows):
            continue
        labels = [r.label for r in rows]
        known = all(label.experts in (None, router.experts) for label in labels)
        if known and all(number < router.experts for label in labels for number in label.numbers):
            return Weighing(node, rows, weight, gate, router)
    return None


def _sides(row: Row | None) -> Iterator[tuple[str, str]]:
    """Which operand may be the signal, and which the weights."""
    if isinstance(row, (Product, Bilinear)):
        yield from ((row.a, row.b), (row.b, row.a))
    elif isinstance(row, Linear) and row.weight is not None:
        yield from ((row.x, row.weight), (row.weight, row.x))


def _rows(node: fx.Node, value: fx.Node, gate: fx.Node, returned: Returned) -> tuple[Returns, ...]:
    """The values with their width last behind the signal; empty where not every row has one weight."""
    label = returned.of(value, node)
    if label is None or not sizes(value):
        return ()
    weighs, weigh = _by_row(node, value, gate)
    if weighs:
        return (Returns(value, label, weigh),)
    bound = bound_arguments(value) if family_of(value) == "stack" else {}
    if not bound or bound["dim"] % len(sizes(value)) != len(sizes(value)) - 1:
        return ()
    parts = [
        (part, returned.of(part, value), _by_part(node, value, gate, i)) for i, part in enumerate(bound["tensors"])
    ]
    found = tuple(
        Returns(part, known, weigh) for part, known, weigh in parts if known is not None and weigh is not None
    )
    return found if len(found) == len(parts) else ()


def _by_row(node: fx.Node, rows: fx.Node, gate: fx.Node) -> tuple[bool, Weigh | None]:
    """Has every row of [*rows, width] one weight, and how is it read off them (None: they lie as the rows do)?"""
    mine, weight = sizes(rows), shape_of(gate) or ()
    if family_of(node) in ("matmul", "bmm"):  # [*, 1, rows] by [*, rows, width]
        first, second = bound_arguments(node).values()
        alone = len(weight) == 1 or (len(weight) > 1 and size(weight[-2]) == 1)
        return first is gate and second is rows and alone and len(mine) > 1, _before_width
    if family_of(node) == "einsum":
        letters = _letters(node, rows)
        if letters is None or letters[0][-1:] != letters[2][-1:] or letters[0][-1] in letters[1]:
            return False, None
        return True, _by_letters(letters[0][:-1], letters[1])
    if not _pointwise(node) or sizes(node) != mine or len(weight) > len(mine) or (weight and size(weight[-1]) != 1):
        return False, None
    return True, None if sizes(gate) == (*mine[:-1], "1") else lambda value, shape: value.expand(*shape, 1)


def _by_part(node: fx.Node, stacked: fx.Node, gate: fx.Node, i: int) -> Weigh | None:
    """How the weights of the i-th of the values stacked to [*rows, width, experts] are read; None: not one by row."""
    weight = shape_of(gate) or ()
    if family_of(node) in ("matmul", "bmm"):  # [*, width, experts] by [*, experts, 1]
        first, second = bound_arguments(node).values()
        if first is not stacked or second is not gate or not weight or (len(weight) > 1 and size(weight[-1]) != 1):
            return None
        return lambda value, shape: (value[..., i] if value.dim() == 1 else value[..., i, 0]).expand(shape)
    if family_of(node) == "einsum":
        letters = _letters(node, stacked)
        if letters is None or letters[0][-2:-1] != letters[2][-1:] or letters[0][-2] in letters[1]:
            return None
        mine, others, _ = letters
        if mine[-1] not in others:
            return None
        kept = mine[:-2]
        return lambda value, shape: _by_letters(kept, others.replace(mine[-1], ""))(
            value.select(others.index(mine[-1]), i), shape
        )
    placed = len(weight) >= 2 and size(weight[-2]) == 1 and sizes(gate)[-1] == sizes(stacked)[-1]
    if not _pointwise(node) or sizes(node) != sizes(stacked) or len(weight) > len(sizes(stacked)) or not placed:
        return None
    return lambda value, shape: value[..., 0, i].expand(shape)


def _pointwise(node: fx.Node) -> bool:
    return family_of(node) in ("mul", "multiply")


def _before_width(value: Tensor, shape: torch.Size) -> Tensor:
    return (value if value.dim() == 1 else value.squeeze(-2)).expand(shape)


def _letters(node: fx.Node, rows: fx.Node) -> tuple[str, str, str] | None:
    """An einsum's letters for the rows, for the weights, which have no others, and for what comes out."""
    bound = bound_arguments(node)
    equation = bound["equation"].replace(" ", "")
    if "." in equation or "->" not in equation or equation.count(",") != 1:
        return None
    given, _, out = equation.partition("->")
    first, second = given.split(",")
    mine, others = (first, second) if bound["tensors"][0] is rows else (second, first)
    plain = len(set(mine)) == len(mine) > 1 and len(set(others)) == len(others)
    return (mine, others, out) if plain and set(others) <= set(mine) else None


def _by_letters(mine: str, others: str) -> Weigh:
    """The weights, their letters in the order of the rows'."""
    kept = "".join(letter for letter in mine if letter in others)

    def weigh(value: Tensor, shape: torch.Size) -> Tensor:
        turned = value.permute([others.index(letter) for letter in kept])
        return turned.reshape([n if a in kept else 1 for a, n in zip(mine, shape, strict=True)]).expand(shape)

    return weigh
