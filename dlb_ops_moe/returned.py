"""What experts return: the values in a graph whose rows each belong to one expert, and to which.

Experts are the slices of a parameter with a dimension for them (routed products, one product per expert), or numbered
modules beside each other. What is known of a value is a `Label`: a function that gives the expert of every element.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.rules import (
    Bilinear,
    Elementwise,
    Linear,
    Move,
    Normalise,
    Product,
    Program,
    Registry,
    Row,
    Sum,
    bound_arguments,
    facts,
    module_chain,
    operand_nodes,
)
from dlb_ops_moe.graphs import RESHAPES, SAME, active_operands, family_of, shape_of, size, sizes

Values = Mapping[fx.Node, Any]
NUMBERED = re.compile(r"([^@]*?)(\d+)(?:@\d+)?$")  # a module's second call ends with @1
GROUPED = frozenset({"_grouped_mm", "grouped_mm_fallback"})


@dataclass(frozen=True)
class Label:
    """Of a value made by experts: which of them made what.

    home: where they live. experts: how many there are, None where only a router knows. numbers: those that are known
    to have a part. reads: the nodes whose values `of` takes; it gives the expert of every element, in a shape that
    broadcasts to the value's (a list for several outputs), -1 where none made it. Labels with one key are the same.
    modules: the experts are modules.
    """

    home: str
    key: Hashable
    experts: int | None
    numbers: frozenset[int]
    reads: tuple[fx.Node, ...]
    of: Callable[[Values], Any]
    modules: bool = False


class Returned:
    """The labels of a graph's values, found in one walk."""

    def __init__(self, program: Program, registry: Registry) -> None:
        self._registry = registry
        self._slices = Slices(program, registry)
        self._labels: dict[fx.Node, Label] = {}
        self._chains: dict[fx.Node, tuple[str, ...]] = {}
        self.in_a_row: set[str] = set()  # numbered modules of which one feeds another: layers, no experts
        for node in program.graph.nodes:
            if node.op == "call_function" and facts(node).active:
                label = self._find(node)
                if label is not None:
                    self._labels[node] = label

    def of(self, node: fx.Node, user: fx.Node) -> Label | None:
        """What is known of a value where `user` reads it: outside of a numbered module that made it, the module's."""
        known = self._labels.get(node)
        if known is not None and not known.modules:
            return known
        around, outer = set(self._chain(user)), ""
        for path in self._chain(node):
            if path not in around:  # the outermost that was left on the way
                numbers = _numbers(path, outer)
                return _all_of(node, *numbers[0][:2], modules=True) if numbers else known
            outer = path
        return known

    def _chain(self, node: fx.Node) -> tuple[str, ...]:
        if node not in self._chains:
            self._chains[node] = module_chain(node) if node.op == "call_function" else ()
        return self._chains[node]

    def _find(self, node: fx.Node) -> Label | None:
        row = self._registry.row_at(node)
        if row is None:
            return None
        operands = active_operands(node, self._registry)
        labels = {name: self.of(source, node) for name, source in operands.items()}
        self._note_layers(node, labels)
        source = self._slices.label(node, row, operands)
        if source is not None:
            return source
        known = [label for label in labels.values() if label is not None]
        if not known or len(known) < len(labels):
            return None
        return _handed_on(node, row, operands, known)

    def _note_layers(self, node: fx.Node, labels: Mapping[str, Label | None]) -> None:
        mine: dict[str, int | None] = {}
        outer = ""
        for path in self._chain(node):
            mine |= {home: None if called else number for home, number, called in _numbers(path, outer)}
            outer = path
        for label in labels.values():
            if label and label.modules and label.home in mine and label.numbers != {mine[label.home]}:
                self.in_a_row.add(label.home)


def _numbers(path: str, outer: str) -> list[tuple[str, int, bool]]:
    """The numbered modules on the way from a module to one inside, outermost first: home, number, is it the inner one?

    A module on the way is one that holds others and is not called itself.
    """
    inside = path.startswith(f"{outer}.") if outer else True
    start = len(outer) + bool(outer) if inside else path.rfind(".") + 1
    found = []
    for part in path[start:].split("."):
        if match := NUMBERED.fullmatch(part):
            found.append((path[:start] + match[1], int(match[2]), start + len(part) == len(path)))
        start += len(part) + 1
    return found


