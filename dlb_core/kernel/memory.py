"""Tensors that share memory, as values of a functional graph.

Eager code writes in place, and looks at one memory through many tensors. Here every piece of memory is a `Root` with
the node that holds its value now, and every tensor an `Alias`: the root and the views that lead from it. A write makes
a new value of the root, going back through the views; an alias that is read after a write goes through them again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils.weak import WeakTensorKeyDictionary

from dlb_core.errors import TraceError
from dlb_core.kernel.ops import bound_arguments, op_name
from dlb_core.kernel.surroundings import Saved

aten = torch.ops.aten
Emit = Callable[[Any, Any, Any, Any], fx.Node]  # (op, args, kwargs, what it gives, without memory) -> a new node


@dataclass(eq=False)
class Root:
    """A piece of memory: the node that holds its value now, and how often it was written to."""

    node: fx.Node
    memory: StorageWeakRef
    geometry: tuple[Any, ...]
    leaf: Tensor | None = None  # the model's own tensor, put back after the recording
    writes: int = 0


@dataclass(frozen=True)
class View:
    """One view op as it was recorded: its node, the node it looked at, which of several outputs."""

    node: fx.Node
    parent: fx.Node
    index: int | None = None


@dataclass(eq=False)
class Alias:
    """A tensor: the memory it looks at, through which views, and its value after so many writes."""

    root: Root
    views: tuple[View, ...]
    node: fx.Node
    writes: int


@dataclass
class Memory:
    """Which tensor holds the value of which node, while a model runs.

    Tensors and storages are held weakly: memory is freed as it is without the tape.
    """

    emit: Emit
    _aliases: Any = field(default_factory=WeakTensorKeyDictionary)
    _roots: dict[StorageWeakRef, list[Root]] = field(default_factory=dict)
    _saved: list[Saved] = field(default_factory=list)

    def add(self, tensor: Tensor, node: fx.Node, *, leaf: bool = False) -> None:
        """A tensor with memory of its own. leaf: it is the model's, and must not be changed for good."""
        memory = StorageWeakRef(tensor.untyped_storage())
        root = Root(node, memory, geometry(tensor), tensor if leaf else None)
        roots = self._roots.setdefault(memory, [])
        roots[:] = [*roots, root] if leaf else [root]  # only parameters and buffers may be parts of one memory
        self._aliases[tensor] = Alias(root, (), node, 0)

    def add_view(self, tensor: Tensor, of: Tensor, node: fx.Node, view: View) -> None:
        """A tensor that looks at the memory of another one."""
        base = self._aliases[of]
        self._aliases[tensor] = Alias(base.root, (*base.views, view), node, base.writes)

    def add_strided(self, tensor: Tensor, of: Tensor) -> None:
        """A tensor whose strides count through the memory of another one: what `as_strided` makes."""
        self._restride(tensor, self._aliases[of].root)

    def renew(self, tensor: Tensor, node: fx.Node) -> None:
        """Another node holds the same value from here on."""
        self._aliases[tensor].node = node

    def knows(self, tensor: Tensor) -> bool:
        """Is there a node for this tensor, or for the memory it looks at?"""
        alias: Alias | None = self._aliases.get(tensor)
        memory = StorageWeakRef(tensor.untyped_storage())
        if alias is not None and alias.root.memory == memory:
            return True  # otherwise it was given other memory: `tensor.data = ...`
        roots = self._roots.get(memory, [])
        for root in roots:
            if root.geometry == geometry(tensor):  # `tensor.data` tells nobody that it looks
                self._aliases[tensor] = Alias(root, (), root.node, root.writes)
                return True
        if any(root.leaf is None or root.writes for root in roots):
            self._restride(tensor, roots[0])
            return True
        return False

    def shares(self, tensor: Tensor, other: Tensor) -> bool:
        """Do both look at the same memory?"""
        return bool(StorageWeakRef(tensor.untyped_storage()) == StorageWeakRef(other.untyped_storage()))

    def read(self, tensor: Tensor) -> fx.Node:
        """The node with the tensor's value now."""
        alias: Alias = self._aliases[tensor]
        if alias.writes != alias.root.writes:
            alias.node = self._along(alias)[-1]
            alias.writes = alias.root.writes
        return alias.node

    def write(self, tensor: Tensor, node: fx.Node) -> None:
        """The tensor's value is that of `node` from here on, and so is what others see of its memory."""
        alias: Alias = self._aliases[tensor]
        root = alias.root
        if len(self._roots[root.memory]) > 1:
            raise TraceError("the model writes to memory that several of its parameters or buffers share")
        if root.leaf is not None and not root.writes:
            self._saved.append(Saved(root.leaf))
        parents = self._along(alias)[:-1] if alias.views else []
        value = node
        for view, parent in zip(reversed(alias.views), reversed(parents), strict=True):
            value = self._undo(view, parent, value)
        root.node = value
        root.writes += 1
        alias.node, alias.writes = node, root.writes

    def restore(self) -> None:
        """Puts back what was written to the model's own tensors."""
        for saved in self._saved:
            saved.put_back()

    def _restride(self, tensor: Tensor, root: Root) -> None:
        """The tensor as a view of its memory, which is the root's value in the order in which it lies there."""
        dtype, offset, shape, strides = root.geometry
        order = sorted(range(len(shape)), key=lambda dim: -strides[dim])
        start = tensor.storage_offset() - offset
        end = start + sum((n - 1) * step for n, step in zip(tensor.shape, tensor.stride(), strict=True))
        dense = torch.empty_strided(shape, strides, device="meta").permute(order).is_contiguous()
        packed = root.node.meta["val"].permute(order).contiguous()
        if dtype != tensor.dtype or not dense or start < 0 or end >= max(1, packed.numel()):
            raise TraceError("the model looks at memory by strides in a way that the tape cannot follow")
        views: list[View] = []
        node = root.node
        if order != list(range(len(order))):
            node = self.emit(aten.permute.default, (node, order), {}, packed)
            views.append(View(node, root.node))
        arguments = (node, list(tensor.shape), list(tensor.stride()), start)
        view = self.emit(aten.as_strided.default, arguments, {}, packed.as_strided(*arguments[1:]))
        self._aliases[tensor] = Alias(root, (*views, View(view, node)), view, root.writes)

    def _along(self, alias: Alias) -> list[fx.Node]:
        """The values now from the root to the alias."""
        nodes = [alias.root.node]
        for view in alias.views:
            nodes.append(self._again(view, nodes[-1]))
        return nodes

    def _again(self, view: View, parent: fx.Node) -> fx.Node:
        def swap(a: fx.Node) -> fx.Node:
            return parent if a is view.parent else a

        args, kwargs = fx.node.map_arg(view.node.args, swap), fx.node.map_arg(view.node.kwargs, swap)
        node = self.emit(view.node.target, args, kwargs, view.node.meta["val"])
        if view.index is None:
            return node
        return self.emit(operator.getitem, (node, view.index), {}, node.meta["val"][view.index])

    def _undo(self, view: View, parent: fx.Node, value: fx.Node) -> fx.Node:
        """The parent's new value when what a view of it showed becomes `value`."""
        name = op_name(view.node.target).rpartition(".")[0]
        undo = _UNDO.get(name)
        if undo is None:
            raise TraceError(f"the model writes through a view made by {name}, which the tape cannot follow")
        target, args = undo(view, parent, value)
        return self.emit(target, args, {}, parent.meta["val"])


