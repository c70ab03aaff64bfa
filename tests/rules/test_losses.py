"""Losses: what is compared receives, element by element; a CTC loss shares over its alignments, each written out."""

from __future__ import annotations

import math
from itertools import groupby, product

import pytest
import torch
from torch import Tensor

from .harness import MODE_NAMES, MODES, ModeName, bind_op
from .tensors import Tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def test_a_label_takes_all_and_an_ignored_one_is_a_constant() -> None:
    x, target = Tensors(1)(3, 4), torch.tensor([2, -100, 0])
    r = torch.tensor([50.0, 20.0, 30.0], dtype=torch.float64)
    done = bind_op(aten.cross_entropy_loss.default, {"self": x, "target": target, "reduction": 0}, ["self"]).back(r)
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, 2], expected[2, 0] = 50, 30
    torch.testing.assert_close(done["self"], expected)
    assert done.booked("constant:cross_entropy_loss_default") == pytest.approx(20)


def test_samples_share_by_their_weighted_loss() -> None:
    """The mean of -w x over the labels, ignored ones left out."""
    x, weight = -Tensors(2).positive(3, 4), Tensors(3).positive(4)
    target = torch.tensor([2, 1, 0])
    more = {"target": target, "weight": weight, "reduction": 1, "ignore_index": 1}
    done = bind_op(aten.nll_loss_nd.default, {"self": x, **more}, ["self"]).back(torch.tensor(100.0).double())
    terms = [float(-weight[2] * x[0, 2]), 0.0, float(-weight[0] * x[2, 0])]
    expected = torch.zeros(3, 4, dtype=torch.float64)
    expected[0, 2], expected[2, 0] = (100 * terms[i] / sum(terms) for i in (0, 2))
    torch.testing.assert_close(done["self"], expected)


@every_mode
@pytest.mark.parametrize("op", [aten.huber_loss.default, aten.soft_margin_loss.default, aten.mse_loss.default], ids=str)
def test_a_loss_without_reduction_is_one_to_one(op: torch._ops.OpOverload, mode: ModeName) -> None:
    """Beside a target of zeros; soft margin, of ones: it multiplies."""
    x, r = 2 * Tensors(4)(3, 4), Tensors(5).normal(3, 4)
    target = torch.ones_like(x) if "soft" in str(op) else torch.zeros_like(x)
    done = bind_op(op, {"self": x, "target": target, "reduction": 0}, ["self"], mode).back(r)
    torch.testing.assert_close(done["self"], r, atol=1e-5, rtol=1e-5)


def test_two_operands_share_by_their_size() -> None:
    x, target = torch.tensor([3.0, -1.0]), torch.tensor([1.0, 4.0])
    arguments = {"self": x, "target": target, "reduction": 0}
    done = bind_op(aten.mse_loss.default, arguments, ["self", "target"]).back(torch.tensor([40.0, 60.0]))
    torch.testing.assert_close(done["self"], torch.tensor([30.0, 12.0]))
    torch.testing.assert_close(done["target"], torch.tensor([10.0, 48.0]))


def test_labels_of_both_kinds_at_once() -> None:
    """Cross entropy with logits: both terms go to the logit, whatever the label."""
    x, target = Tensors(6)(3, 4), Tensors(7)(3, 4).sigmoid()
    r = Tensors(8).normal(3, 4)
    arguments = {"self": x, "target": target, "reduction": 0}
    done = bind_op(aten.binary_cross_entropy_with_logits.default, arguments, ["self"]).back(r)
    torch.testing.assert_close(done["self"], r)


def _alignments(label: list[int], steps: int, classes: int) -> list[tuple[int, ...]]:
    """All paths that spell the label when repeats are merged and blanks (0) are dropped."""
    paths = product(range(classes), repeat=steps)
    return [path for path in paths if [c for c, _ in groupby(path) if c] == label]


def _aligned(x: Tensor, label: list[int]) -> tuple[Tensor, float]:
    """How much each element of [T, C] counts, and the loss: path by path."""
    counts, total = torch.zeros_like(x), 0.0
    for path in _alignments(label, *x.shape):
        likely = math.exp(math.fsum(float(x[step, c]) for step, c in enumerate(path)))
        total += likely
        for step, c in enumerate(path):
            counts[step, c] += likely * abs(float(x[step, c]))
    return counts / counts.sum(), -math.log(total)


@every_mode
@pytest.mark.parametrize("reduction", [0, 1, 2])
def test_ctc_shares_over_its_alignments(reduction: int, mode: ModeName) -> None:
    x = Tensors(9)(4, 2, 3).log_softmax(-1)
    labels, lengths = [[1, 1], [2]], [4, 3]
    targets = torch.tensor([[1, 1], [2, 0]])
    arguments = {
        "log_probs": x,
        "targets": targets,
        "input_lengths": lengths,
        "target_lengths": [2, 1],
        "reduction": reduction,
    }
    r = torch.tensor([70.0, 30.0] if reduction == 0 else 100.0, dtype=torch.float64)
    done = bind_op(aten.ctc_loss.IntList, arguments, ["log_probs"], mode).back(r)
    parts = [_aligned(x[: lengths[n], n], labels[n]) for n in range(2)]
    losses = [loss / (len(label) if reduction == 1 else 1) for (_, loss), label in zip(parts, labels, strict=True)]
    units = [70.0, 30.0] if reduction == 0 else [100 * loss / sum(losses) for loss in losses]
    expected = torch.zeros_like(x)
    for n, (counts, _) in enumerate(parts):
        expected[: lengths[n], n] = units[n] * counts
    torch.testing.assert_close(done["log_probs"], expected)
