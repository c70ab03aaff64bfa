"""Shape functions that stand in for an op's own while a model is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch._ops import OpOverload

from dlb_core.kernel.registry import Registry

Fakes = dict[OpOverload, Callable[..., object]]


def fakes_of(registry: Registry) -> Fakes:
    """The shape functions that rows bring, by the overload that they are for."""
    found: Fakes = {}
    for rows in registry.rows.values():
        for row in rows:
            if row.fake is not None:
                namespace, _, name = row.op.partition("::")
                packet, _, overload = name.partition(".")
                found[getattr(getattr(getattr(torch.ops, namespace), packet), overload or "default")] = row.fake
    return found


@contextlib.contextmanager
def standing_in(fakes: Fakes) -> Iterator[None]:
    """Within, tensors without values go through these functions; torch's own are put back after.

    torch runs some ops on fake tensors by their Python decomposition: a recurrent one step by step, which takes
    seconds and fixes the number of steps. It looks for them among the op's kernels while exporting, in its table of
    decompositions after.
    """
    table: dict[Any, Callable[..., Any]] = torch._decomp.decomposition_table
    before = {op: dict(op.py_kernels) for op in fakes}
    decompositions = {op: table[op] for op in fakes if op in table}
    try:
        for op, function in fakes.items():
            op.py_kernels.update(dict.fromkeys(op.py_kernels, function))
            op._dispatch_cache.clear()
        table.update(fakes)
        yield
    finally:
        for op in fakes:
            table.pop(op, None)
        table.update(decompositions)
        for op, kernels in before.items():
            op.py_kernels.update(kernels)
            op._dispatch_cache.clear()
