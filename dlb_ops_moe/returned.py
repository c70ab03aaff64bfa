"""What experts return: the values in a graph whose rows each belong to one expert, and to which.

Experts are the slices of a parameter with a dimension for them (routed products, one product per expert), or numbered
modules beside each other. `Label`s are handed on by ops that keep rows, and moved as the values are.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.rules import (
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
)
from dlb_ops_moe.graphs import RESHAPES, SAME, active_operands, family_of, shape_of, sizes
from dlb_ops_moe.labels import Label, Values, all_of
from dlb_ops_moe.slices import Slices

NUMBERED = re.compile(r"([^@]*?)(\d+)(?:@\d+)?$")  # a module's second call ends with @1


class Returned:
    """The labels of a graph's values, found in one walk."""

    def __init__(self, program: Program, registry: Registry) -> None:
        self._registry = registry
        self._slices = Slices(program)
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
                return all_of(node, *numbers[0][:2], modules=True) if numbers else known
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
            return all_of(node, first.home, first.key, first.experts, first.modules)
        stays = family_of(node) in SAME or (not first.whole and _keeps_rows(node, source))
        return first if stays else _moved(node, operands, labels)
    same = all(sizes(source) == sizes(node) for source in operands.values())
    if any(label.key != first.key for label in labels) or (first.whole and not same):
        return None
    if first.modules:
        return first if same and isinstance(row, Product) and len(operands) == 1 else None
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
    return Label(first.home, node, first.experts, numbers, tuple(reads), of, first.modules, whole=True)
