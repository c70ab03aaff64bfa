"""Ops that are written with others: every mode goes through the parts."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Row, compound

aten = torch.ops.aten


def _norm(x: Tensor, p: float, dim: int, *, keepdim: bool = False) -> Tensor:
    if math.isinf(p) and x.numel() == 0:  # a maximum of nothing is no number, a distance of nothing is 0
        return x.sum(dim, keepdim=keepdim)
    norm: Tensor = torch.linalg.vector_norm(x, p, dim, keepdim=keepdim)
    return norm


def _glu(self: Tensor, dim: int) -> Tensor:
    signal, gate = self.chunk(2, dim)
    return signal * gate.sigmoid()


def _bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """y_o = x1 W_o x2 + b_o: linear in x1, then a product of two matrices per sample."""
    out = weight.shape[0]
    rows = F.linear(input1, weight.transpose(1, 2).flatten(0, 1)).unflatten(-1, (out, -1))  # [..., out, in2]
    y: Tensor = aten.matmul.default(rows, input2.unsqueeze(-1)).squeeze(-1)
    return y if bias is None else y + bias


def _cosine_similarity(x1: Tensor, x2: Tensor, dim: int, eps: float) -> Tensor:
    """The product of two unit vectors; their norms are statistics."""
    if x1.shape != x2.shape:  # the norms are those of the broadcast vectors
        shape = torch.broadcast_shapes(x1.shape, x2.shape)
        x1, x2 = x1.expand(shape), x2.expand(shape)
    one, two = (x / _norm(x, 2, dim, keepdim=True).clamp_min(eps) for x in (x1, x2))
    return (one * two).sum(dim)


def _pairwise_distance(x1: Tensor, x2: Tensor, p: float, eps: float, keepdim: bool) -> Tensor:
    return _norm(x1 - x2 + eps, p, -1, keepdim=keepdim)


def _cdist(x1: Tensor, x2: Tensor, p: float) -> Tensor:
    return _norm(x1.unsqueeze(-2) - x2.unsqueeze(-3), p, -1)


def _addcmul(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Tensor:
    return torch.add(self, tensor1 * tensor2, alpha=value)


def _addcdiv(self: Tensor, tensor1: Tensor, tensor2: Tensor, value: float) -> Tensor:
    return torch.add(self, tensor1 / tensor2, alpha=value)


def _conv_tbc(self: Tensor, weight: Tensor, bias: Tensor, pad: int) -> Tensor:
    """A convolution of [time, batch, channels]."""
    y = F.conv1d(self.permute(1, 2, 0), weight.permute(2, 1, 0), bias, padding=pad)
    return y.permute(2, 0, 1)


def _rrelu(self: Tensor, lower: float, upper: float) -> tuple[Tensor, None]:
    """In evaluation: the slope in the middle, and no noise."""
    return F.leaky_relu(self, (lower + upper) / 2), None


ROWS: list[Row] = [
    compound("aten::glu", written=_glu),
    compound("aten::bilinear", written=_bilinear),
    compound("aten::cosine_similarity", written=_cosine_similarity),
    compound("aten::pairwise_distance", written=_pairwise_distance),
    compound("aten::cdist", written=_cdist),
    compound("aten::_cdist_forward", written=_cdist),
    compound("aten::conv_tbc", written=_conv_tbc),
    compound(
        "aten::rrelu_with_noise_functional",
        written=_rrelu,
        refuses=lambda arguments: "it draws its slopes at random" if arguments["training"] else None,
    ),
    compound("aten::addcmul", written=_addcmul),
    compound("aten::addcdiv", written=_addcdiv),
]
