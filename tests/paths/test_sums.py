"""What adds up along a path, in every mode on every model."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlb_core import integrated, smooth

from .models import (
    MODELS,
    chosen,
    modes,
    numbers,
    traced,
)


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.sampled_from([1, 2, 5]), size=st.sampled_from([0.1, 1.0, 5.0]))
def test_relevance_along_a_path_adds_up_to_the_change_of_the_output(
    name: str, seed: int, steps: int, size: float
) -> None:
    model, dlb = traced(name)
    shape = MODELS[name][1]
    x, base = size * numbers(seed, 3, *shape), size * numbers(seed + 1, 3, *shape)
    change = float(chosen(model(x)) - chosen(model(base)))
    options = modes(dlb)
    for mode, more in [options[seed % len(options)], options[(seed + 5) % len(options)], ("epsilon", {})]:
        exp = dlb.explain(x, mode=integrated(mode, base, steps, **more), target=1)
        ledger = exp.ledger
        assert ledger.seed == pytest.approx(change, rel=1e-9, abs=1e-12)
        assert float(exp.inputs["x"].sum()) == pytest.approx(ledger.inputs["x"], abs=1e-9 * ledger.scale)
        ends = math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values())
        assert ends == pytest.approx(change, abs=1e-9 * ledger.scale * math.sqrt(len(ledger.by_node)))
        assert ledger.check() == []


@pytest.mark.parametrize("name", MODELS)
def test_every_mode_adds_up_on_every_model(name: str) -> None:
    model, dlb = traced(name)
    x = numbers(3, 2, *MODELS[name][1])
    change = float(chosen(model(x)) - chosen(model(torch.zeros_like(x))))
    for mode, options in modes(dlb):
        path = dlb.explain(x, mode=integrated(mode, steps=3, **options), target=1).ledger
        assert path.seed == pytest.approx(change, rel=1e-9)
        assert path.residual == pytest.approx(0, abs=1e-9 * path.scale * math.sqrt(len(path.by_node)))
        noisy = dlb.explain(x, mode=smooth(mode, samples=3, **options), target=1).ledger
        assert noisy.seed == pytest.approx(200, rel=1e-9)
        assert noisy.residual == pytest.approx(0, abs=1e-9 * noisy.scale * math.sqrt(len(noisy.by_node)))


@pytest.mark.parametrize("name", ["perceptron", "convolutions", "lstm", "attention"])
def test_where_nothing_is_held_the_inputs_get_all_of_it(name: str) -> None:
    model, dlb = traced(name)
    x = numbers(4, 3, *MODELS[name][1])
    change = (model(x) - model(torch.zeros_like(x)))[:, 1]
    for mode in ("epsilon", "default", "gamma"):
        given = dlb.explain(x, mode=integrated(mode, steps=4), target=1).inputs["x"].flatten(1).sum(1)
        assert torch.allclose(given, change, rtol=1e-4, atol=1e-5), mode


def test_a_normalisers_statistics_hold_their_share() -> None:
    _, dlb = traced("transformer")
    ledger = dlb.explain(numbers(5, 2, 4, 6), mode=integrated("epsilon", steps=4), target=1).ledger
    assert ledger.accounts["held"] != 0
    assert set(ledger.accounts) == {"held", "stabiliser"}
