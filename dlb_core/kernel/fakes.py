"""Shape functions that stand in for an op's own while a model is traced."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch
from torch._decomp import global_decomposition_table
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
    seconds and fixes the number of steps.
    """
    before = {op: dict(op.py_kernels) for op in fakes}
    tables = global_decomposition_table.values()
    decomposed = [(table, {op: table[op] for op in fakes if op in table}) for table in tables]
    try:
        for op, function in fakes.items():
            op.py_kernels.update(dict.fromkeys(op.py_kernels, function))
            op._dispatch_cache.clear()
        for table, own in decomposed:
            for op in own:
                table[op] = fakes[op]
        yield
    finally:
        for table, own in decomposed:
            for op, kernel in own.items():
                table[op] = kernel
        for op, kernels in before.items():
            op.py_kernels.update(kernels)
            op._dispatch_cache.clear()
