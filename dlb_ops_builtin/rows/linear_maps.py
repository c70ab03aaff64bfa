"""Linear and bilinear maps: dense layers, reductions, matrix products."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Row, bilinear, compound, linear, sum_to

aten = torch.ops.aten


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


def _plus(op: str, a: str, b: str, apply: Callable[[Any, Any, Call], Tensor]) -> Row:
    """beta * self + alpha * (a times b)."""
    factors: Any = {"factor": lambda call: call.alpha, "bias_factor": lambda call: call.beta}
    return bilinear(op, a=a, b=b, bias="self", apply=apply, **factors)


def _diff(self: Tensor, n: int, dim: int, prepend: Tensor | None, append: Tensor | None) -> Tensor:
    """Each element less the one before, n times over."""
    if not n:  # torch adds nothing in front or behind then
        return self
    parts = [x for x in (prepend, self, append) if x is not None]
    x = torch.cat(parts, dim) if len(parts) > 1 else self
    for _ in range(n):
        x = aten.slice.Tensor(x, dim, 1) - aten.slice.Tensor(x, dim, 0, -1)
    return x


def _kron(self: Tensor, other: Tensor) -> Tensor:
    """Every element of one times every element of the other, blocks of the second's size."""
    dims = max(self.dim(), other.dim())
    rows, columns = ([1] * (dims - x.dim()) + list(x.shape) for x in (self, other))
    a = self.reshape([n for size in rows for n in (size, 1)])
    b = other.reshape([n for size in columns for n in (1, size)])
    return (a * b).reshape([m * n for m, n in zip(rows, columns, strict=True)])


def _cross(self: Tensor, other: Tensor, dim: int) -> Tensor:
    """a_{i+1} b_{i+2} - a_{i+2} b_{i+1}, the three components in a ring."""
    return self.roll(-1, dim) * other.roll(-2, dim) - self.roll(-2, dim) * other.roll(-1, dim)


def _multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    product: Tensor = functools.reduce(torch.matmul, tensors)
    return product


def _matrix_power(self: Tensor, n: int) -> Tensor:
    power: Tensor = functools.reduce(torch.matmul, [self] * n)
    return power


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
        channel_dim=-1,
        apply=lambda a, b, call: a @ b,
        transpose_a=_matmul_a,
        transpose_b=_matmul_b,
    ),
    bilinear(
        "aten::mm",
        a="self",
        b="mat2",
        channel_dim=-1,
        apply=lambda a, b, call: a @ b,
        transpose_a=lambda s, b, call: s @ b.mT,
        transpose_b=lambda s, a, call: a.mT @ s,
    ),
    bilinear(
        "aten::bmm",
        a="self",
        b="mat2",
        channel_dim=-1,
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
    *(
        bilinear(f"aten::{name}", a="self", b=other, apply=apply)
        for name, other, apply in (
            ("dot", "tensor", lambda a, b, call: a @ b),
            ("vdot", "other", lambda a, b, call: a @ b),
            ("inner", "other", lambda a, b, call: torch.inner(a, b)),
            ("outer", "vec2", lambda a, b, call: torch.outer(a, b)),
            ("ger", "vec2", lambda a, b, call: torch.outer(a, b)),
            ("tensordot", "other", lambda a, b, call: aten.tensordot(a, b, call.dims_self, call.dims_other)),
        )
    ),
    _plus("aten::addmv", "mat", "vec", lambda a, b, call: a @ b),
    _plus("aten::addr", "vec1", "vec2", lambda a, b, call: torch.outer(a, b)),
    _plus("aten::addbmm", "batch1", "batch2", lambda a, b, call: (a @ b).sum(0)),
    linear("aten::trace", x="self", apply=lambda x, w, call: x.diagonal().sum()),
    linear("aten::nansum", x="self", apply=_sum, tags={"reduction"}),  # a value that is no number stops the pass
    linear("aten::nanmean", x="self", apply=_mean, tags={"reduction"}),
    linear("aten::trapezoid.dx", x="y", apply=lambda x, w, call: torch.trapezoid(x, dx=call.dx, dim=call.dim)),
    linear(
        "aten::cumulative_trapezoid.dx",
        x="y",
        apply=lambda x, w, call: torch.cumulative_trapezoid(x, dx=call.dx, dim=call.dim),
    ),
    compound("aten::kron", written=_kron),
    compound("aten::diff", written=_diff),
    compound("aten::linalg_cross", written=_cross),
    compound("aten::linalg_multi_dot", written=_multi_dot),
    compound(
        "aten::linalg_matrix_power",
        written=_matrix_power,
        refuses=lambda arguments: None if arguments["n"] > 0 else "only positive powers are products",
    ),
    linear("aten::mean.dim", x="self", apply=_mean, tags={"reduction"}),
    linear("aten::mean.default", x="self", apply=lambda x, w, call: x.mean(), tags={"reduction"}),
    linear("aten::sum.dim_IntList", x="self", apply=_sum, tags={"reduction"}),
    linear("aten::sum.default", x="self", apply=lambda x, w, call: x.sum(), tags={"reduction"}),
]
