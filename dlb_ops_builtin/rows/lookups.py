"""Lookups: rows of a table by integer ids, one by one or a bag at a time."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Row, compound, lookup

aten = torch.ops.aten
SUM, MEAN, MAX = range(3)


def _embedding_bag(
    weight: Tensor,
    indices: Tensor,
    offsets: Tensor,
    mode: int,
    per_sample_weights: Tensor | None,
    include_last_offset: bool,
    padding_idx: int | None = None,
) -> tuple[Tensor, None, None, None]:
    """The rows of each bag added, averaged, or the greatest of them; a bag ends where the next one begins."""
    rows = aten.embedding.default(weight, indices)
    begins = aten.slice.Tensor(offsets, 0, 0, -1) if include_last_offset else offsets
    counts = torch.ones_like(indices)
    bag = torch.searchsorted(begins, counts.cumsum(0) - 1, right=True) - 1
    if per_sample_weights is not None:
        rows = rows * per_sample_weights.unsqueeze(-1)
    if padding_idx is not None and padding_idx >= 0:
        padding = indices == padding_idx
        counts = counts.masked_fill(padding, 0)
        rows = rows.masked_fill(padding.unsqueeze(-1), -torch.inf if mode == MAX else 0.0)
    bags = rows.new_zeros(begins.shape[0], weight.shape[1])
    sizes = torch.zeros_like(begins).index_add(0, bag, counts.to(begins.dtype)).unsqueeze(-1)
    if mode == MAX:
        best = bags.scatter_reduce(0, bag.unsqueeze(-1).expand_as(rows), rows, "amax", include_self=False)
        return best.masked_fill(sizes == 0, 0.0), None, None, None
    total = bags.index_add(0, bag, rows)
    return (total / sizes.clamp_min(1) if mode == MEAN else total), None, None, None


def _counted_from_the_end(weight: Tensor, padding_idx: int | None = None, **rest: Any) -> Any:
    """In the public op a negative `padding_idx` is a row from the end, in those beneath it there is none then."""
    if padding_idx is not None and padding_idx < 0:
        padding_idx += weight.shape[0]
    takes = inspect.signature(_embedding_bag).parameters
    return _embedding_bag(weight, padding_idx=padding_idx, **{n: v for n, v in rest.items() if n in takes})


ROWS: list[Row] = [
    lookup("aten::embedding", ids="indices", table="weight"),
    compound("aten::embedding_bag", written=_counted_from_the_end),
    *(compound(f"aten::{name}", written=_embedding_bag) for name in ("_embedding_bag", "_embedding_bag_forward_only")),
]
