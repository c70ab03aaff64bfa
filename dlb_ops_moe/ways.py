"""From what experts returned to where it is added up by token: the nodes between, and the token of every row.

Between the router's weights and the sum lie moves, sums and factors only. So a row's token is found by sending the
tokens' numbers back along the same maps.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.rules import (
    Accumulate,
    Bilinear,
    Elementwise,
    Linear,
    Move,
    Product,
    Registry,
    Sum,
    bound_arguments,
    operand_nodes,
)
from dlb_ops_moe.graphs import RESHAPES, SAME, active_operands, count, family_of, shape_of, sizes

Values = Mapping[fx.Node, Any]

TURNS = frozenset({"permute", "transpose", "t", "movedim", "swapaxes"})
PLACES = frozenset(
    {"index", "index_select", "gather", "select", "slice", "split", "split_with_sizes", "chunk", "unbind", "getitem"}
    | {"cat", "stack", "where", "masked_fill", "index_put", "index_copy", "scatter", "copy", "constant_pad_nd"}
    | {"select_scatter", "slice_scatter", "masked_scatter"}
)
MOVES = SAME | RESHAPES | TURNS | PLACES


def hands_on(node: fx.Node, sources: Sequence[fx.Node], registry: Registry) -> bool:
    """Does a node only add up, scale by numbers and place what comes from the sources?"""
    row = registry.row_at(node)
    if isinstance(row, Move) and family_of(node) != "copy":
        return family_of(node) in MOVES
    if isinstance(row, Linear):
        return row.weight is None and row.weights is None and family_of(node) in ("sum", "mean")
    if isinstance(row, Accumulate):
        return True
    if any(sizes(source) != sizes(node) for source in sources):
        return False
    if isinstance(row, Product) or (isinstance(row, Elementwise) and {"affine", "quotient"} & row.tags):
        return len(active_operands(node, registry)) == 1
    return isinstance(row, Sum) or family_of(node) == "copy"


def keeps_order(node: fx.Node, source: fx.Node) -> bool:
    """Does a node leave rows as they are: the same numbers in the same order, the width last?"""
    before, after = shape_of(source), shape_of(node)
    if not before or not after or count(before[-1:]) != count(after[-1:]):
        return False
    if count(before) != count(after):
        return False
    return family_of(node) in SAME | RESHAPES


class Way:
    """The nodes from the weighing of some rows to `entry`, and the way of tokens back along them."""

    def __init__(self, rows: fx.Node, entry: fx.Node, inside: Sequence[fx.Node], registry: Registry):
        self._rows, self._entry, self._registry = rows, entry, registry
        below = {rows}
        self._path: list[fx.Node] = []
        for node in inside:  # in graph order
            if any(source in below for source in active_operands(node, registry).values()):
                below.add(node)
                self._path.append(node)
            if node is entry:
                break
        self._slots = self._sum_over_slots()
        read = [n for node in self._path if not self._passes(node, below) for n in node.all_input_nodes]
        others = sorted({*read} - below, key=lambda n: n.name)
        self.reads: tuple[fx.Node, ...] = () if self._slots else (rows, entry, *others)

    def _sum_over_slots(self) -> bool:
        """Is it the sum over the last dimension of the rows, and nothing else?"""
        shape = sizes(self._rows)
        before: fx.Node = self._path[0]
        if len(shape) < 3 or sizes(before) != shape:
            return False
        summed = 0
        for node in self._path[1:]:
            bound = bound_arguments(node)
            if family_of(node) == "sum" and not summed and before in operands_of(node, self._registry):
                dims = [d % len(shape) for d in bound.get("dim") or ()]
                if dims != [len(shape) - 2] or sizes(before) != shape:
                    return False
                summed += 1
            elif not keeps_order(node, before):
                return False
            before = node
        return summed == 1

    def tokens(self, values: Values, experts: Tensor) -> Tensor:
        """The token of every row, [*rows]; -1 for rows that reach none. experts: [*rows]."""
        if self._slots:  # [*tokens, slots]
            slots = experts.shape[-1]
            tokens = torch.arange(experts.numel() // slots, device=experts.device).repeat_interleave(slots)
            return tokens.reshape(experts.shape)
        rows, entry = values[self._rows], values[self._entry]
        zeros = torch.zeros(rows.shape, dtype=torch.float64, device=rows.device)
        back: Callable[[Tensor], tuple[Tensor]] = torch.func.vjp(lambda x: self._run(x, values), zeros)[1]
        tokens = torch.arange(entry.shape[:-1].numel(), dtype=torch.float64, device=rows.device)
        tokens = tokens.reshape(*entry.shape[:-1], 1).expand(entry.shape)
        weight, first, second = (back(r)[0] for r in (torch.ones_like(tokens), tokens, tokens * tokens))
        reached = weight != 0
        found = torch.where(reached, first / weight, -1)
        spread = torch.where(reached, second / weight, 1) - found * found
        one = (spread.abs() < 0.5) & (found == found[..., :1]).all(-1, keepdim=True)
        if not bool(one.all()):
            raise ValueError(
                f"what experts return in {self._rows.name!r} reaches several tokens by {self._entry.name!r}"
            )
        return found[..., 0].round().long()

    def _run(self, rows: Tensor, values: Values) -> Tensor:
        """What comes out at the entry for other rows, the router's weights being 1."""
        made: dict[fx.Node, Any] = {self._rows: rows}
        for node in self._path:
            made[node] = self._step(node, made, values)
        out: Tensor = made[self._entry]
        return out

    def _passes(self, node: fx.Node, made: Container[fx.Node]) -> bool:
        """Does what comes in from the rows come out as it is, place by place?"""
        row = self._registry.row_at(node)
        if isinstance(row, Accumulate):
            (into, *added) = (n in made for n in operands_of(node, self._registry))
            return into and not any(added)
        return isinstance(row, (Product, Elementwise, Sum)) or family_of(node) in SAME | {"copy"}

    def _step(self, node: fx.Node, made: dict[fx.Node, Any], values: Values) -> Any:
        row = self._registry.row_at(node)
        mine = [source for source in operands_of(node, self._registry) if source in made]
        if self._passes(node, made):
            return sum(made[source] for source in mine)

        def argument(source: fx.Node) -> Any:
            if source in made:
                return made[source]
            value = values.get(source)
            if isinstance(value, Tensor) and value.is_floating_point():
                ones = isinstance(row, (Bilinear, Linear))
                return torch.full_like(value, int(ones), dtype=torch.float64)
            return value

        target: Any = (row.forward if row is not None else None) or node.target
        return target(*fx.node.map_arg(node.args, argument), **fx.node.map_arg(node.kwargs, argument))


def operands_of(node: fx.Node, registry: Registry) -> list[fx.Node]:
    """The operands of a node that are nodes."""
    row = registry.row_at(node)
    return [] if row is None else [*operand_nodes(node, row).values()]
