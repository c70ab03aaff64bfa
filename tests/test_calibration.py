"""`fit_temperature`: the best temperature there is, on what can be calibrated; else a sentence."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from zoo import MLP

from dlb_core import DLBacktrace, TemperatureFit, fit_temperature


def drawn(seed: int, samples: int = 60, classes: int = 4, sharpness: float = 1.0) -> tuple[Tensor, Tensor]:
    """Logits, and labels drawn from their softmax at temperature 1 / sharpness."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(samples, classes, generator=generator, dtype=torch.float64) * 2
    labels = torch.multinomial((logits * sharpness).softmax(1), 1, generator=generator)[:, 0]
    return logits, labels


def nll(logits: Tensor, labels: Tensor, temperature: float) -> float:
    return torch.nn.functional.cross_entropy(logits.double() / temperature, labels).item()


seeds = st.integers(0, 10_000)
sharpnesses = st.sampled_from([0.2, 0.5, 1.0, 2.0])


@given(seeds, sharpnesses, st.integers(2, 6))
@settings(max_examples=40)
def test_no_temperature_of_a_fine_grid_is_better(seed: int, sharpness: float, classes: int) -> None:
    logits, labels = drawn(seed, classes=classes, sharpness=sharpness)
    fit = fit_temperature(logits, labels)
    grid = torch.logspace(-2, 2, 2001, dtype=torch.float64).tolist()
    losses = [nll(logits, labels, t) for t in grid]
    best = grid[losses.index(min(losses))]
    assert fit.nll_after <= min(losses) + 1e-12
    assert fit.nll_before == pytest.approx(nll(logits, labels, 1.0), abs=1e-12)
    assert fit.nll_after == pytest.approx(nll(logits, labels, fit.temperature), abs=1e-12)
    if not fit.at_bound:
        assert fit.temperature == pytest.approx(best, rel=5e-3)


@given(seeds, sharpnesses, st.floats(-50, 50), st.floats(0.2, 5))
@settings(max_examples=40)
def test_a_shift_changes_nothing_and_a_scale_scales_the_temperature(
    seed: int, sharpness: float, shift: float, scale: float
) -> None:
    logits, labels = drawn(seed, sharpness=sharpness)
    fit = fit_temperature(logits, labels)
    assert fit.nll_after <= fit.nll_before
    shifts = shift * torch.arange(len(logits), dtype=torch.float64)[:, None]
    shifted = fit_temperature(logits + shifts, labels)
    assert shifted.temperature == pytest.approx(fit.temperature, rel=1e-6)
    assert shifted.nll_after == pytest.approx(fit.nll_after, abs=1e-9)
    scaled = fit_temperature(logits * scale, labels)
    if not fit.at_bound and not scaled.at_bound:
        assert scaled.temperature == pytest.approx(fit.temperature * scale, rel=1e-6)
        assert scaled.nll_after == pytest.approx(fit.nll_after, abs=1e-12)
        assert scaled.ece_after == pytest.approx(fit.ece_after, abs=1e-9)


def test_the_temperature_that_made_the_labels_is_found() -> None:
    logits, labels = drawn(0, samples=20_000, sharpness=0.4)
    fit = fit_temperature(logits, labels)
    assert fit.temperature == pytest.approx(2.5, rel=0.05)
    assert fit.nll_after < fit.nll_before
    assert fit.ece_after < 0.02 < 0.1 < fit.ece_before


def test_one_that_is_calibrated_stays_so() -> None:
    logits, labels = drawn(1)
    once = fit_temperature(logits, labels)
    again = fit_temperature(logits / once.temperature, labels)
    assert again.temperature == pytest.approx(1, rel=1e-6)
    assert again.nll_after <= again.nll_before


