"""Names and signatures of ops, read off their schemas: the kernel knows no op by name."""

from __future__ import annotations

import inspect
import math
from functools import lru_cache
from typing import Any

from torch import Tensor, fx
from torch._ops import OpOverload


def op_name(target: Any) -> str:
    """``aten::add.Tensor`` for an overload, ``operator.mul`` for a function, ``layer::<class>`` for a layer."""
    layer: str | None = getattr(target, "dlb_op", None)
    return _op_name(target) if layer is None else layer


@lru_cache(maxsize=4096)
def _op_name(target: Any) -> str:
    if isinstance(target, OpOverload):
        return f"{target._schema.name}.{target._overloadname}"
    module = getattr(target, "__module__", "").lstrip("_")
    return f"{module}.{getattr(target, '__name__', target)}"


def family_name(name: str) -> str:
    """The name that stands for all overloads: ``aten::add.Tensor`` -> ``aten::add``."""
    return name.rsplit(".", 1)[0] if "::" in name else name


def op_schema(target: Any) -> str:
    """The op's signature, for people."""
    if isinstance(target, OpOverload):
        return str(target._schema)
    try:
        return f"{op_name(target)}{inspect.signature(target)}"
    except (TypeError, ValueError):
        return op_name(target)


def _parameters(target: Any) -> tuple[tuple[str, Any], ...]:
    """(name, default) of every parameter; `inspect.Parameter.empty` where there is no default."""
    # a layer belongs to one program and must not outlive it in a cache
    return _read_parameters(target) if hasattr(target, "dlb_op") else _known_parameters(target)


@lru_cache(maxsize=4096)
def _known_parameters(target: Any) -> tuple[tuple[str, Any], ...]:
    return _read_parameters(target)


def _read_parameters(target: Any) -> tuple[tuple[str, Any], ...]:
    if isinstance(target, OpOverload):
        empty = inspect.Parameter.empty
        return tuple((a.name, a.default_value if a.has_default_value() else empty) for a in target._schema.arguments)
    try:
        return tuple((p.name, p.default) for p in inspect.signature(target).parameters.values())
    except (TypeError, ValueError):
        return ()


def bound_arguments(node: fx.Node) -> dict[str, Any]:
    """The node's arguments by their schema names, defaults filled in, in schema order."""
    parameters = _parameters(node.target)
    if not parameters:
        return {**{str(i): a for i, a in enumerate(node.args)}, **node.kwargs}
    bound: dict[str, Any] = {}
    for i, (name, default) in enumerate(parameters):
        if i < len(node.args):
            bound[name] = node.args[i]
        elif name in node.kwargs:
            bound[name] = node.kwargs[name]
        elif default is not inspect.Parameter.empty:
            bound[name] = default
    return bound


def tensor_arguments(target: Any) -> tuple[str, ...]:
    """The names of an op's tensor (or tensor list) arguments; of a layer, what flows in."""
    if hasattr(target, "dlb_op"):
        return tuple(name for name, _ in _parameters(target) if name.startswith("input"))
    if isinstance(target, OpOverload):
        return tuple(str(a.name) for a in target._schema.arguments if "Tensor" in str(a.type))
    return tuple(name for name, _ in _parameters(target))


def is_active_dtype(node: fx.Node) -> bool:
    """Does the node hold floating or complex values (a tuple: any of them)?"""
    return any(t.is_floating_point() or t.is_complex() for t in fake_tensors(node))


def fake_tensors(node: fx.Node) -> list[Tensor]:
    """The fake values of a node, one per tensor output."""
    value = node.meta.get("val")
    items = value if isinstance(value, (tuple, list)) else (value,)
    return [v for v in items if isinstance(v, Tensor)]


def traced_shape(tensor: Tensor) -> tuple[Any, ...]:
    """The shape of a fake tensor: ints, and symbols as text where any size goes.

    A size that was free at first and then fixed by the model (a loop over time) is an int too.
    """
    sizes: tuple[Any, ...] = tuple(tensor.shape)
    known = [size if isinstance(size, int) else size.node.maybe_as_int() for size in sizes]
    return tuple(str(size) if fixed is None else fixed for size, fixed in zip(sizes, known, strict=True))


def size_hint(node: fx.Node) -> int | None:
    """How many elements a node had when it was traced; None for numbers and several outputs."""
    value = node.meta.get("val")
    if not isinstance(value, Tensor):
        return None
    shape: tuple[Any, ...] = tuple(value.shape)
    sizes = [size if isinstance(size, int) else size.node.hint for size in shape]
    return None if None in sizes else math.prod(sizes)


def module_path(node: fx.Node) -> str:
    """The path of the module a node was traced in, ``@1`` on a second call; empty at the top."""
    chain = module_chain(node)
    return chain[-1] if chain else ""


def module_chain(node: fx.Node) -> tuple[str, ...]:
    """The paths of all modules around a node, outermost first, without the root."""
    stack = node.meta.get("nn_module_stack") or {}
    paths = []
    for key, (path, _) in stack.items():
        if path and not path.startswith("_empty_nn_module_stack"):  # torch's own mark on sizes
            paths.append(f"{path}@{key.rpartition('@')[2]}" if "@" in key else str(path))
    return tuple(paths)


def module_types(node: fx.Node) -> tuple[str, ...]:
    """The full names of the classes of all modules around a node, outermost first."""
    return tuple(str(cls) for _, cls in (node.meta.get("nn_module_stack") or {}).values() if isinstance(cls, str))
