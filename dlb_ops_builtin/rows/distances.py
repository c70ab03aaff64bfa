"""Norms of matrices and distances between tensors, written with vector norms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Row, compound, fake_tensors

aten = torch.ops.aten
SINGULAR = (2, -2, "nuc")


def _matrix_norm(
    self: Tensor,
    ord: float | str = "fro",
    dim: Sequence[int] = (-2, -1),
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """The root of all squares, or the greatest (least) sum of a column (1, -1) or of a row (inf, -inf)."""
    x = self if dtype is None else self.to(dtype)
    if isinstance(ord, str):
        whole: Tensor = torch.linalg.vector_norm(x, 2, list(dim), keepdim=keepdim)
        return whole
    rows, columns = (d % x.dim() for d in dim)
    if 0 in (x.shape[rows], x.shape[columns]):
        return x.abs().sum([rows, columns], keepdim=keepdim)  # zero, where there is a norm at all
    along, over = (rows, columns) if abs(ord) == 1 else (columns, rows)
    sums = x.abs().sum(along, keepdim=True)
    y = (torch.amax if ord > 0 else torch.amin)(sums, over, keepdim=True)
    for d in () if keepdim else sorted((rows, columns), reverse=True):
        y = y.squeeze(d)
    return y


def _norm(
    self: Tensor,
    ord: float | str | None = None,
    dim: Sequence[int] | None = None,
    keepdim: bool = False,
    dtype: torch.dtype | None = None,
) -> Tensor:
    """Of a vector, or of a matrix where an order is asked of two dimensions."""
    dims = list(range(self.dim())) if dim is None else list(dim)
    if ord is not None and len(dims) == 2:
        return _matrix_norm(self, ord, dims, keepdim, dtype)
    x = self if dtype is None else self.to(dtype)
    norm: Tensor = torch.linalg.vector_norm(x, 2 if ord is None else ord, dims, keepdim=keepdim)
    return norm


def _needs_singular_values(arguments: Mapping[str, Any]) -> str | None:
    dim = arguments["dim"]
    dims = fake_tensors(arguments["self"])[0].dim() if dim is None else len(dim)
    if dims == 2 and arguments["ord"] in SINGULAR:
        return "spectral and nuclear norms are functions of singular values, which have no rule"
    return None


def _renorm(self: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """Slices that are longer than `maxnorm` are scaled down to it; their norms are statistics."""
    others = [d for d in range(self.dim()) if d != dim % self.dim()]
    norm = torch.linalg.vector_norm(self, p, others, keepdim=True)
    scale: Tensor = maxnorm / (norm + 1e-7)
    return self * scale.masked_fill(norm <= maxnorm, 1)


def _dist(self: Tensor, other: Tensor, p: float) -> Tensor:
    norm: Tensor = torch.linalg.vector_norm(self - other, p)
    return norm


def _pdist(self: Tensor, p: float) -> Tensor:
    """The distances between all rows, each pair once."""
    size = self.shape[0]
    here = torch.zeros_like(self, dtype=torch.int64)
    pairs = aten.to.other(torch.triu_indices(size, size, 1), here)
    one, other = (self.index_select(0, pairs.select(0, i)) for i in (0, 1))
    norm: Tensor = torch.linalg.vector_norm(one - other, p, -1)
    return norm


ROWS: list[Row] = [
    compound("aten::linalg_norm", written=_norm, refuses=_needs_singular_values),
    compound("aten::linalg_matrix_norm", written=_matrix_norm, refuses=_needs_singular_values),
    compound("aten::frobenius_norm.dim", written=lambda self, dim, keepdim: _norm(self, None, dim, keepdim)),
    compound("aten::renorm", written=_renorm),
    compound("aten::dist", written=_dist),
    compound("aten::pdist", written=_pdist),
    compound("aten::_pdist_forward", written=_pdist),
]
