"""A program: torch's own fx graph, its inputs by name, its parameters by name, its outputs."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dlb_core.errors import InputMismatchError
from dlb_core.kernel.ops import fake_tensors, module_chain


@dataclass(frozen=True)
class Input:
    """One leaf of the model's inputs: a tensor with its traced shape, or a constant that must not change."""

    name: str
    node: fx.Node | None
    shape: tuple[Any, ...] = ()  # ints where the trace is fixed, symbols (as text) where any size goes
    dtype: torch.dtype | None = None
    constant: Any = None


@dataclass
class Parameter:
    """A tensor of the model: a parameter, a buffer, a lifted constant, or one that a pass derived.

    A derived one is computed from `sources` by `compute` again whenever one of them was changed in place.
    """

    name: str
    kind: str
    tensor: Tensor
    sources: tuple[Parameter, ...] = ()
    compute: Callable[..., Tensor] | None = None
    _versions: tuple[int, ...] = ()

    def value(self) -> Tensor:
        """The tensor now."""
        if self.compute is not None:
            versions = self.versions()
            if versions != self._versions:
                self.tensor = self.compute(*(s.value() for s in self.sources))
                self._versions = versions
        return self.tensor

    def versions(self) -> tuple[int, ...]:
        """How often each of the model's tensors behind it was changed in place; a derived one may have derived ones."""
        if self.compute is None:
            return (self.tensor._version,)
        return tuple(version for source in self.sources for version in source.versions())


