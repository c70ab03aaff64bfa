"""Losses, written with other ops: they compare two tensors, and relevance goes to those that depend on an input.

Labels, class weights and targets that are constants say what is compared. Terms are chosen so that they do not cancel,
and an element that takes no part (an ignored label) is a zero of the loss's own, booked as its constant.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Row, compound

MEAN, SUM = 1, 2  # 0: no reduction


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return loss.mean() if reduction == MEAN else loss.sum() if reduction == SUM else loss


def _weighted(loss: Tensor, weight: Tensor | None, reduction: int) -> Tensor:
    return _reduced(loss if weight is None else loss * weight, reduction)


def _mse(self: Tensor, target: Tensor, reduction: int) -> Tensor:
    return _reduced((self - target).square(), reduction)


def _l1(self: Tensor, target: Tensor, reduction: int) -> Tensor:
    return _reduced((self - target).abs(), reduction)


def _huber(self: Tensor, target: Tensor, reduction: int, delta: float) -> Tensor:
    """a^2 / 2 up to delta, then a line: c (a - c / 2) with c = min(a, delta), one function of the difference."""
    size = (self - target).abs()
    near = size.clamp_max(delta)
    return _reduced(near * (size - near * 0.5), reduction)


def _smooth_l1(self: Tensor, target: Tensor, reduction: int, beta: float) -> Tensor:
    if beta == 0:
        return _l1(self, target, reduction)
    size = (self - target).abs()
    near = size.clamp_max(beta)
    return _reduced(near * (size - near * 0.5) / beta, reduction)


def _kl(self: Tensor, target: Tensor, reduction: int, log_target: bool) -> Tensor:
    if log_target:
        return _reduced(target.exp() * (target - self), reduction)
    return _reduced(torch.xlogy(target, target) - target * self, reduction)


def _bce(self: Tensor, target: Tensor, weight: Tensor | None, reduction: int) -> Tensor:
    """-t log p - (1 - t) log(1 - p), logarithms no lower than -100."""
    hit = target * self.log().clamp_min(-100)
    miss = (1 - target) * (-self).log1p().clamp_min(-100)
    return _weighted(-(hit + miss), weight, reduction)


def _bce_logits(
    self: Tensor, target: Tensor, weight: Tensor | None, pos_weight: Tensor | None, reduction: int
) -> Tensor:
    """-t w log sigmoid(x) - (1 - t) log sigmoid(-x): two terms of one sign."""
    hit = target * F.logsigmoid(self)
    hit = hit if pos_weight is None else hit * pos_weight
    return _weighted(-(hit + (1 - target) * F.logsigmoid(-self)), weight, reduction)


def _poisson(input: Tensor, target: Tensor, log_input: bool, full: bool, eps: float, reduction: int) -> Tensor:
    loss = input.exp() - target * input if log_input else input - target * (input + eps).log()
    if full:
        stirling = target * target.log() - target + 0.5 * (2 * math.pi * target).log()
        loss = loss + stirling.masked_fill(target <= 1, 0)
    return _reduced(loss, reduction)


def _soft_margin(self: Tensor, target: Tensor, reduction: int) -> Tensor:
    return _reduced((-(target * self)).exp().log1p(), reduction)


def _either(target: Tensor, one: Tensor, other: Tensor, neither: Tensor) -> Tensor:
    """What a label of 1 and one of -1 ask for; any other label is not one of the documented ones."""
    return torch.where(target == 1, one, torch.where(target == -1, other, neither))


def _hinge_embedding(self: Tensor, target: Tensor, margin: float, reduction: int) -> Tensor:
    far = (margin - self).clamp_min(0)
    return _reduced(_either(target, self, far, self + far), reduction)


def _cosine_embedding(input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: int) -> Tensor:
    """The norms are statistics: they divide."""
    dim, eps = target.dim(), 1e-12
    squares = ((input1 * input1).sum(dim) + eps) * ((input2 * input2).sum(dim) + eps)
    cosine = (input1 * input2).sum(dim) / squares.sqrt()
    return _reduced(_either(target, 1 - cosine, (cosine - margin).clamp_min(0), torch.zeros_like(cosine)), reduction)


def _margin_ranking(input1: Tensor, input2: Tensor, target: Tensor, margin: float, reduction: int) -> Tensor:
    return _reduced((margin - target * (input1 - input2)).clamp_min(0), reduction)


def _triplet(
    anchor: Tensor, positive: Tensor, negative: Tensor, margin: float, p: float, eps: float, swap: bool, reduction: int
) -> Tensor:
    far = F.pairwise_distance(anchor, negative, p, eps)
    if swap:
        far = torch.minimum(far, F.pairwise_distance(positive, negative, p, eps))
    return _reduced((F.pairwise_distance(anchor, positive, p, eps) + margin - far).clamp_min(0), reduction)


ROWS: list[Row] = [
    compound("aten::mse_loss", written=_mse),
    compound("aten::l1_loss", written=_l1),
    compound("aten::huber_loss", written=_huber),
    compound("aten::smooth_l1_loss", written=_smooth_l1),
    compound("aten::kl_div", written=_kl),
    compound("aten::binary_cross_entropy", written=_bce),
    compound("aten::binary_cross_entropy_with_logits", written=_bce_logits),
    compound("aten::poisson_nll_loss", written=_poisson),
    compound("aten::soft_margin_loss", written=_soft_margin),
    compound("aten::hinge_embedding_loss", written=_hinge_embedding),
    compound("aten::cosine_embedding_loss", written=_cosine_embedding),
    compound("aten::margin_ranking_loss", written=_margin_ranking),
    compound("aten::triplet_margin_loss", written=_triplet),
]
