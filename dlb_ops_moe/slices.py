"""Experts that are slices of a parameter: products of rows with those of their experts, however they are written."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.rules import Bilinear, Linear, Program, Row, bound_arguments, operand_nodes
from dlb_ops_moe.graphs import SAME, family_of, shape_of, size, sizes
from dlb_ops_moe.labels import Label, Values, all_of

GROUPED = frozenset({"_grouped_mm", "grouped_mm_fallback"})


class Slices:
    """Ops that map each row by its expert's slice of a parameter [experts, ...]."""

    def __init__(self, program: Program) -> None:
        self._parameters = program.parameters

    def label(self, node: fx.Node, row: Row, active: Mapping[str, fx.Node]) -> Label | None:
        """What is known of the op's output; None where it is no such op."""
        bound = bound_arguments(node)
        family = family_of(node)
        if family == "expert_linear":
            return self._by_index(node, bound["weight"], bound["index"])
        if family in GROUPED:
            return self._by_ends(node, bound.get("mat2", bound.get("weight")), bound.get("offs"))
        named = operand_nodes(node, row) if isinstance(row, (Linear, Bilinear)) and len(active) == 1 else {}
        weights = [n for name, n in named.items() if name not in active and name not in row.role("bias")]
        if len(weights) != 1:
            return None
        cut = _slice_of(weights[0])
        if cut is None:
            return self._by_dimension(node, weights[0])
        bound = bound_arguments(cut)
        if family_of(cut) == "select":
            return self._by_number(node, bound["self"], bound["index"]) if bound["dim"] == 0 else None
        places = bound["indices"]
        if len(places) != 1 or not sizes(places[0]) or places[0].meta["val"].dtype == torch.bool:
            return None
        return self._by_index(node, bound["self"], places[0], weights[0])

    def _by_index(self, node: fx.Node, weight: Any, index: fx.Node, slices: fx.Node | None = None) -> Label | None:
        """One expert by row, in an index; of products with `slices`, which lie as the index does, where they come."""
        found = self._experts(weight)
        places = range(len(sizes(index))) if slices is None else _dimensions(node, slices, len(sizes(index)))
        if found is None or places is None:
            return None
        of = _spread(lambda values: values[index], places, len(sizes(node)))
        return Label(found[0], index, found[1], frozenset(), (index,), of)

    def _by_dimension(self, node: fx.Node, weight: fx.Node) -> Label | None:
        """All experts for every row, in a dimension of their own."""
        found, places = self._experts(weight), _dimensions(node, weight, 1)
        if found is None or places is None:
            return None
        home, experts = found
        of = _spread(lambda values: torch.arange(experts, device=values[node].device), places, len(sizes(node)))
        return Label(home, node, experts, frozenset(range(experts)), (node,), of)

    def _by_ends(self, node: fx.Node, weight: Any, ends: Any) -> Label | None:
        """Rows sorted by expert, and where each expert's rows end."""
        found = self._experts(weight)
        if found is None or not isinstance(ends, fx.Node) or len(shape_of(node) or ()) != 2:
            return None

        def of(values: Values) -> Tensor:
            last: Tensor = values[ends]
            rows = torch.arange(values[node].shape[0], device=last.device).to(last.dtype)
            numbers = torch.searchsorted(last, rows, right=True)
            return torch.where(numbers < len(last), numbers, -1).unsqueeze(-1)

        return Label(found[0], ends, found[1], frozenset(), (ends, node), of)

    def _by_number(self, node: fx.Node, weight: Any, number: Any) -> Label | None:
        """All rows by one expert, a number of the trace."""
        found = self._experts(weight)
        if found is None or not isinstance(number, int):
            return None
        return all_of(node, found[0], number % found[1], found[1])

    def _experts(self, weight: Any) -> tuple[str, int] | None:
        """Where the experts of a parameter live, and how many it has room for."""
        while isinstance(weight, fx.Node) and weight.op == "call_function":
            bound = bound_arguments(weight)
            dims = {bound.get("dim0"), bound.get("dim1")}
            if family_of(weight) not in SAME and not (family_of(weight) == "transpose" and dims <= {1, 2, -1, -2}):
                return None
            weight = bound.get("self")
        parameter = self._parameters.get(weight.name) if isinstance(weight, fx.Node) else None
        shape = shape_of(weight) if isinstance(weight, fx.Node) else None
        if parameter is None or shape is None or len(shape) != 3:
            return None
        home, _, name = parameter.name.rpartition(".")
        if name == "weight":  # of a linear map, which is a part of them
            home = home.rpartition(".")[0]
        experts = size(shape[0])
        return None if experts is None else (home or "experts", experts)


def _dimensions(node: fx.Node, weight: fx.Node, many: int) -> Sequence[int] | None:
    """Where a product has the first dimensions of its weight, `many` of them; None where it sums over one."""
    bound, dims = bound_arguments(node), len(sizes(node))
    family = family_of(node)
    if family == "einsum":
        equation = bound["equation"].replace(" ", "")
        if "." in equation or "->" not in equation or equation.count(",") != 1:
            return None
        given, _, out = equation.partition("->")
        mine = given.split(",")[0 if bound["tensors"][0] is weight else 1]
        found = [out.find(letter) for letter in mine[:many]]
        return found if -1 not in found and found == sorted(found) and dims - 1 not in found else None
    behind = len(sizes(weight)) == many + 2 and dims == many + 2  # the two that are multiplied
    return range(many) if family in ("matmul", "bmm") and behind else None


def _spread(of: Callable[[Values], Tensor], places: Sequence[int], dims: int) -> Callable[[Values], Tensor]:
    """Numbers in a shape that broadcasts to a value: their dimensions at `places` of `dims`."""

    def spread(values: Values) -> Tensor:
        numbers = of(values)
        sizes = dict(zip(places, numbers.shape, strict=True))
        return numbers.reshape([sizes.get(dim, 1) for dim in range(dims)])

    return spread


def _slice_of(weight: Any) -> fx.Node | None:
    """The slice of a parameter that a weight is, seen through casts and transposes of the matrix."""
    while isinstance(weight, fx.Node) and weight.op == "call_function":
        family, bound, dims = family_of(weight), bound_arguments(weight), len(sizes(weight))
        if family in ("select", "index"):
            return weight
        turned = {bound.get(name, 0) % dims for name in ("dim0", "dim1")} if family == "transpose" else set()
        if not (family in SAME or family == "t" or turned == {dims - 2, dims - 1}):
            return None
        weight = bound.get("self")
    return None
