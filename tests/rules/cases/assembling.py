"""Arguments for the moves that arrange again, put several tensors together, or take one apart."""

from __future__ import annotations

from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors
from .moves import _listed, _with

aten = torch.ops.aten
BOTH = ("tensors.0", "tensors.1")


def _unpooled(dims: int) -> Any:
    shape = [2, 3, 4][:dims]
    rest = {"stride": [2] * dims, "padding": [0] * dims} if dims == 3 else {}

    def make(t: Tensors) -> Arguments:
        size = [2 * n for n in shape]
        places = torch.stack([torch.randperm(torch.Size(size).numel(), generator=t.generator) for _ in range(4)])
        indices = places[:, : torch.Size(shape).numel()].reshape(2, 2, *shape)
        return {"self": t.distinct(2, 2, *shape), "indices": indices, "output_size": size, **rest}

    return make


def _repeated(t: Tensors) -> Arguments:
    return {"self": t.distinct(2, 3), "repeats": torch.tensor([2, 0, 3]), "dim": -1}


CASES: list[Case] = [
    Case(aten.tile.default, _with(2, 3, dims=[2, 1, 2]), ("self",)),
    Case(aten.rot90.default, _with(2, 3, 4, k=3, dims=[0, 2]), ("self",)),
    Case(aten.fliplr.default, _with(2, 3), ("self",)),
    Case(aten.flipud.default, _with(2, 3), ("self",)),
    Case(aten.channel_shuffle.default, _with(2, 6, 3, 2, groups=3), ("self",)),
    Case(aten.native_channel_shuffle.default, _with(2, 6, 3, 2, groups=3), ("self",)),
    Case(aten.moveaxis.int, _with(2, 3, 4, source=0, destination=-1), ("self",)),
    Case(aten.masked_select.default, lambda t: {"self": t.distinct(2, 3), "mask": t.mask(4, 1, 3)}, ("self",)),
    Case(aten.repeat_interleave.self_Tensor, _repeated, ("self",)),
    Case(aten.hstack.default, _listed((2, 3), (2, 1)), BOTH),
    Case(aten.vstack.default, _listed((3,), (2, 3)), BOTH),
    Case(aten.vstack.default, _listed((3,), (2, 3)), BOTH[1:], "one"),
    Case(aten.dstack.default, _listed((2, 3), (2, 3, 2)), BOTH),
    Case(aten.column_stack.default, _listed((3,), (3, 2)), BOTH),
    Case(aten.cartesian_prod.default, _listed((3,), (2,)), BOTH),
    Case(aten.block_diag.default, _listed((2, 3), (2,)), BOTH),
    Case(aten.meshgrid.indexing, _listed((3,), (2,), indexing="xy"), BOTH),
    Case(aten.meshgrid.default, _listed((3,), (2,)), BOTH),
    Case(aten.broadcast_tensors.default, _listed((3, 1), (1, 2)), BOTH),
    Case(aten.diag.default, _with(3, 4, diagonal=1), ("self",)),
    Case(aten.diag.default, _with(3, diagonal=-1), ("self",), "to a matrix"),
    Case(aten.diagflat.default, _with(2, 2, offset=1), ("self",)),
    Case(aten.diag_embed.default, _with(2, 3, offset=1, dim1=0), ("self",)),
    Case(aten.tensor_split.sections, _with(2, 5, sections=3, dim=-1), ("self",)),
    Case(aten.tensor_split.indices, _with(5, 2, indices=[3, 1]), ("self",)),
    Case(aten.unsafe_split.Tensor, _with(2, 5, split_size=2, dim=-1), ("self",)),
    Case(aten.unsafe_chunk.default, _with(5, 2, chunks=3), ("self",)),
    Case(aten.max_unpool2d.default, _unpooled(2), ("self",)),
    Case(aten.max_unpool3d.default, _unpooled(3), ("self",)),
]
