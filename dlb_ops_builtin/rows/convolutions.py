"""Convolutions and their transposes, with paddings by number or by word."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, linear

aten = torch.ops.aten


def _conv(x: Tensor, w: Tensor, call: Call, *, transposed: bool) -> Tensor:
    """The convolution without its bias; an example may lack its batch dimension."""
    alone = x.dim() < w.dim()
    y: Tensor = aten.convolution(x.unsqueeze(0) if alone else x, w, None, *_window(call, transposed))
    return y.squeeze(0) if alone else y


def _conv_back(s: Tensor, w: Tensor, call: Call, *, transposed: bool) -> Tensor:
    """The convolution that goes the other way, which many seeds run as one; torch's backward copies a tensor per seed.

    What the stride left over at the far end comes back as padding; what padding of a transpose added is cut off.
    """
    shape = call.shape("input")
    alone = len(shape) < w.dim()
    dims = w.dim() - 2
    sizes = shape[len(shape) - dims :]
    extra = [0] * dims
    if not transposed:
        steps = zip(
            sizes,
            s.shape[s.dim() - dims :],
            w.shape[2:],
            *(_each(value, dims) for value in (call.stride, call.padding, call.dilation)),
            strict=True,
        )
        extra = [n - ((m - 1) * step - 2 * pad + wide * (k - 1) + 1) for n, m, k, step, pad, wide in steps]
    r: Tensor = aten.convolution(
        s.unsqueeze(0) if alone else s,
        w,
        None,
        call.stride,
        call.padding,
        call.dilation,
        not transposed,
        extra,
        call.groups,
    )
    for dim, size in enumerate(sizes if transposed else (), start=2):
        r = r.narrow(dim, 0, size)
    return r.squeeze(0) if alone else r


def _each(value: Any, dims: int) -> list[int]:
    """One number for each dimension; a list of one stands for all."""
    return [*value] * (dims // len(value))


def _window(call: Call, transposed: bool) -> tuple[Any, ...]:
    extra = call.output_padding if transposed else [0] * len(call.padding)
    return call.stride, call.padding, call.dilation, transposed, extra, call.groups


def _convolution(op: str, dims: int, *, transposed: bool = False) -> Row:
    return linear(
        op,
        x="input",
        weight="weight",
        bias="bias",
        tags={"convolution"},
        bias_dim=-1 - dims,
        apply=lambda x, w, call: _conv(x, w, call, transposed=transposed),
        transpose=lambda s, w, call: _conv_back(s, w, call, transposed=transposed),
    )


def _padded_by_word(op: Any, dims: int) -> Row:
    """One side may be padded more than the other: the op itself does it again, and autograd undoes it."""
    return linear(
        f"aten::conv{dims}d.padding",
        x="input",
        weight="weight",
        bias="bias",
        tags={"convolution"},
        bias_dim=-1 - dims,
        apply=lambda x, w, call: op(x, w, None, call.stride, call.padding, call.dilation, call.groups),
    )


ROWS: list[Row] = [
    *(_convolution(f"aten::conv{dims}d.default", dims) for dims in (1, 2, 3)),
    *(_convolution(f"aten::conv_transpose{dims}d", dims, transposed=True) for dims in (1, 2, 3)),
    _padded_by_word(aten.conv1d.padding, 1),
    _padded_by_word(aten.conv2d.padding, 2),
    _padded_by_word(aten.conv3d.padding, 3),
]