def geometry(tensor: Tensor) -> tuple[Any, ...]:
    """How a tensor looks at its memory."""
    return tensor.dtype, tensor.storage_offset(), tuple(tensor.shape), tensor.stride()


Undone = tuple[Any, tuple[Any, ...]]  # the op, and its arguments
Undo = Callable[[View, fx.Node, fx.Node], Undone]


def _reshaped(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    """The same elements in the same order."""
    return aten.view.default, (value, list(parent.meta["val"].shape))


def _expanded(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    if parent.meta["val"].numel() != value.meta["val"].numel():
        raise TraceError("the model writes to an expanded tensor, in which several elements are one")
    return _reshaped(view, parent, value)


def _permuted(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    dims: list[int] = bound_arguments(view.node)["dims"]
    order = [d % len(dims) for d in dims]
    return aten.permute.default, (value, [order.index(d) for d in range(len(order))])


def _mirrored(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    """Views that undo themselves."""
    return view.node.target, (value, *view.node.args[1:])


def _scattered(op: Any) -> Undo:
    """The parent with `value` in the place that the view showed."""

    def undo(view: View, parent: fx.Node, value: fx.Node) -> Undone:
        _, *where = bound_arguments(view.node).values()
        return op, (parent, value, *where)

    return undo


def _part(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    """One of several pieces along a dimension."""
    dim = bound_arguments(view.node)["dim"]
    start = sum(piece.shape[dim] for piece in view.node.meta["val"][: view.index])
    return aten.slice_scatter.default, (parent, value, dim, start, start + value.meta["val"].shape[dim])


def _unbound(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    return aten.select_scatter.default, (parent, value, bound_arguments(view.node)["dim"], view.index)


def _as_complex(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    return aten.view_as_complex.default, (value,)


def _as_real(view: View, parent: fx.Node, value: fx.Node) -> Undone:
    return aten.view_as_real.default, (value,)


_UNDO: dict[str, Undo] = {
    **dict.fromkeys(("aten::view", "aten::_unsafe_view", "aten::_reshape_alias", "aten::unsqueeze"), _reshaped),
    **dict.fromkeys(("aten::squeeze", "aten::alias", "aten::detach", "aten::lift_fresh"), _reshaped),
    "aten::expand": _expanded,
    "aten::permute": _permuted,
    **dict.fromkeys(("aten::transpose", "aten::t"), _mirrored),
    "aten::select": _scattered(aten.select_scatter.default),
    "aten::slice": _scattered(aten.slice_scatter.default),
    "aten::diagonal": _scattered(aten.diagonal_scatter.default),
    "aten::as_strided": _scattered(aten.as_strided_scatter.default),
    **dict.fromkeys(("aten::split", "aten::split_with_sizes"), _part),
    "aten::unbind": _unbound,
    "aten::view_as_real": _as_complex,
    "aten::view_as_complex": _as_real,
}
