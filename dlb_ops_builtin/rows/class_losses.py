"""Losses over classes: labels pick what is compared, a label that is ignored leaves a zero of the loss's own."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, compound, share

aten = torch.ops.aten
NONE, MEAN = 0, 1  # 2: the sum


def _picked(self: Tensor, target: Tensor, weight: Tensor | None, ignore_index: int) -> tuple[Tensor, Tensor]:
    """-w x at each label, and how much the label counts; the classes are in dimension 1, or the only one."""
    dim = min(self.dim() - 1, 1)
    if self.dim() == 1:
        target = target.reshape(())
    ignored = target == ignore_index
    label = target.masked_fill(ignored, 0)
    loss = -self.gather(dim, label.unsqueeze(dim)).squeeze(dim)
    if weight is None:
        counts = ignored.logical_not().to(self.dtype)
    else:
        counts = aten.index.Tensor(weight, [label])
        loss = loss * counts
        counts = counts.masked_fill(ignored, 0)
    return loss.masked_fill(ignored, 0), counts


def _nll(self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int) -> Tensor:
    loss, counts = _picked(self, target, weight, ignore_index)
    if reduction == NONE:
        return loss
    return loss.sum() / counts.sum() if reduction == MEAN else loss.sum()


def _nll_forward(
    self: Tensor, target: Tensor, weight: Tensor | None, reduction: int, ignore_index: int
) -> tuple[Tensor, Tensor]:
    """The loss and the weight of all labels together."""
    counts = _picked(self, target, weight, ignore_index)[1].sum()
    return _nll(self, target, weight, reduction, ignore_index), counts if reduction else torch.zeros_like(counts)


def _cross_entropy(
    self: Tensor,
    target: Tensor,
    weight: Tensor | None,
    reduction: int,
    ignore_index: int,
    label_smoothing: float,
) -> Tensor:
    """Labels, or a probability for each class; smoothing mixes in the mean over all classes."""
    dim = min(self.dim() - 1, 1)
    log_p = self.log_softmax(dim)
    weighed = log_p
    if weight is not None:
        weighed = log_p * (weight.unflatten(0, [-1] + [1] * (self.dim() - dim - 1)))
    smooth = -weighed.mean(dim)
    if target.is_floating_point():
        loss = -(weighed * target).sum(dim)
        loss = loss if label_smoothing == 0 else loss * (1 - label_smoothing) + smooth * label_smoothing
        return loss.mean() if reduction == MEAN else loss.sum() if reduction else loss
    loss = _nll(log_p, target, weight, reduction, ignore_index)
    if label_smoothing == 0:
        return loss
    target = target.reshape(()) if self.dim() == 1 else target
    smooth = smooth.masked_fill(target == ignore_index, 0)
    if reduction != NONE:
        smooth = smooth.sum()
    if reduction == MEAN:
        smooth = smooth / _picked(log_p, target, weight, ignore_index)[1].sum()
    return loss * (1 - label_smoothing) + smooth * label_smoothing


def _reduced(loss: Tensor, reduction: int) -> Tensor:
    return loss.mean() if reduction == MEAN else loss if reduction == NONE else loss.sum()


def _multi_margin(
    self: Tensor, target: Tensor, p: float, margin: float, weight: Tensor | None, reduction: int
) -> Tensor:
    """max(0, margin - x_label + x_i)^p over the other classes."""
    x, label = (self, target.reshape(-1, 1)) if self.dim() == 2 else (self.reshape(1, -1), target.reshape(1, 1))
    over = (margin - x.gather(1, label) + x).clamp_min(0)  # as torch's own decomposition adds them
    over = over if p == 1 else over * over
    if weight is not None:
        over = over * aten.index.Tensor(weight, [label])
    here = torch.ones_like(x).cumsum(1) - 1 == label
    loss = over.masked_fill(here, 0).mean(1)
    return _reduced(loss if self.dim() == 2 else loss.squeeze(0), reduction)


def _multilabel_margin(self: Tensor, target: Tensor, reduction: int) -> Tensor:
    return _multilabel_margin_forward(self, target, reduction)[0]


def _multilabel_margin_forward(self: Tensor, target: Tensor, reduction: int) -> tuple[Tensor, Tensor]:
    """max(0, 1 - x_label + x_i) over the labels up to the first -1 and the classes that are none of them."""
    if not self.dim():  # one class alone
        loss, is_label = _multilabel_margin_forward(self.unsqueeze(0), target.reshape(1), reduction)
        return loss, is_label.squeeze(0)
    before = (target < 0).cumsum(-1) == 0
    label = target.clamp_min(0)
    is_label = torch.zeros_like(self).scatter_add(-1, label, before.to(self.dtype)) > 0
    over = (self.unsqueeze(-2) - self.gather(-1, label).unsqueeze(-1) + 1).clamp_min(0)  # [label, class]
    compared = before.unsqueeze(-1).logical_and(is_label.unsqueeze(-2).logical_not())
    loss = over.masked_fill(compared.logical_not(), 0).sum(-2).mean(-1)
    return _reduced(loss, reduction), is_label.to(self.dtype)


def _samples(call: Call) -> tuple[Tensor, Tensor]:
    """Log-probabilities [T, N, C] and the lengths of the targets."""
    x: Tensor = call.log_probs
    return (x.unsqueeze(1) if x.dim() == 2 else x), torch.as_tensor(call.target_lengths, device=x.device).reshape(-1)


def _alignments(x: Tensor, call: Call) -> Tensor:
    """The loss is minus a log-sum-exp over alignments, and each alignment a sum of log-probabilities.

    So an element counts by how likely the alignments are that use it, times its own size, and a sample by its loss. No
    step mixes with another one that its alignments do not go through; a sample without an alignment counts nothing.
    """
    x, sizes = _samples(call)
    lengths = torch.as_tensor(call.input_lengths, device=x.device).reshape(-1)
    rest = (call.targets.reshape(1, -1) if call.log_probs.dim() == 2 else call.targets, lengths, sizes)
    loss, alphas = aten._ctc_loss(x, *rest, call.blank, False)
    # the op's backward is that of a log-softmax before it: probabilities less how likely each element is used
    back = aten._ctc_loss_backward(torch.ones_like(loss), x, *rest, loss, alphas, call.blank, False)
    inside = torch.arange(x.shape[0], device=x.device).unsqueeze(1) < lengths
    used = ((x.exp() - back) * inside.unsqueeze(-1)).clamp_min(0)
    counts = used * x.abs()
    total = counts.sum((0, 2), keepdim=True)
    counts = torch.where(total > 0, counts / total, used / used.sum((0, 2), keepdim=True))
    if call.reduction == MEAN:
        loss = loss / sizes.clamp_min(1)
    weights: Tensor = (counts * loss.abs().unsqueeze(-1)).nan_to_num(0.0, 0.0, 0.0)
    return weights.reshape(call.shape("log_probs"))


def _all_of_a_sample(w: Tensor, call: Call) -> Tensor:
    if call.reduction != NONE or w.dim() == 2:
        return w.sum()
    return w.sum((0, 2))


ROWS: list[Row] = [
    *(compound(f"aten::{name}", written=_nll) for name in ("nll_loss", "nll_loss_nd", "nll_loss2d")),
    *(compound(f"aten::{name}", written=_nll_forward) for name in ("nll_loss_forward", "nll_loss2d_forward")),
    compound("aten::cross_entropy_loss", written=_cross_entropy),
    compound("aten::multi_margin_loss", written=_multi_margin),
    compound("aten::multilabel_margin_loss", written=_multilabel_margin),
    compound("aten::multilabel_margin_loss_forward", written=_multilabel_margin_forward),
    share(
        "aten::ctc_loss",
        x="log_probs",
        weigh=_alignments,
        gather=_all_of_a_sample,
        reads=("targets", "input_lengths", "target_lengths"),
        tags={"opaque"},
    ),
]
