"""`dlb_moe::expert_linear`: every row of x through the linear layer of its own expert."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

SCHEMA = "(Tensor x, Tensor index, Tensor weight, Tensor? bias=None, bool transposed=False) -> Tensor"


def _run(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False) -> Tensor:
    """x [*rows, I], index [*rows] of experts, weight [E, O, I] ([E, I, O] transposed), bias [E, O] -> [*rows, O]."""
    maps = weight if transposed else weight.mT
    ids = index.reshape(-1)
    order = ids.argsort(stable=True)
    rows = x.reshape(-1, x.shape[-1])[order]
    made = rows.new_empty(rows.shape[0], maps.shape[-1])
    start = 0
    for expert, count in enumerate(ids.bincount(minlength=maps.shape[0]).tolist()):
        if count:
            torch.mm(rows[start : start + count], maps[expert], out=made[start : start + count])
            start += count
    out = torch.empty_like(made)
    out[order] = made
    if bias is not None:
        out += bias[ids]
    return out.reshape(*index.shape, maps.shape[-1])


expert_linear = torch.library.custom_op("dlb_moe::expert_linear", _run, mutates_args=(), schema=SCHEMA)


@expert_linear.register_fake
def _fake(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False) -> Tensor:
    return x.new_empty(*index.shape, weight.shape[-1 if transposed else -2])


@expert_linear.register_vmap
def _vmap(
    info: Any, dims: Any, x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False
) -> tuple[Tensor, int]:
    if any(d is not None for d in dims[1:]):
        raise NotImplementedError("expert_linear under vmap: only x may be batched")
    x = x.movedim(dims[0], 0)
    many = index.expand(x.shape[0], *index.shape)
    return expert_linear(x, many, weight, bias, transposed), 0