def test_the_best_of_two_classes_by_hand() -> None:
    """Three of four are right by a margin of 1: sigmoid(1 / T) = 3 / 4, so T = 1 / log 3."""
    fit = fit_temperature(torch.tensor([1.0, 1.0, 1.0, 1.0, -1.0]), torch.tensor([1, 1, 1, 0, -100]))
    assert fit.temperature == pytest.approx(1 / math.log(3), rel=1e-9)
    assert fit.samples == 4
    assert fit.nll_after == pytest.approx(-(0.75 * math.log(0.75) + 0.25 * math.log(0.25)), rel=1e-9)
    assert fit.ece_before == pytest.approx(abs(1 / (1 + math.exp(-1)) - 0.75), rel=1e-9)
    assert fit.ece_after == pytest.approx(0, abs=1e-9)


def test_the_calibration_error_has_fifteen_equal_bins() -> None:
    """Oracle: bin by bin, sample by sample."""
    logits, labels = drawn(3, samples=500, classes=3, sharpness=0.5)
    bins: list[list[tuple[float, bool]]] = [[] for _ in range(15)]
    for row, label in zip(logits.softmax(1).tolist(), labels.tolist(), strict=True):
        sure = max(row)
        bins[math.ceil(sure * 15) - 1].append((sure, row.index(sure) == label))
    gaps = [abs(sum(right for _, right in b) - sum(sure for sure, _ in b)) for b in bins]
    assert fit_temperature(logits, labels).ece_before == pytest.approx(sum(gaps) / 500, abs=1e-12)


def test_binary_logits_are_two_classes() -> None:
    z = torch.randn(80, generator=torch.Generator().manual_seed(0)) * 3
    labels = (torch.rand(80, generator=torch.Generator().manual_seed(1)) < (z / 3).sigmoid()).long()
    flat = fit_temperature(z, labels)
    two = fit_temperature(torch.stack([torch.zeros_like(z), z], 1), labels)
    assert flat == two
    assert fit_temperature(z[:, None], labels) == flat
    assert fit_temperature(z[:, None], labels[:, None]) == flat
    assert fit_temperature(z, labels.bool()) == flat
    assert fit_temperature(z, labels.float()) == flat
    assert fit_temperature(z.tolist(), labels.tolist()).temperature == pytest.approx(flat.temperature, rel=1e-6)
    loss = torch.nn.functional.binary_cross_entropy_with_logits(z.double() / flat.temperature, labels.double())
    assert flat.nll_after == pytest.approx(loss.item())


def test_tokens_that_do_not_count_are_left_out() -> None:
    logits, labels = drawn(5, samples=24)
    kept = fit_temperature(logits[:18], labels[:18])
    labels[18:] = -100
    logits[18:] = float("nan")
    tokens, marks = logits.reshape(4, 6, -1), labels.reshape(4, 6)
    assert fit_temperature(tokens, marks) == kept
    labels[18:] = 9
    assert fit_temperature(tokens, marks, ignore_index=9) == kept


def test_rows_that_do_not_fit_at_once_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    logits, labels = drawn(6)
    whole = fit_temperature(logits, labels)
    monkeypatch.setattr("dlb_core.calibration.AT_ONCE", 7)
    parts = fit_temperature(logits, labels)
    assert parts.temperature == pytest.approx(whole.temperature, rel=1e-9)
    assert parts.ece_after == pytest.approx(whole.ece_after, abs=1e-9)


def test_low_precision_is_fitted_in_float64() -> None:
    logits, labels = drawn(7)
    low = logits.to(torch.bfloat16)
    assert fit_temperature(low, labels) == fit_temperature(low.double(), labels)


@pytest.mark.parametrize("bounds", [(0.01, 100.0), (0.5, 2.0)])
def test_without_a_best_temperature_the_bound_is_told(bounds: tuple[float, float]) -> None:
    right, labels = torch.eye(3), torch.arange(3)
    fit = fit_temperature(right, labels, bounds=bounds)
    assert (fit.temperature, fit.at_bound) == (bounds[0], True)
    assert "stopped at a bound" in str(fit)
    wrong = fit_temperature(-right, labels, bounds=bounds)
    assert (wrong.temperature, wrong.at_bound) == (bounds[1], True)
    for each in (fit, wrong):
        assert each.nll_after < each.nll_before


