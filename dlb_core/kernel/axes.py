"""Where a node has its channels and its heads: known where an op makes them, followed through the graph from there.

An op with weights makes new channels, on a dimension that its row names; attention makes its result by heads. What
follows keeps them somewhere: a pool in place, a permutation elsewhere, a reshape as blocks of a longer dimension. To
find out where, the op is run on an example in which every element holds the number of its channel (or head).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dlb_core.kernel.facts import facts, operand_nodes
from dlb_core.kernel.kinds import Attention, Bilinear, Elementwise, Linear, Move, Normalise, Product, Row, Softmax, Sum
from dlb_core.kernel.labels import fresh, grown, moved, shape_of
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.ops import module_chain

HEAD_DIM = -3  # of what attention returns: [..., heads, queries, values]
ALIGNED = (Elementwise, Product, Sum, Normalise, Softmax)  # element by element, broadcasting


@dataclass(frozen=True)
class Axis:
    """A dimension of a node's output, and which channel or head each position on it belongs to.

    `members` is None where every position is one of its own. Where heads lie in the batch (sample after sample, head
    after head) they repeat with it.
    """

    dim: int
    members: Tensor | None = None

    def count(self, shape: torch.Size) -> int:
        """How many channels or heads an output of this shape has."""
        return shape[self.dim] if self.members is None else int(self.members.max()) + 1

    def totals(self, r: Tensor, rank: int) -> Tensor:
        """Relevance by channel or head: dimension 0 of the node and this one stay, the others are summed.

        rank: the node's number of dimensions; `r` may have more in front (several seeds).
        """
        lead = r.dim() - rank
        others = [lead + d for d in range(1, rank) if d != self.dim]
        summed = r.sum(others) if others else r
        if self.members is None:
            return summed
        members = self._of(summed.shape[-1])
        count = int(members.max()) + 1
        if self.dim == 0:  # heads in the batch
            return summed.reshape(*summed.shape[:-1], -1, count)
        return summed.new_zeros(*summed.shape[:-1], count).index_add(-1, members.to(r.device), summed)

    def mask(self, chosen: list[int], shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        """1 where a position belongs to the chosen, 0 elsewhere, in a shape that broadcasts against the node's."""
        kept = torch.isin(self._of(shape[self.dim]), torch.tensor(chosen)).to(device, dtype)
        return kept.reshape(-1, *[1] * (len(shape) - self.dim - 1))

    def _of(self, size: int) -> Tensor:
        """The members for so many positions; in the batch they repeat for each sample."""
        positions = torch.arange(size)
        if self.members is None:
            return positions
        return positions % (int(self.members.max()) + 1) if self.dim == 0 else self.members


