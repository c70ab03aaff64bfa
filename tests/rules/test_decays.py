"""An exponential of what is nowhere positive is a decay, and a decay is a gate; the sign is read off the graph."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from .harness import MODE_NAMES, MODES, ModeName, Outcome, assert_conserved, bind
from .tensors import Tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def faded(exponent: Callable[[Any], Any], mode: ModeName) -> tuple[Outcome, Tensor]:
    """x * exp(exponent(g)) on [2, 4], with a random seed."""
    t = Tensors(1)
    arguments = {"x": t(2, 4), "g": t(2, 4)}
    bound = bind(lambda x, g: aten.mul.Tensor(x, aten.exp.default(exponent(g))), arguments, ["x", "g"], mode)
    r = t.normal(2, 4)
    done = bound.back(r)
    assert_conserved(done)
    return done, r


def running(x: Any) -> Any:
    return aten.cumsum.default(aten.neg.default(aten.softplus.default(x)), -1)


def last(x: Any) -> Any:
    return aten.slice.Tensor(x, 1, -1)


BELOW_ZERO = {
    "-softplus(g) * 2": lambda g: aten.mul.Scalar(aten.neg.default(aten.softplus.default(g)), 2.0),
    "softplus(g) * -2": lambda g: aten.mul.Tensor(aten.softplus.default(g), -2.0),
    "softplus(g) / -2": lambda g: aten.div.Scalar(aten.softplus.default(g), -2.0),
    "log(sigmoid(g))": aten.log_sigmoid.default,
    "-|g|": lambda g: aten.neg.default(aten.abs.default(g)),
    "-g^2 - 1": lambda g: aten.sub.Tensor(aten.neg.default(aten.pow.Tensor_Scalar(g, 2)), 1.0),
    "min(g, 0)": lambda g: aten.clamp.default(g, None, 0.0),
    "-max(softplus(g), 1e-3)": lambda g: aten.neg.default(aten.clamp.default(aten.softplus.default(g), 1e-3, 10.0)),
    "a running sum": running,
    "a cast, moved sum": lambda g: aten.t.default(
        aten._to_copy.default(aten.t.default(running(g)), dtype=torch.float64)
    ),
    "masked by -inf": lambda g: aten.masked_fill.Scalar(running(g), torch.ones(2, 4) > 2, -torch.inf),
    "filled up with zeros": lambda g: aten.slice.Tensor(aten.constant_pad_nd.default(running(g), [1, 0]), 1, 0, 4),
    "less its maximum": lambda g: aten.sub.Tensor(g, aten.amax.default(g, [-1], True)),
    "less its maximum of all": lambda g: aten.sub.Tensor(g, aten.max.default(g)),
    "what is still to come": lambda g: _to_come(running(g)),
}


def _to_come(sums: Any) -> Any:
    return aten.sub.Tensor(last(sums), sums)


@every_mode
@pytest.mark.parametrize("exponent", BELOW_ZERO)
def test_a_decay_is_a_gate(exponent: str, mode: ModeName) -> None:
    """exp of what is nowhere positive lies in (0, 1], whatever the numbers are."""
    done, r = faded(BELOW_ZERO[exponent], mode)
    assert torch.equal(done["x"], r)
    assert "g" not in done.relevance


ANY_SIGN = {
    "g": lambda g: g,
    "-g": aten.neg.default,
    "|g|": aten.abs.default,
    "1 - |g|": lambda g: aten.rsub.Scalar(aten.abs.default(g), 1.0),
    "|g| - 1": lambda g: aten.sub.Tensor(aten.abs.default(g), 1.0),
    "softplus(g) * g": lambda g: aten.mul.Tensor(aten.softplus.default(g), g),
    "max(-|g|, 0.1)": lambda g: aten.clamp.default(aten.neg.default(aten.abs.default(g)), 0.1, None),
    "-|g| beside 0.5": lambda g: aten.where.ScalarOther(
        torch.eye(2, 4) > 0, aten.neg.default(aten.abs.default(g)), 0.5
    ),
    "-|g| beside g": lambda g: aten.slice.Tensor(
        aten.cat.default([aten.neg.default(aten.abs.default(g)), g], 1), 1, 0, 4
    ),
    "filled up with ones": lambda g: aten.slice.Tensor(aten.constant_pad_nd.default(running(g), [1, 0], 1.0), 1, 0, 4),
    "what was before": lambda g: _before(running(g)),
    "what is to come along another dimension": lambda g: _across(running(g)),
    "its maximum less it": lambda g: aten.sub.Tensor(aten.amax.default(g, [-1], True), g),
    "less its minimum": lambda g: aten.sub.Tensor(g, aten.amin.default(g, [-1], True)),
    "less the maximum of another": lambda g: aten.sub.Tensor(g, aten.amax.default(aten.neg.default(g), [-1], True)),
    "less half its maximum": lambda g: aten.sub.Tensor(g, aten.amax.default(g, [-1], True), alpha=0.5),
    "less a maximum that is not kept": lambda g: _by_rows(aten.slice.Tensor(g, 1, 0, 2)),
    "a dense layer": lambda g: aten.linear.default(
        aten.neg.default(aten.abs.default(g)), torch.eye(4, dtype=torch.float64) - 0.5
    ),
}


def _before(sums: Any) -> Any:
    return aten.sub.Tensor(sums, last(sums))


def _by_rows(square: Any) -> Any:
    """Each column less the maximum of a row."""
    less = aten.sub.Tensor(square, aten.amax.default(square, [-1]))
    return aten.cat.default([less, less], 1)


def _across(sums: Any) -> Any:
    return aten.sub.Tensor(aten.slice.Tensor(sums, 0, -1), sums)


@every_mode
@pytest.mark.parametrize("exponent", ANY_SIGN)
def test_an_exponential_that_may_grow_is_no_gate(exponent: str, mode: ModeName) -> None:
    done, r = faded(ANY_SIGN[exponent], mode)
    torch.testing.assert_close(done["x"], r / 2)


@every_mode
@pytest.mark.parametrize("rate", ["parameter", "exponential", "negative exponential"])
def test_the_decay_of_a_carried_state_gets_nothing(rate: str, mode: ModeName) -> None:
    """s' = exp(-exp(a) dt) s + u: all to the state and to what comes in, where the rate is negative for sure."""

    def step(s: Any, dt: Any, u: Any, a: Any) -> Any:
        a = a if rate == "parameter" else aten.exp.default(a)
        a = aten.neg.default(a) if rate == "negative exponential" else a
        decay = aten.exp.default(aten.mul.Tensor(aten.softplus.default(dt), a))
        return aten.add.Tensor(aten.mul.Tensor(decay, s), u)

    t = Tensors(4)
    bound = bind(step, {"s": t(2, 4), "dt": t(2, 4), "u": t(2, 4), "a": t(4)}, ["s", "dt", "u"], mode)
    done = bound.back(t.normal(2, 4))
    assert ("dt" in done.relevance) == (rate != "negative exponential")
