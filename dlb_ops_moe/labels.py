"""What is known of a value that experts made: a function that gives the expert of every element."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

Values = Mapping[fx.Node, Any]


@dataclass(frozen=True)
class Label:
    """Of a value made by experts: which of them made what.

    home: where they live. experts: how many there are, None where only a router knows. numbers: those that are known
    to have a part. reads: the nodes whose values `of` takes; it gives the expert of every element, in a shape that
    broadcasts to the value's (a list for several outputs), -1 where none made it. Labels with one key are the same.
    modules: the experts are modules. whole: `of` gives the value's own shape.
    """

    home: str
    key: Hashable
    experts: int | None
    numbers: frozenset[int]
    reads: tuple[fx.Node, ...]
    of: Callable[[Values], Any]
    modules: bool = False
    whole: bool = False


def all_of(node: fx.Node, home: str, number: int, experts: int | None = None, modules: bool = False) -> Label:
    """All of a value is one expert's."""

    def of(values: Values) -> Tensor:
        value: Tensor = values[node]
        return torch.full((*value.shape[:-1], 1), number, device=value.device)

    return Label(home, number, experts, frozenset({number}), (node,), of, modules)
