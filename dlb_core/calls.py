"""How a caller hands inputs over: a tensor, a tuple of positional or a dict of keyword arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor


def as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """One value as positional and keyword arguments."""
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, tuple):
        return inputs, {}
    return (inputs,), {}


def as_inputs(args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """predict((a, b)) and predict({"x": a}) mean what the same value meant as input_for_graph."""
    if len(args) == 1 and not kwargs and isinstance(args[0], (tuple, Mapping)):
        return as_call(args[0])
    return args, kwargs


def tensors_in(arguments: Any) -> tuple[Any, ...]:
    """The tensors among arguments, in order, those in lists too."""
    found: list[Any] = []
    for a in arguments:
        if isinstance(a, Tensor):
            found.append(a)
        elif isinstance(a, (tuple, list)):
            found += tensors_in(a)
    return tuple(found)
