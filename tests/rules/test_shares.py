"""Reductions that are no sums share by what each element counts, written out group by group."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from .compare import assert_same
from .harness import MODE_NAMES, MODES, ModeName, assert_conserved, bind_op
from .tensors import Tensors, checked, tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
Weights = Callable[[list[float]], list[float]]


def by_power(p: float) -> Weights:
    return lambda xs: [abs(x) ** p for x in xs]


def by_deviation(xs: list[float]) -> list[float]:
    mean = sum(xs) / len(xs)
    return [(x - mean) ** 2 for x in xs]


def by_exponential(xs: list[float]) -> list[float]:
    return [math.exp(x - max(xs)) for x in xs]


def equally(xs: list[float]) -> list[float]:
    return [1.0 for _ in xs]


REDUCTIONS: dict[str, tuple[Any, dict[str, Any], Weights]] = {
    "l1": (aten.linalg_vector_norm.default, {"ord": 1, "dim": [-1]}, by_power(1)),
    "l2": (aten.linalg_vector_norm.default, {"dim": [-1]}, by_power(2)),
    "l3": (aten.norm.ScalarOpt_dim, {"p": 3, "dim": [-1]}, by_power(3)),
    "variance": (aten.var.correction, {"dim": [-1], "correction": 0}, by_deviation),
    "deviation": (aten.std.correction, {"dim": [-1], "correction": 0}, by_deviation),
    "log sum": (aten.logsumexp.default, {"dim": [-1]}, by_exponential),
    "product": (aten.prod.dim_int, {"dim": -1}, equally),
}
RUNNING: dict[str, tuple[Any, Weights]] = {
    "product": (aten.cumprod.default, equally),
    "log sum": (aten.logcumsumexp.default, by_exponential),
}


def shared(xs: list[float], units: float, weights: Weights) -> list[float]:
    w = weights(xs)
    return [units * (v / sum(w) if sum(w) else 1 / len(w)) for v in w]


@every_mode
@checked
@given(t=tensors(), name=st.sampled_from(list(REDUCTIONS)), rows=st.integers(0, 3), size=st.integers(1, 4))
def test_a_group_shares_by_what_its_elements_count(mode: ModeName, t: Tensors, name: str, rows: int, size: int) -> None:
    op, more, weights = REDUCTIONS[name]
    x, r = t(rows, size), t.normal(rows)
    done = bind_op(op, {"self": x, **more}, ["self"], mode).back(r)
    expected = [
        shared(row, units, weights) for row, units in zip(x.double().tolist(), r.double().tolist(), strict=True)
    ]
    assert_same(done["self"], torch.tensor(expected, dtype=torch.float64).reshape(rows, size), of=r)
    assert_conserved(done)


@every_mode
@checked
@given(t=tensors(), name=st.sampled_from(list(RUNNING)), size=st.integers(1, 5))
def test_a_running_reduction_shares_over_what_came_before(mode: ModeName, t: Tensors, name: str, size: int) -> None:
    op, weights = RUNNING[name]
    x, r = t(2, size), t.normal(2, size)
    done = bind_op(op, {"self": x, "dim": 1}, ["self"], mode).back(r)
    expected = torch.zeros(2, size, dtype=torch.float64)
    for row in range(2):
        for at in range(size):
            given_out = shared(x[row, : at + 1].double().tolist(), float(r[row, at]), weights)
            expected[row, : at + 1] += torch.tensor(given_out, dtype=torch.float64)
    assert_same(done["self"], expected, of=r)
    assert_conserved(done)


@pytest.mark.parametrize(
    ("p", "expected"),
    [(math.inf, [0, 50.0, 0, 50]), (-math.inf, [0, 0, 100.0, 0]), (0, [100 / 3, 100 / 3, 0, 100 / 3])],
    ids=str,
)
def test_norms_at_the_limits(p: float, expected: list[float]) -> None:
    x = torch.tensor([1.0, -3.0, 0.0, 3.0])
    done = bind_op(aten.linalg_vector_norm.default, {"self": x, "ord": p}, ["self"]).back(torch.tensor(100.0))
    torch.testing.assert_close(done["self"], torch.tensor(expected))


def test_a_reduction_of_nothing_books_what_it_got() -> None:
    done = bind_op(aten.prod.dim_int, {"self": torch.ones(2, 0), "dim": 1}, ["self"]).back(torch.tensor([30.0, 70.0]))
    assert done["self"].shape == (2, 0)
    assert done.booked("constant:prod_dim_int") == pytest.approx(100)


def test_values_far_apart_leave_no_gap() -> None:
    """exp(-800) is zero in float64; its running share is not."""
    x = torch.tensor([-800.0, -801.0, 0.0], dtype=torch.float64)
    r = torch.tensor([10.0, 20.0, 70.0], dtype=torch.float64)
    done = bind_op(aten.logcumsumexp.default, {"self": x, "dim": 0}, ["self"]).back(r)
    share = 1 / (1 + math.exp(-1))
    expected: Tensor = torch.tensor([10 + 20 * share, 20 * (1 - share), 70], dtype=torch.float64)
    torch.testing.assert_close(done["self"], expected)