class Axes:
    """The channels and heads of a program's nodes; found when asked for, once."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._makes: dict[str, Callable[[fx.Node, Row], int | None]] = {"channel": _made_channels, "head": _made_heads}
        self._labels: dict[tuple[str, fx.Node], Any] = {}

    def channels(self, node: fx.Node) -> Axis | None:
        """The channels of a node; None where the graph does not say."""
        found = self._axis("channel", node)
        if found is not None:
            return found
        shape = shape_of(node)
        if shape is None:
            return None
        if self._labelled("channel", node) is None and (dim := self._read_as(node)) is not None:
            return Axis(dim)
        return Axis(1) if len(shape) == 2 else None

    def heads(self, node: fx.Node) -> Axis | None:
        """The heads of attention's result, and of what moved it since; None elsewhere."""
        return self._axis("head", node)

    def is_attention(self, node: fx.Node) -> bool:
        """Does the node return what its heads attended to?"""
        row = self._row(node)
        return row is not None and _attends(node, row) and self.heads(node) is not None

    def attentions(self, module: str) -> list[fx.Node]:
        """The nodes in a module (or, for no name, in the model) that return what its heads attended to."""
        inside = (node for node in self._layout.nodes if not module or module in module_chain(node))
        return [node for node in inside if self.is_attention(node)]

    def _row(self, node: fx.Node) -> Row | None:
        return self._layout.rows[self._layout.slots[node.name]]

    def _axis(self, what: str, node: fx.Node) -> Axis | None:
        labels, shape = self._labelled(what, node), shape_of(node)
        if not isinstance(labels, Tensor) or shape is None:
            return None
        spread = [d for d, size in enumerate(labels.shape) if size > 1]
        if not spread:
            return self._single(what, node)
        if len(spread) > 1:
            return None
        members = labels.flatten().long()
        own = what == "channel" or bool((members == torch.arange(len(members))).all())
        return Axis(spread[0], None if own else members)

    def _single(self, what: str, node: fx.Node) -> Axis | None:
        """A single channel has nothing to differ from: it is where the op made it, as long as the layout is kept."""
        row, shape = self._row(node), shape_of(node)
        while row is not None and shape is not None:
            if (made := self._makes[what](node, row)) is not None:
                return Axis(len(shape) + made)
            kept = [s for s in _sources(node, row) if self._labels.get((what, s)) is not None and shape_of(s) == shape]
            if not isinstance(row, ALIGNED) or not kept:
                break
            node = kept[0]
            row = self._row(node)
        return None

    def _read_as(self, node: fx.Node) -> int | None:
        """The dimension that the reader of an input takes for channels, through what moves it on its way there."""
        shape = shape_of(node) or ()
        for user in node.users:
            row = self._row(user) if user.op == "call_function" else None
            if row is None:
                continue
            if row.channels is not None and operand_nodes(user, row).get(next(iter(row.carriers), "")) is node:
                return len(shape) + row.channels if len(shape) >= -row.channels else None
            if isinstance(row, (*ALIGNED, Move)) and len(shape_of(user) or ()) == len(shape):
                there = self._read_as(user)
                sources = [d for d in range(len(shape)) if there is not None and _lands(node, user, row, d, there)]
                if len(sources) == 1:
                    return sources[0]
        return None

    # labels: the number of an element's channel, with size 1 where it is the same along a dimension

    def _labelled(self, what: str, node: fx.Node) -> Any:
        """The labels of a node, walking up first so that a deep graph needs no deep stack; None: not known."""
        waiting = [node]
        while waiting:
            current = waiting[-1]
            key = what, current
            if key in self._labels:
                waiting.pop()
                continue
            row = self._row(current) if current.op == "call_function" else None
            made = None if row is None else self._makes[what](current, row)
            sources = [] if row is None or made is not None else _sources(current, row)
            if what == "head" and made is None and row is not None and _attends(current, row):
                self._labels[key] = _heads_in_batch(self._labelled("channel", current))
                continue
            missing = [s for s in sources if (what, s) not in self._labels]
            if missing:
                waiting += missing
            elif made is not None:
                self._labels[key] = pytree.tree_map(lambda v, d=made: fresh(v, d), current.meta["val"])
            elif row is None or not sources:
                self._labels[key] = None
            else:
                self._labels[key] = self._followed(current, row, {s: self._labels[what, s] for s in sources})
        return self._labels[what, node]

    def _followed(self, node: fx.Node, row: Row, sources: dict[fx.Node, Any]) -> Any:
        known = {s: labels for s, labels in sources.items() if labels is not None}
        if not known:
            return None
        if isinstance(row, ALIGNED) or _attends(node, row):
            shape = shape_of(node) or ()
            for labels in known.values():
                wide = grown(labels, len(shape)) if isinstance(labels, Tensor) else None
                if wide is not None and all(n in (1, size) for n, size in zip(wide.shape, shape, strict=True)):
                    return wide
            return None
        for truth in (False, True):  # a condition that is not known, one way or the other
            with contextlib.suppress(RuntimeError, IndexError, TypeError, ValueError):  # an example too poor for the op
                found = moved(node, row, known, truth=truth)
                if found is not None:
                    return found
        return None


def _made_channels(node: fx.Node, row: Row) -> int | None:
    """The dimension, from the right, on which an op makes new channels."""
    return None if row.channels is None or _attends(node, row) else row.channels


def _made_heads(node: fx.Node, row: Row) -> int | None:
    """Attention returns [batch, heads, queries, values]."""
    shape = shape_of(node)
    return HEAD_DIM if _attends(node, row) and shape is not None and len(shape) >= 4 else None


def _heads_in_batch(channels: Any) -> Tensor | None:
    """Where the values' channels lie in dimension 0 (by head) and in the last one (inside a head): the heads."""
    if not isinstance(channels, Tensor) or channels.dim() != 3 or channels.shape[1] != 1 or channels.shape[2] == 1:
        return None
    heads = ((channels - channels.min()) / channels.shape[2]).floor().unique(return_inverse=True)[1].double()
    count = int(heads.max()) + 1
    by_sample = (torch.arange(len(heads)) % count).reshape(-1, 1, 1)
    return heads[..., :1] if count > 1 and bool((heads == by_sample).all()) else None


def _attends(node: fx.Node, row: Row) -> bool:
    """Fused attention, or values that are weighted by a softmax."""
    return isinstance(row, Attention) or (isinstance(row, Bilinear) and bool(facts(node).gates))


def _sources(node: fx.Node, row: Row) -> list[fx.Node]:
    """The operands that an element of the output is a copy, a function or an average of; none where it mixes them."""
    operands = operand_nodes(node, row)
    if isinstance(row, Attention):
        return [operands[row.v]] if row.v in operands else []
    if isinstance(row, Bilinear):
        return [s for name, s in operands.items() if _attends(node, row) and name not in facts(node).gates]
    averages = isinstance(row, Linear) and row.weight is None and row.weights is None
    return list(operands.values()) if averages or isinstance(row, (*ALIGNED, Move)) else []


def _lands(node: fx.Node, user: fx.Node, row: Row, dim: int, there: int) -> bool:
    """Does what lies on a dimension of a node lie on dimension `there` after the op that reads it?"""
    mine, theirs = shape_of(node), shape_of(user)
    if mine is None or theirs is None:
        return False
    if isinstance(row, ALIGNED):
        return dim == there and mine[dim] == theirs[there]
    with contextlib.suppress(RuntimeError, IndexError, TypeError, ValueError):
        found = moved(user, row, {node: fresh(node.meta["val"], dim - len(mine))}, truth=False)
        return isinstance(found, Tensor) and [d for d, size in enumerate(found.shape) if size > 1] == [there]
    return False
