"""What is inside a node, by the words of a caller: its channels, its heads, and some of them by number."""

from __future__ import annotations

import difflib
import operator
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, SupportsIndex

import torch
from torch import Tensor, fx

from dlb_core.kernel.axes import Axes, Axis
from dlb_core.kernel.ops import module_path, traced_shape


@dataclass(frozen=True, init=False)
class Heads:
    """Attention heads by number, counted from 0 (from the end when negative): `Heads(0, 3)` or `Heads([0, 3])`.

    For `through={"encoder.layer.0.attention": Heads(0, 3)}`, and as a target where `at=` names an attention.
    """

    which: tuple[int, ...]

    def __init__(self, *which: int | Iterable[int]) -> None:
        first = which[0] if len(which) == 1 else which
        object.__setattr__(self, "which", as_numbers("Heads", first))


@dataclass(frozen=True)
class Inside:
    """The channels and heads behind the names of one program.

    find: name -> node. label: node -> its name in results.
    """

    axes: Axes
    find: Callable[[str], fx.Node]
    label: Callable[[fx.Node], str]

    def channels(self, name: str) -> tuple[fx.Node, Axis]:
        """The node behind a name, and its dimension of channels; ValueError where the graph does not say."""
        node = self.find(name)
        axis = self.axes.channels(node)
        if axis is None:
            advice = "its relevance lies by heads" if self.axes.heads(node) else "give dim="
            raise ValueError(
                f"{name!r} ({self._described(node)}) has no dimension that the graph knows as channels: {advice}, or "
                "name a convolution, a linear layer, or what keeps its layout"
            )
        return node, axis

    def heads(self, name: str) -> tuple[fx.Node, Axis]:
        """The node behind a name, or the one attention inside the module of that name, and its dimension of heads."""
        node = self.find(name)
        axis = self.axes.heads(node)
        if axis is not None:
            return node, axis
        attentions = self.axes.attentions(name)
        if len(attentions) == 1:
            (node,) = attentions
            axis = self.axes.heads(node)
        if axis is None:
            raise ValueError(f"{name!r} ({self._described(node)}) {self._where_heads_are(attentions)}")
        return node, axis

    def parts(self, name: str, wanted: Any) -> tuple[fx.Node, Axis, list[int]]:
        """The node, dimension and numbers that are meant: heads where `wanted` says so or the op attends."""
        if isinstance(wanted, Heads) or self.axes.is_attention(self.find(name)):
            node, axis = self.heads(name)
            numbers = wanted.which if isinstance(wanted, Heads) else as_numbers(name, wanted)
            return node, axis, list(numbers)
        node, axis = self.channels(name)
        return node, axis, list(as_numbers(name, wanted))

    def _described(self, node: fx.Node) -> str:
        value = node.meta.get("val")
        shape = f" {list(traced_shape(value))}" if isinstance(value, Tensor) else " with several outputs"
        return f"node {self.label(node)!r}{shape}"

    def _where_heads_are(self, inside: Sequence[fx.Node]) -> str:
        if inside:
            return f"holds several attentions: name one of {', '.join(self._named(inside))}"
        known = self._named(self.axes.attentions(""))
        return f"has no heads; the attentions are {', '.join(known)}" if known else "has no heads, nor has this model"

    def _named(self, nodes: Sequence[fx.Node]) -> list[str]:
        shown = [f"{self.label(node)!r} (in {module_path(node) or 'the model itself'})" for node in nodes[:8]]
        return [*shown, f"and {len(nodes) - 8} more"] if len(nodes) > 8 else shown


def inner_target(target: Any, name: str, inside: Inside) -> Any:
    """A target at an inner node as an index into its value: a number alone is a channel there, at all positions.

    At an attention it is a head. A list has one per sample; all else indexes the value as it would an output.
    """
    if isinstance(target, list):
        return [inner_target(one, name, inside) for one in target]
    one = isinstance(target, SupportsIndex) and not isinstance(target, (bool, Tensor))
    if not isinstance(target, Heads) and not one:
        return target
    wanted = target.which if isinstance(target, Heads) else [target]
    if len(wanted) != 1:
        raise ValueError(f"{target!r} as a target: one head to a seed, targets=[Heads(0), Heads(3)] for several")
    node = inside.find(name)
    by_head = isinstance(target, Heads) or inside.axes.is_attention(node)
    axis = inside.heads(name)[1] if by_head else inside.axes.channels(node)
    if axis is None or axis.dim == 0:
        return target
    where: Any = wanted[0]
    if axis.members is not None:
        members = axis.members.tolist()
        head = where % (max(members) + 1)
        if head != where and where != head - max(members) - 1:
            raise ValueError(f"head {where} is out of range: choose from 0 .. {max(members)}")
        where = slice(members.index(head), members.index(head) + members.count(head))
    return where if axis.dim == 1 else (*[slice(None)] * (axis.dim - 1), where)


def as_numbers(name: str, wanted: Any, what: str = "channel or head") -> tuple[int, ...]:
    """Channels, heads or experts as ints: one number, or several in any order; ValueError for anything else."""
    found: Any = wanted.tolist() if isinstance(wanted, Tensor) else wanted
    if isinstance(found, SupportsIndex) and not isinstance(found, bool):
        found = [found]
    plain = isinstance(found, Iterable) and not isinstance(found, (str, bytes, dict))
    numbers = list(found) if plain else []
    if not numbers or not all(isinstance(n, SupportsIndex) and not isinstance(n, bool) for n in numbers):
        raise ValueError(f"{name}: {wanted!r} names no {what}: give an int, or a list of at least one")
    return tuple(operator.index(n) for n in numbers)


def in_range(name: str, numbers: Iterable[int], axis: Axis, shape: torch.Size, what: str) -> list[int]:
    """The numbers counted from 0; ValueError for one that is not there."""
    count = axis.count(shape)
    for number in numbers:
        if not -count <= number < count:
            raise ValueError(f"through[{name!r}] names {what} {number}: choose from 0 .. {count - 1}")
    return [number % count for number in numbers]


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """What is called nearly so, as half a sentence; empty where nothing is."""
    near = difflib.get_close_matches(name, list(dict.fromkeys(known)), n=4, cutoff=0.5)
    return f"did you mean {', '.join(map(repr, near))}? " if near else ""
