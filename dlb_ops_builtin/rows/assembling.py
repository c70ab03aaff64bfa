"""Moves that put several tensors together, or one apart, with zeros of the op's own where nothing goes."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, move, sum_to
from dlb_ops_builtin.rows.places import by_numbers

aten = torch.ops.aten


def _broadcast(r: tuple[Tensor, ...], call: Call) -> tuple[Tensor, ...]:
    return tuple(sum_to(part, call.shape(f"tensors.{i}")) for i, part in enumerate(r))


def _unpooled(dims: int) -> Row:
    """Every value goes to the place where its index says it won; the rest is zero."""
    unpool = getattr(aten, f"max_unpool{dims}d").default
    window = ("stride", "padding") if dims == 3 else ()

    def moved(call: Call, x: Tensor) -> Tensor:
        y: Tensor = unpool(x, call.indices, call.output_size, *(getattr(call, name) for name in window))
        return y

    back = by_numbers("self", moved=moved, zeros=True, counts=False)
    return move(f"aten::max_unpool{dims}d", x="self", back=back, reads=("indices",))


ROWS: list[Row] = [
    *(
        move(f"aten::{name}", x="tensors", back=by_numbers("tensors*", moved=lambda call, xs, put=put: put(xs)))
        for name, put in {
            "hstack": torch.hstack,
            "vstack": torch.vstack,
            "dstack": torch.dstack,
            "column_stack": torch.column_stack,
            "cartesian_prod": lambda xs: torch.cartesian_prod(*xs),
            "meshgrid.default": lambda xs: torch.meshgrid(*xs, indexing="ij"),
        }.items()
    ),
    move(
        "aten::meshgrid.indexing",
        x="tensors",
        back=by_numbers("tensors*", moved=lambda call, xs: torch.meshgrid(*xs, indexing=call.indexing)),
    ),
    move(
        "aten::block_diag",
        x="tensors",
        back=by_numbers("tensors*", moved=lambda call, xs: torch.block_diag(*xs), zeros=True),
    ),
    move("aten::broadcast_tensors", x="tensors", back=_broadcast),
    move("aten::diag", back=by_numbers("self", moved=lambda call, x: x.diag(call.diagonal), zeros=True)),
    move("aten::diagflat", back=by_numbers("self", moved=lambda call, x: x.diagflat(call.offset), zeros=True)),
    move(
        "aten::diag_embed",
        back=by_numbers("self", moved=lambda call, x: x.diag_embed(call.offset, call.dim1, call.dim2), zeros=True),
    ),
    *(
        move(
            f"aten::tensor_split.{overload}",
            back=by_numbers("self", moved=lambda call, x, at=at: x.tensor_split(getattr(call, at), call.dim)),
        )
        for overload, at in {"sections": "sections", "indices": "indices"}.items()
    ),
    *(move(f"aten::{name}", back=lambda r, call: torch.cat(r, call.dim)) for name in ("unsafe_split", "unsafe_chunk")),
    *(_unpooled(dims) for dims in (2, 3)),
]
