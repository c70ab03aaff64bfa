"""`smooth`: the mean over noisy inputs, and what it is about."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlb_core import integrated, smooth

from .models import (
    numbers,
    traced,
)


def test_without_noise_it_is_the_mode_itself() -> None:
    _, dlb = traced("convolutions")
    x = numbers(24, 2, 1, 6, 6)
    quiet = dlb.explain(x, mode=smooth("epsilon", noise=0, samples=3), target=1)
    assert torch.allclose(quiet.inputs["x"], dlb.explain(x, mode="epsilon", target=1).inputs["x"], atol=1e-9)


@pytest.mark.parametrize("inner", ["epsilon", integrated("epsilon", steps=2)], ids=["mode", "path"])
def test_it_is_the_mean_over_noisy_inputs(inner: Any) -> None:
    _, dlb = traced("perceptron")
    x, samples = numbers(25, 3, 5), 4
    draws = torch.randn(samples, 1, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    copies = x + 0.2 * (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) * draws
    wrap = smooth(inner, 0.2, samples, seed=7)
    runs = [dlb.explain(copy, mode=inner, target=1, seed="logit") for copy in copies]
    exp = dlb.explain(x, mode=wrap, target=1, seed="logit")
    mean = torch.stack([run.inputs["x"] for run in runs]).mean(0)
    assert torch.allclose(exp.inputs["x"], mean, atol=1e-9 * float(mean.abs().max()))
    assert exp.ledger.seed == pytest.approx(sum(run.ledger.seed for run in runs) / samples)
    again, other = (dlb.explain(x, mode=smooth(inner, 0.2, samples, seed=s), target=1, seed="logit") for s in (7, 8))
    assert torch.equal(again.inputs["x"], exp.inputs["x"])
    assert not torch.allclose(other.inputs["x"], exp.inputs["x"])


def test_the_target_is_chosen_at_the_input_itself() -> None:
    model, dlb = traced("perceptron")
    x = numbers(26, 6, 5)
    exp = dlb.explain(x, mode=smooth("epsilon", noise=2.0, samples=8))
    assert exp.target == model(x).argmax(1).tolist()