@dataclass
class Program:
    """What a tracer writes and passes rewrite; everything downstream reads only this."""

    graph: fx.Graph
    inputs: tuple[Input, ...]
    in_spec: pytree.TreeSpec
    signature: inspect.Signature | None
    parameters: dict[str, Parameter]  # by placeholder name
    outputs: tuple[Any, ...]  # flat: nodes and constants
    output_names: tuple[str, ...]
    out_spec: pytree.TreeSpec | None
    upper_bounds: Mapping[str, int] = field(default_factory=dict)  # symbol -> largest size the trace allows
    aliases: dict[str, str] = field(default_factory=dict)  # a node that a pass took out -> the one that answers
    modules: dict[str, str] = field(default_factory=dict)  # module path -> its last node, as traced
    sites: dict[str, list[Any]] = field(default_factory=dict)  # by topic: parts of the graph that packs recognised
    tracer: str = "export"
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __post_init__(self) -> None:
        for node in self.graph.nodes:
            if fake_tensors(node):  # not an assertion or a size
                self.modules |= dict.fromkeys(module_chain(node), node.name)

    def resolve(self, name: str) -> str:
        """The node that answers to a node name, a module path or a name that a pass took out."""
        name = self.modules.get(name, name)
        while name in self.aliases:
            name = self.aliases[name]
        return name

    def takes(self, name: str) -> bool:
        """Does the model's forward take a keyword argument of this name?"""
        traced = {i.name.partition(".")[0] for i in self.inputs}
        return name in traced or (self.signature is not None and name in self.signature.parameters)

    def drop(self, node: fx.Node, instead: fx.Node) -> None:
        """Takes a node out; `instead` takes its users and answers to its name."""
        node.replace_all_uses_with(instead)
        self.outputs = tuple(instead if out is node else out for out in self.outputs)
        self.aliases[node.name] = instead.name
        self.graph.erase_node(node)

    def rename(self, node: fx.Node, name: str) -> None:
        """Calls a node by a name that is free, or that answers for it already."""
        self.aliases.pop(name, None)
        self.aliases[node.name] = name
        node.name = name

    def derive(self, name: str, sources: Sequence[Parameter], compute: Callable[..., Tensor]) -> fx.Node:
        """A new parameter computed from others, as a placeholder in front of the graph."""
        value = compute(*(s.value() for s in sources))
        parameter = Parameter(name, "derived", value, tuple(sources), compute)
        parameter._versions = parameter.versions()
        first = next(iter(self.graph.nodes))
        with self.graph.inserting_before(first):
            node = self.graph.placeholder(f"d_{name.replace('.', '_')}")
        node.meta["val"] = value.to("meta")
        self.parameters[node.name] = parameter
        return node

    def bind_inputs(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> dict[fx.Node, Tensor]:
        """The tensors of a call by placeholder, checked against what was traced."""
        args, kwargs = canonical_call(self.signature, args, kwargs)
        leaves, spec = pytree.tree_flatten((args, dict(kwargs)))
        if spec != self.in_spec or len(leaves) != len(self.inputs):
            expected = ", ".join(i.name for i in self.inputs)
            raise InputMismatchError(
                f"the inputs have another structure than the traced ones: expected {expected} "
                f"({len(self.inputs)} leaves), got {describe(args, kwargs)}. Trace again with inputs of this structure."
            )
        symbols: dict[str, tuple[int, str]] = {}
        tensors: dict[fx.Node, Tensor] = {}
        for traced, value in zip(self.inputs, leaves, strict=True):
            self._check(traced, value, symbols)
            if traced.node is not None:
                tensors[traced.node] = value
        return tensors

    def _check(self, traced: Input, value: Any, symbols: dict[str, tuple[int, str]]) -> None:
        if traced.dtype is None:
            if not (value is traced.constant or value == traced.constant):
                raise InputMismatchError(
                    f"input {traced.name!r} is a constant of the trace: expected {traced.constant!r}, got {value!r}. "
                    "Trace again with the new value."
                )
            return
        if not isinstance(value, Tensor):
            raise InputMismatchError(f"input {traced.name!r}: expected a tensor, got {type(value).__name__}")
        shown = f"expected {_shape_text(traced.shape)} {traced.dtype} on {self.device}"
        got = f"got {_shape_text(value.shape)} {value.dtype} on {value.device}"
        if value.dtype != traced.dtype:
            raise InputMismatchError(
                f"input {traced.name!r} has another dtype: {shown}, {got}. Convert it with .to({traced.dtype})."
            )
        if value.device.type != self.device.type:
            raise InputMismatchError(
                f"input {traced.name!r} is on another device: {shown}, {got}. Move it with .to({str(self.device)!r})."
            )
        wrong = value.dim() != len(traced.shape)
        for size, want in zip(value.shape, traced.shape, strict=False):
            if wrong:
                break
            if isinstance(want, int):
                wrong = size != want
                continue
            known, owner = symbols.setdefault(want, (size, traced.name))
            if known != size:
                raise InputMismatchError(
                    f"input {traced.name!r}: size {size} where input {owner!r} has {known}; "
                    f"both sizes are {want} in the trace, so make them equal"
                )
            if size > self.upper_bounds.get(want, size):
                raise InputMismatchError(
                    f"input {traced.name!r}: size {size} is beyond the largest the model allows here "
                    f"({self.upper_bounds[want]}): shorten or crop it"
                )
        if wrong:
            raise InputMismatchError(
                f"input {traced.name!r} has another shape: {shown}, {got}. Sizes shown as letters may change; "
                f"for others trace again, or name the dimension in dynamic_shapes={{{traced.name!r}: (dims, ...)}}."
            )


def canonical_call(
    signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The same call however it is spelled: by position or by name."""
    if signature is None:
        return args, dict(kwargs)
    try:
        bound = signature.bind(*args, **kwargs)
    except TypeError as error:
        names = ", ".join(signature.parameters)
        raise InputMismatchError(
            f"the model's forward does not take these inputs ({error}); it takes: {names}"
        ) from None
    return bound.args, dict(bound.kwargs)


def input_names(signature: inspect.Signature | None, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[str]:
    """A name for every leaf of a call: the forward argument, and the path inside it (``batch.image``)."""
    tops = _positional_names(signature, len(args))
    names = []
    leaves, _ = pytree.tree_flatten_with_path((args, dict(kwargs)))
    for path, _ in leaves:
        side, top, *rest = (_key(k) for k in path)
        head = tops[int(top)] if side == "0" else top
        names.append(".".join([head, *rest]))
    return names


def _positional_names(signature: inspect.Signature | None, n: int) -> list[str]:
    if signature is None:
        return [f"arg{i}" for i in range(n)]
    names: list[str] = []
    for parameter in signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_POSITIONAL:
            names += [f"{parameter.name}.{i}" for i in range(n - len(names))]
        elif parameter.kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD):
            names.append(parameter.name)
    return names


def _key(entry: Any) -> str:
    for attribute in ("idx", "key", "name"):
        if hasattr(entry, attribute):
            return str(getattr(entry, attribute))
    return str(entry)


def _shape_text(shape: Sequence[Any]) -> str:
    return f"[{', '.join(map(str, shape))}]"


def describe(args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> str:
    """A call in a few words, for error texts."""

    def one(value: Any) -> str:
        return f"{_shape_text(value.shape)} {value.dtype}" if isinstance(value, Tensor) else type(value).__name__

    return ", ".join([*map(one, args), *(f"{k}={one(v)}" for k, v in kwargs.items())]) or "nothing"
