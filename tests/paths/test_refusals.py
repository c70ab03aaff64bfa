"""What a path and noise refuse, each with words that say what to give instead."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, NonFiniteError, integrated, smooth

from .models import (
    numbers,
    reader,
    traced,
    two,
)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: integrated("epsilon", steps=0), "steps=0: must be an int of at least 1"),
        (lambda: integrated("epsilon", steps=2.5), "steps=2.5"),
        (lambda: integrated("epsilon", chunk=0), "chunk=0"),
        (lambda: smooth("epsilon", noise=-0.1), "noise=-0.1: must be a finite number, 0 or more"),
        (lambda: smooth("epsilon", noise=math.inf), "noise=inf"),
        (lambda: smooth("epsilon", samples=0), "samples=0"),
        (lambda: smooth("epsilon", seed="logit"), "of the noise"),
        (lambda: integrated(integrated("epsilon")), "integrated takes a mode"),
        (lambda: smooth(smooth("epsilon")), "smooth takes a mode"),
    ],
)
def test_wrong_parameters_are_refused_at_once(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (integrated("epsilon", {"middle": 0}), "baseline names 'middle': choose from left, right"),
        (integrated("epsilon", numbers(0, 3)), r"baseline of 'left' has shape \[3\].* \[2, 4\]"),
        (integrated("epsilon", {"right": numbers(0, 5, 2, 4)}), r"baseline of 'right' has shape \[5, 2, 4\]"),
        (integrated("epsilon", math.nan), "give a finite number or a tensor"),
        (integrated("epsilon", torch.full((4,), math.inf)), "values that are not finite"),
        (integrated("epsilon", "black"), "give a finite number or a tensor"),
        (integrated("epsilom"), "unknown mode 'epsilom'"),
        (integrated("contrastive"), "'contrastive' has two"),
        (smooth("contrastive"), "'contrastive' has two"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(mode: Any, words: str) -> None:
    _, dlb = two()
    with pytest.raises(ValueError, match=words):
        dlb.explain(numbers(0, 2, 4), numbers(1, 2, 4), mode=mode, target=1)


@pytest.mark.parametrize("baseline", [{"input_ids": 11}, {"input_ids": -1}, {"input_ids": 0.5}, 4.5])
def test_a_baseline_that_is_no_token_is_refused(baseline: Any) -> None:
    _, dlb, _ = reader()
    with pytest.raises(ValueError, match=r"token ids in 0 \.\. 10"):
        dlb.explain(torch.zeros(1, 4, dtype=torch.long), mode=integrated("epsilon", baseline), target=1)


def test_a_multiplier_is_refused_where_the_output_counts() -> None:
    _, dlb = traced("perceptron")
    with pytest.raises(ValueError, match="use scaler="):
        dlb.explain(numbers(0, 1, 5), mode=integrated("epsilon"), target=1, multiplier=50.0)


def test_integers_that_no_lookup_reads_have_no_path() -> None:
    class Counted(nn.Module):
        def forward(self, x: Tensor, count: Tensor) -> Tensor:
            return x * count

    call: Mapping[str, Tensor] = {"x": numbers(0, 2, 3), "count": torch.ones(2, 3, dtype=torch.long)}
    dlb = DLBacktrace(Counted().eval(), dict(call), explain_inputs=["x", "count"])
    with pytest.raises(ValueError, match="count: nothing lies between"):
        dlb.explain(**call, mode=integrated("epsilon"), target=1)


def test_an_output_that_is_not_finite_on_the_way_is_said() -> None:
    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()

    x = torch.tensor([[1.0, 2.0]])
    dlb = DLBacktrace(Logarithm().eval(), x)
    with pytest.raises(NonFiniteError, match="choose another baseline"):
        dlb.explain(x, mode=integrated("epsilon"), target=0)
    found = dlb.explain(x, mode=integrated("epsilon", 1.0), target=1)
    assert found.inputs["x"][0].tolist() == pytest.approx([0.0, math.log(2)], rel=1e-4)