class Slices:
    """Ops that map each row by its expert's slice of a parameter [experts, ...]."""

    def __init__(self, program: Program, registry: Registry) -> None:
        self._parameters = program.parameters
        self._registry = registry

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
        return _all_of(node, found[0], number % found[1], found[1])

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
        family = family_of(weight)
        if family in ("select", "index"):
            return weight
        if family not in SAME and family not in ("t", "transpose", "permute"):
            return None
        weight = bound_arguments(weight).get("self")
    return None


def _all_of(node: fx.Node, home: str, number: int, experts: int | None = None, modules: bool = False) -> Label:
    """All of a value is one expert's."""

    def of(values: Values) -> Tensor:
        value: Tensor = values[node]
        return torch.full((*value.shape[:-1], 1), number, device=value.device)

    return Label(home, number, experts, frozenset({number}), (node,), of, modules)


def _handed_on(node: fx.Node, row: Row, operands: Mapping[str, fx.Node], labels: list[Label]) -> Label | None:
    """What an op makes of values that experts made."""
    first = labels[0]
    if any(label.home != first.home for label in labels):
        return None
    if isinstance(row, Move):
        if len(operands) > 1:
            return _moved(node, operands, labels)
        (source,) = operands.values()
        if isinstance(first.key, int) and (
            family_of(node) in RESHAPES or (family_of(node) == "cat" and sizes(node) == sizes(source))
        ):
            return _all_of(node, first.home, first.key, first.experts, first.modules)
        return first if _keeps_rows(node, source) else _moved(node, operands, labels)
    if any(label.key != first.key for label in labels) or first.modules:
        scaled = isinstance(row, Product) and len(operands) == 1
        return first if scaled and sizes(node) == sizes(next(iter(operands.values()))) else None
    if isinstance(row, Linear) and family_of(node) in ("mean", "sum"):  # a norm that is written out
        return first if len(sizes(node)) > 1 and sizes(node)[-1] == "1" and _same_rows(node, operands) else None
    if isinstance(row, (Elementwise, Product, Sum, Normalise)) or family_of(node) == "linear":
        return first if _same_rows(node, operands) else None
    return None


def _same_rows(node: fx.Node, operands: Mapping[str, fx.Node]) -> bool:
    return all(sizes(source)[:-1] == sizes(node)[:-1] for source in operands.values())


def _keeps_rows(node: fx.Node, source: fx.Node) -> bool:
    """Does a move leave rows where they are: a cast, a cut of the last dimension, one of its pieces?"""
    family, bound = family_of(node), bound_arguments(node)
    if family in SAME:
        return True
    if family in ("slice", "split", "split_with_sizes", "chunk"):
        dims = len(shape_of(source) or ())
        return dims > 1 and bound.get("dim", 0) % dims == dims - 1
    if family == "getitem":
        return _keeps_rows(source, source.all_input_nodes[0]) if family_of(source) in PIECES else False
    return False


PIECES = frozenset({"split", "split_with_sizes", "chunk"})


def _moved(node: fx.Node, operands: Mapping[str, fx.Node], labels: list[Label]) -> Label | None:
    """A move moves the numbers of experts as it moves the values."""
    sources = dict(zip(operands.values(), labels, strict=True))
    others = [n for n in node.all_input_nodes if n not in sources]
    reads = dict.fromkeys([*sources, *others, *(n for label in labels for n in label.reads)])
    target: Any = node.target

    def of(values: Values) -> Any:
        def number(argument: fx.Node) -> Any:
            value = values[argument]
            if argument in sources:
                found = sources[argument].of(values)
                if isinstance(value, Tensor):
                    return found.expand(value.shape)
                return [part.expand(v.shape) for part, v in zip(found, value, strict=True)]
            floating = isinstance(value, Tensor) and value.is_floating_point()
            return torch.full(value.shape, -1, device=value.device) if floating else value

        args = fx.node.map_arg(node.args, number)
        return target(*args, **fx.node.map_arg(node.kwargs, number))

    numbers = frozenset(n for label in labels for n in label.numbers)
    first = labels[0]
    return Label(first.home, node, first.experts, numbers, tuple(reads), of, first.modules)
