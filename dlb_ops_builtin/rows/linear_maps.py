"""Linear and bilinear maps: dense layers, convolutions, pooling by averages, reductions, matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Row, bilinear, linear, sum_to

aten = torch.ops.aten


def _conv(x: Tensor, w: Tensor, call: Call) -> Tensor:
    y: Tensor = aten.convolution(
        x, w, None, call.stride, call.padding, call.dilation, False, [0] * len(call.padding), call.groups
    )
    return y


def _conv_back(s: Tensor, w: Tensor, call: Call) -> Tensor:
    """The op's own backward; its input is asked for its shape alone."""
    shape = call.shape("input")
    alone = len(shape) < w.dim()  # an example without its batch dimension
    like = s.new_empty(1).expand(shape)
    r: Tensor = aten.convolution_backward(
        s.unsqueeze(0) if alone else s,
        like.unsqueeze(0) if alone else like,
        w,
        None,
        call.stride,
        call.padding,
        call.dilation,
        False,
        [0] * len(call.padding),
        call.groups,
        [True, False, False],
    )[0]
    return r.squeeze(0) if alone else r


def _conv_apply(x: Tensor, w: Tensor, call: Call) -> Tensor:
    """The convolution without its bias; an example may lack its batch dimension."""
    return _conv(x, w, call) if x.dim() == w.dim() else _conv(x.unsqueeze(0), w, call).squeeze(0)


def _convolution(op: str, dims: int) -> Row:
    return linear(
        op,
        x="input",
        weight="weight",
        bias="bias",
        bias_dim=-1 - dims,
        apply=_conv_apply,
        transpose=_conv_back,
    )


def _matmul_a(s: Tensor, b: Tensor, call: Call) -> Tensor:
    return _matmul_side(s, b, call, first=True)


def _matmul_b(s: Tensor, a: Tensor, call: Call) -> Tensor:
    return _matmul_side(s, a, call, first=False)


def _matmul_side(s: Tensor, other: Tensor, call: Call, *, first: bool) -> Tensor:
    """Vectors become matrices for a moment; broadcast batch dimensions sum back."""
    mine, theirs = ("self", "other") if first else ("other", "self")
    shape, their_shape = call.shape(mine), call.shape(theirs)
    if len(call.shape("other")) == 1:
        s = s.unsqueeze(-1)
    if len(call.shape("self")) == 1:
        s = s.unsqueeze(-2)
    if len(their_shape) == 1:
        other = other.unsqueeze(-1 if first else -2)
    grown = shape if len(shape) > 1 else torch.Size((1, *shape) if first else (*shape, 1))
    back = s @ other.mT if first else other.mT @ s
    return sum_to(back, grown).reshape(shape)


def _mean(x: Tensor, w: None, call: Call) -> Tensor:
    return x.mean(call.dim, call.keepdim)


def _sum(x: Tensor, w: None, call: Call) -> Tensor:
    return x.sum(call.dim, call.keepdim)


ROWS: list[Row] = [
    linear(
        "aten::linear",
        x="input",
        weight="weight",
        bias="bias",
        apply=lambda x, w, call: F.linear(x, w),
        transpose=lambda s, w, call: s @ w if w.dim() == 2 else s.unsqueeze(-1) * w,  # a flat weight: one unit
    ),
    _convolution("aten::conv1d.default", 1),
    _convolution("aten::conv2d.default", 2),
    _convolution("aten::conv3d.default", 3),
    bilinear(
        "aten::matmul",
        a="self",
        b="other",
        apply=lambda a, b, call: a @ b,
        transpose_a=_matmul_a,
        transpose_b=_matmul_b,
    ),
    bilinear(
        "aten::mm",
        a="self",
        b="mat2",
        apply=lambda a, b, call: a @ b,
        transpose_a=lambda s, b, call: s @ b.mT,
        transpose_b=lambda s, a, call: a.mT @ s,
    ),
    bilinear(
        "aten::bmm",
        a="self",
        b="mat2",
        apply=lambda a, b, call: a @ b,
        transpose_a=lambda s, b, call: s @ b.mT,
        transpose_b=lambda s, a, call: a.mT @ s,
    ),
    linear("aten::mean.dim", x="self", apply=_mean, tags={"reduction"}),
    linear("aten::mean.default", x="self", apply=lambda x, w, call: x.mean(), tags={"reduction"}),
    linear("aten::sum.dim_IntList", x="self", apply=_sum, tags={"reduction"}),
    linear("aten::sum.default", x="self", apply=lambda x, w, call: x.sum(), tags={"reduction"}),
    linear(
        "aten::adaptive_avg_pool2d",
        x="self",
        apply=lambda x, w, call: F.adaptive_avg_pool2d(x, call.output_size),
    ),
    linear(
        "aten::avg_pool2d",
        x="self",
        apply=lambda x, w, call: aten.avg_pool2d(
            x,
            call.kernel_size,
            call.stride,
            call.padding,
            call.ceil_mode,
            call.count_include_pad,
            call.divisor_override,
        ),
    ),
]
