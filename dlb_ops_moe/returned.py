"""What experts return: the values in a graph whose rows each belong to one expert, and to which.

Experts are the slices of a parameter with a dimension for them (routed products, one product per expert), or numbered
modules beside each other. What is known of a value is a `Label`: a function that gives the expert of every element.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable, Mapping
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
from dlb_ops_moe.graphs import active_operands, family_of, shape_of, size

Values = Mapping[fx.Node, Any]
NUMBERED = re.compile(r"(.*?)(\d+)(?:@\d+)?$")
SAME = frozenset({"clone", "alias", "detach", "_to_copy", "contiguous", "to", "type_as", "dropout", "lift_fresh_copy"})
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
        around = set(self._chain(user))
        for path in self._chain(node):
            if path not in around:  # the outermost module that was left on the way
                found = NUMBERED.fullmatch(path.rpartition(".")[2])
                if found:
                    return _numbered(node, path, found)
        return self._labels.get(node)

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
        source = _source(node, row, operands, self._registry)
        if source is not None:
            return source
        known = [label for label in labels.values() if label is not None]
        if not known or len(known) < len(labels):
            return None
        return _handed_on(node, row, operands, known)

    def _note_layers(self, node: fx.Node, labels: Mapping[str, Label | None]) -> None:
        mine = {NUMBERED.sub(r"\1", path) for path in self._chain(node)}
        self.in_a_row |= {label.home for label in labels.values() if label and label.modules and label.home in mine}


def _numbered(node: fx.Node, path: str, found: re.Match[str]) -> Label | None:
    """The output of a numbered module: all of it is that module's."""
    home = path[: -len(path.rpartition(".")[2])] + found[1]
    number = int(found[2])

    def of(values: Values) -> Tensor:
        value: Tensor = values[node]
        return torch.full((*value.shape[:-1], 1), number, device=value.device)

    return Label(home, number, None, frozenset({number}), (node,), of, modules=True)


def _source(node: fx.Node, row: Row, operands: Mapping[str, fx.Node], registry: Registry) -> Label | None:
    """An op that maps each row by its expert's slice of a parameter."""
    bound = bound_arguments(node)
    family = family_of(node)
    if family == "expert_linear":
        return _routed(node, bound)
    if family in GROUPED:
        return _grouped(node, bound)
    if not isinstance(row, (Linear, Bilinear)) or len(operands) != 1:
        return None
    carriers = operand_nodes(node, row)
    weights = [source for name, source in carriers.items() if name not in operands and name != row.bias]
    if len(weights) != 1:
        return None
    return _sliced(node, weights[0])


def _home(node: fx.Node) -> str:
    chain = module_chain(node)
    return chain[-1] if chain else ""


def _routed(node: fx.Node, bound: Mapping[str, Any]) -> Label | None:
    index, weight = bound["index"], bound["weight"]
    experts = _experts(weight)
    if experts is None:
        return None
    return Label(_home(node), index, experts, frozenset(), (index,), lambda values: values[index].unsqueeze(-1))


def _grouped(node: fx.Node, bound: Mapping[str, Any]) -> Label | None:
    """Rows sorted by expert: `offs` says where each expert's rows end."""
    offs, weight = bound.get("offs"), bound.get("mat2", bound.get("weight"))
    experts = _experts(weight)
    if experts is None or not isinstance(offs, fx.Node) or len(shape_of(node) or ()) != 2:
        return None

    def of(values: Values) -> Tensor:
        ends = values[offs]
        rows = torch.arange(values[node].shape[0], device=ends.device)
        found = torch.searchsorted(ends, rows.to(ends.dtype), right=True)
        return torch.where(found < len(ends), found, -1).unsqueeze(-1)

    return Label(_home(node), offs, experts, frozenset(), (offs, node), of)


def _sliced(node: fx.Node, weight: Any) -> Label | None:
    """One product per expert (a slice by number), or one slice for every row (an index, and a product of batches)."""
    cut = _behind_moves(weight)
    if cut is None:
        return None
    bound = bound_arguments(cut)
    experts = _experts(bound["self"])
    if experts is None:
        return None
    if family_of(cut) == "select":
        number = bound["index"]
        if bound["dim"] != 0 or not isinstance(number, int):
            return None
        number %= experts

        def chosen(values: Values) -> Tensor:
            value: Tensor = values[node]
            return torch.full((*value.shape[:-1], 1), number, device=value.device)

        return Label(_home(node), number, experts, frozenset({number}), (node,), chosen)
    places = bound["indices"]
    if len(places) != 1 or not isinstance(places[0], fx.Node) or family_of(node) != "bmm":
        return None
    index = places[0]
    if len(shape_of(index) or ()) != 1:
        return None
    return Label(_home(node), index, experts, frozenset(), (index,), lambda values: values[index][:, None, None])


def _behind_moves(weight: Any) -> fx.Node | None:
    """The slice of a parameter that a weight is, seen through casts and transposes of the matrix."""
    while isinstance(weight, fx.Node) and weight.op == "call_function":
        family = family_of(weight)
        if family in ("select", "index"):
            return weight
        if family not in SAME and family not in ("t", "transpose", "permute"):
            return None
        weight = bound_arguments(weight).get("self")
    return None


def _experts(weight: Any) -> int | None:
    """How many experts a parameter has room for: its first dimension."""
    while isinstance(weight, fx.Node) and weight.op == "call_function":
        family = family_of(weight)
        bound = bound_arguments(weight)
        swaps = family in ("transpose", "mT") and 0 not in (bound.get("dim0"), bound.get("dim1"))
        if family not in SAME and not swaps:
            return None
        weight = bound.get("self")
    shape = shape_of(weight) if isinstance(weight, fx.Node) else None
    if shape is None or len(shape) != 3:
        return None
    return size(shape[0])


def _handed_on(node: fx.Node, row: Row, operands: Mapping[str, fx.Node], labels: list[Label]) -> Label | None:
    """What an op makes of values that experts made."""
    first = labels[0]
    if any(label.home != first.home for label in labels):
        return None
    if isinstance(row, Move):
        if len(operands) == 1 and _keeps_rows(node, next(iter(operands.values()))):
            return first
        return _moved(node, operands, labels)
    if any(label.key != first.key for label in labels) or first.modules:
        scaled = isinstance(row, Product) and len(operands) == 1
        return first if scaled and shape_of(node) == shape_of(next(iter(operands.values()))) else None
    if isinstance(row, (Elementwise, Product, Sum, Normalise)):
        return first if all(shape_of(source) == shape_of(node) for source in operands.values()) else None
    if isinstance(row, Linear) and family_of(node) == "linear":
        return first
    return None


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
