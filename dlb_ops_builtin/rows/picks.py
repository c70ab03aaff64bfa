"""Moves that pick by index, cut windows, fill and arrange again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Row, Shares, move
from dlb_ops_builtin.rows.places import by_places, constant_of

aten = torch.ops.aten


def _index_select(r: Tensor, call: Call) -> Tensor:
    zeros = torch.zeros(call.shape("self"), dtype=r.dtype, device=r.device)
    return zeros.index_add(call.dim, call.index, r)


def _filled(r: Tensor, call: Call, pads: Sequence[int]) -> Shares:
    """The window goes back; what lies on the padding is the constant's."""
    area = F.pad(torch.zeros(call.shape("self"), dtype=r.dtype, device=r.device), pads, value=1.0)
    return Shares({"self": F.pad(r, [-p for p in pads])}, {constant_of(call): (r * area).sum()})


_mirrored = by_places(lambda x, call: aten.pad(x, call.pad, call.mode), counts=False)


def _pad(r: Tensor, call: Call) -> Any:
    return _filled(r, call, call.pad) if call.mode == "constant" else _mirrored(r, call)


def _triangle(keep: Any, drop: Any, step: int) -> Any:
    """One triangle is kept, the zeros of the other one are a constant."""

    def back(r: Tensor, call: Call) -> Shares:
        return Shares({"self": keep(r, call.diagonal)}, {constant_of(call): drop(r, call.diagonal + step).sum()})

    return back


def _scatter_value(r: Tensor, call: Call) -> Shares:
    area = torch.zeros(r.shape, dtype=r.dtype, device=r.device).scatter(call.dim, call.index, 1.0)
    return Shares({"self": r * (1 - area)}, {constant_of(call): (r * area).sum()})


def _im2col(r: Tensor, call: Call) -> Shares:
    window = (call.kernel_size, call.dilation, call.padding, call.stride)
    shape = call.shape("self")
    inside = aten.im2col(torch.ones(shape, dtype=r.dtype, device=r.device), *window)
    return Shares({"self": aten.col2im(r, shape[-2:], *window)}, {constant_of(call): (r * (1 - inside)).sum()})


ROWS: list[Row] = [
    move("aten::index_select", back=_index_select, reads=("index",)),
    move(
        "aten::index.Tensor",
        x="self",
        back=by_places(lambda x, call: aten.index.Tensor(x, call.indices)),
        reads=("indices",),
    ),
    move(
        "aten::take_along_dim",
        x="self",
        back=by_places(lambda x, call: torch.take_along_dim(x, call.indices, call.dim)),
        reads=("indices",),
    ),
    move("aten::unfold", back=by_places(lambda x, call: x.unfold(call.dimension, call.size, call.step))),
    move("aten::diagonal", back=by_places(lambda x, call: x.diagonal(call.offset, call.dim1, call.dim2))),
    *(
        move(f"aten::{name}", x="self", back=by_places(arranged), reads=reads)
        for name, reads, arranged in (
            ("tile", (), lambda x, call: x.tile(call.dims)),
            ("rot90", (), lambda x, call: x.rot90(call.k, call.dims)),
            ("fliplr", (), lambda x, call: x.fliplr()),
            ("flipud", (), lambda x, call: x.flipud()),
            ("channel_shuffle", (), lambda x, call: F.channel_shuffle(x, call.groups)),
            ("native_channel_shuffle", (), lambda x, call: F.channel_shuffle(x, call.groups)),
            ("moveaxis", (), lambda x, call: x.movedim(call.source, call.destination)),
            ("masked_select", ("mask",), lambda x, call: x.masked_select(call.mask)),
            (
                "repeat_interleave.self_Tensor",
                ("repeats",),
                lambda x, call: x.repeat_interleave(call.repeats, call.dim),
            ),
        )
    ),
    move("aten::im2col", back=_im2col),
    move("aten::pad", x="self", back=_pad),
    move("aten::constant_pad_nd", x="self", back=lambda r, call: _filled(r, call, call.pad)),
    move("aten::tril", back=_triangle(torch.tril, torch.triu, 1)),
    move("aten::triu", back=_triangle(torch.triu, torch.tril, -1)),
    move("aten::scatter.value", x="self", back=_scatter_value, reads=("index",)),
    move("aten::gather", x="self", back=by_places(lambda x, call: x.gather(call.dim, call.index)), reads=("index",)),
]
