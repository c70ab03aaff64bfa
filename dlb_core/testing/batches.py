"""Batches: members cut out of a case's arguments, and whether an op works member by member."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

Arguments = dict[str, Any]


def cut(arguments: Arguments, names: tuple[str, ...], members: slice) -> Arguments:
    """The arguments with only these members in the operands `names` (elements of a list: ``tensors.0``)."""

    def one(name: str, value: Any) -> Any:
        if isinstance(value, (list, tuple)) and any(n.startswith(f"{name}.") for n in names):
            return [v[members] if f"{name}.{i}" in names else v for i, v in enumerate(value)]
        return value[members] if name in names else value

    return {name: one(name, value) for name, value in arguments.items()}


def length(arguments: Arguments, names: tuple[str, ...]) -> int:
    """How many members the batch has."""
    name, _, index = names[0].partition(".")
    value = arguments[name]
    tensor: Tensor = value[int(index)] if index else value
    return tensor.shape[0]


def is_batch(run: Callable[[Arguments], Any], arguments: Arguments, names: tuple[str, ...]) -> bool:
    """Does the op give for each member alone what it gives for it in the batch?"""
    if len({value.shape[0] for name in names if isinstance(value := arguments[name], Tensor)}) != 1:
        return False
    count = length(arguments, names)
    whole = [v for v in pytree.tree_leaves(run(arguments)) if isinstance(v, Tensor)]
    if any(v.dim() == 0 or v.shape[0] != count for v in whole):
        return False
    for i in range(count):
        try:
            alone = pytree.tree_leaves(run(cut(arguments, names, slice(i, i + 1))))
        except Exception:  # noqa: BLE001 - an op refuses arguments in any way it likes; then they are no batch
            return False
        for mine, ours in zip([v for v in alone if isinstance(v, Tensor)], whole, strict=True):
            if mine.shape != ours[i : i + 1].shape or not torch.allclose(mine, ours[i : i + 1]):
                return False
    return True
