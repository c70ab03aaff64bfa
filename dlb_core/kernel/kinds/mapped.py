"""Ops that torch cannot run at many points at once run at one after the other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch.utils import _pytree as pytree


class _OneByOne(torch.autograd.Function):
    """Runs an op for which torch has no batching rule; under `torch.vmap` once for each of the things that it maps."""

    @staticmethod
    def forward(function: Callable[..., Any], spec: pytree.TreeSpec, *leaves: Any) -> Any:
        args, kwargs = pytree.tree_unflatten(leaves, spec)
        return function(*args, **kwargs)

    @staticmethod
    def setup_context(ctx: Any, inputs: Any, output: Any) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: Sequence[int | None], *inputs: Any) -> tuple[Any, Any]:
        def part(i: int) -> list[Any]:
            return [x if dim is None else x.select(dim, i) for x, dim in zip(inputs, in_dims, strict=True)]

        outputs = [_OneByOne.apply(*part(i)) for i in range(info.batch_size)]  # type: ignore[no-untyped-call]
        return pytree.tree_map(lambda *parts: torch.stack(parts), *outputs), pytree.tree_map(lambda _: 0, outputs[0])


def one_by_one(function: Callable[..., Any]) -> Callable[..., Any]:
    """The op as it is, which may also be mapped."""

    def run(*args: Any, **kwargs: Any) -> Any:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        return _OneByOne.apply(function, spec, *leaves)  # type: ignore[no-untyped-call]

    return run
