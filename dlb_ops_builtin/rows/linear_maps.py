"""Linear and bilinear maps: dense layers, reductions, matrix products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Row, bilinear, linear, sum_to


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


def _einsum(a: Tensor, b: Tensor | None, call: Call) -> Tensor:
    return torch.einsum(call.equation, a) if b is None else torch.einsum(call.equation, a, b)


def _matmul_plus(op: str, a: str, b: str) -> Row:
    """beta * self + alpha * a @ b; `self` is the bias, broadcast over the product."""
    return bilinear(
        op,
        a=a,
        b=b,
        bias="self",
        factor=lambda call: call.alpha,
        bias_factor=lambda call: call.beta,
        apply=lambda a, b, call: a @ b,
        transpose_a=lambda s, b, call: s @ b.mT,
        transpose_b=lambda s, a, call: a.mT @ s,
    )


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
    _matmul_plus("aten::addmm.default", "mat1", "mat2"),
    _matmul_plus("aten::baddbmm.default", "batch1", "batch2"),
    bilinear(
        "aten::mv",
        a="self",
        b="vec",
        apply=lambda a, b, call: a @ b,
        transpose_a=lambda s, b, call: s.unsqueeze(-1) * b,
        transpose_b=lambda s, a, call: a.mT @ s,
    ),
    bilinear("aten::einsum", a="tensors.0", b="tensors.1", apply=_einsum),  # of two; a pass makes pairs of more
    linear("aten::mean.dim", x="self", apply=_mean, tags={"reduction"}),
    linear("aten::mean.default", x="self", apply=lambda x, w, call: x.mean(), tags={"reduction"}),
    linear("aten::sum.dim_IntList", x="self", apply=_sum, tags={"reduction"}),
    linear("aten::sum.default", x="self", apply=lambda x, w, call: x.sum(), tags={"reduction"}),
]