@pytest.mark.parametrize("size", [1e-30, 1e-3, 1e3, 1e30])
def test_logits_of_any_size_end_in_a_number(size: float) -> None:
    logits, labels = drawn(8)
    fit = fit_temperature(logits * size, labels)
    assert math.isfinite(fit.temperature)
    assert math.isfinite(fit.nll_after)
    assert fit.nll_after <= fit.nll_before


ONE = torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
WRONG = [
    (ONE, torch.tensor([0, 1, 2]), "do not match logits"),
    (ONE, torch.zeros(4, 1), "do not match logits"),
    (ONE[0], torch.tensor([0, 1]), "do not match logits"),
    (torch.tensor(1.0), torch.tensor(1), "do not match logits"),
    (ONE.T.reshape(1, 3, 4), torch.zeros(1, 4), "classes last"),
    (ONE.reshape(2, 6, 1), torch.zeros(2, 6), "have one class"),
    (torch.tensor([[1, 2], [3, 4]]), torch.tensor([0, 1]), "must be floating numbers"),
    (ONE * float("nan"), torch.tensor([0, 1, 2, 0]), "NaN or infinite"),
    (ONE.clone().index_put((torch.tensor(0), torch.tensor(0)), torch.tensor(-math.inf)), [0, 1, 2, 0], "infinite"),
    (ONE, [0, 1, 2, 3], "labels go from 0 to 3, classes from 0 to 2"),
    (ONE, [0, 1, 2, -1], "labels go from -1"),
    (ONE, [0.0, 1.0, 2.0, 0.5], "whole numbers"),
    (ONE, [0.0, 1.0, 2.0, math.nan], "whole numbers"),
    (ONE, [1, 1, 1, 1], "all labels are 1"),
    (ONE, [-100] * 4, "no label that counts"),
    (ONE[:0], [], "no label that counts"),
    (torch.ones(4, 3), [0, 1, 2, 0], "no temperature changes them"),
]


@pytest.mark.parametrize(("logits", "labels", "said"), WRONG, ids=[said for *_, said in WRONG])
def test_what_cannot_be_calibrated_is_said(logits: Tensor, labels: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        fit_temperature(logits, labels)


@pytest.mark.parametrize("bounds", [(0, 2), (2, 3), (0.1, 0.5), (1, 1), (0.5, math.inf), (math.nan, 2)])
def test_bounds_that_are_none(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="give two positive numbers with 1 between them"):
        fit_temperature(ONE, [0, 1, 2, 0], bounds=bounds)


def test_the_result_is_data_and_a_table() -> None:
    fit = fit_temperature(*drawn(9))
    assert isinstance(fit, TemperatureFit)
    with pytest.raises(FrozenInstanceError):
        fit.temperature = 1.0  # type: ignore[misc]
    before, after = fit.table().records()
    assert before["temperature"] == 1.0
    assert after["temperature"] == fit.temperature
    assert after["negative log-likelihood"] == fit.nll_after
    assert "calibration error" in str(fit)


def test_logits_keep_their_gradient_and_their_values() -> None:
    logits, labels = drawn(10)
    before = logits.clone()
    logits.requires_grad_()
    fit_temperature(logits, labels)
    assert logits.grad is None
    assert torch.equal(logits, before)


def test_the_fit_goes_into_predict() -> None:
    torch.manual_seed(0)
    dlb, x = DLBacktrace(MLP().eval(), torch.randn(2, 6)), torch.randn(40, 6)
    logits = dlb.predict(x)["output"].output.clone()
    labels = torch.multinomial((logits / 3).softmax(1), 1)[:, 0]
    fit = fit_temperature(logits, labels)
    warm = dlb.predict(x, temperature=fit.temperature)["output"].output
    assert torch.nn.functional.cross_entropy(warm, labels).item() == pytest.approx(fit.nll_after, abs=1e-5)
