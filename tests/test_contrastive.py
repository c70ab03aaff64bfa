"""contrastive: two maps by the formula, that exchange with their seeds and add up to `default`."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import zoo
from cells import Gru, Lstm, redrawn
from contrast_oracle import Value, through, walk_back
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from zoo import CASES, Case

from dlb_core import DLBacktrace, Explanation

few = settings(max_examples=15)
seeds = st.integers(0, 2**31 - 1)
UNITS = 100.0


def contrast(dlb: DLBacktrace, call: Any, target: Any, against: Any = "rest") -> Explanation:
    return dlb.explain(call, mode="contrastive", target=target, against=against, multiplier=UNITS)


def assert_same(ours: Tensor, expected: Tensor, rtol: float = 1e-9) -> None:
    torch.testing.assert_close(ours, expected, rtol=rtol, atol=rtol * UNITS)


# by hand


def test_two_classes_of_a_linear_model_by_hand() -> None:
    """y = (3 - 2 + 1, 1 - 2 + 1 - 1) for x = (1, 2, -1)."""
    model = nn.Linear(3, 2).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -1.0, -1.0], [1.0, -1.0, -1.0]]))
        model.bias.copy_(torch.tensor([0.0, -1.0]))
    x = torch.tensor([[1.0, 2.0, -1.0]], dtype=torch.float64)
    assert model(x).tolist() == [[2.0, -1.0]]
    # of y0: 3 and 1 agree, -2 does not; of y1: -2 agrees, 1 and 1 do not
    done = contrast(DLBacktrace(model, x), x, target=0)
    for_it = torch.tensor([[300 / 6 + 100 / 4, 0, 100 / 6 + 100 / 4]], dtype=torch.float64)
    against = torch.tensor([[0, 200 / 6 + 200 / 4, 0]], dtype=torch.float64)
    assert_same(done.relevance.positive["input"], for_it)
    assert_same(done.relevance.negative["input"], against)
    assert_same(done.inputs["input"], for_it - against)


def test_crossed_is_what_disagrees() -> None:
    """One neuron of value 1 from 3 and -2: two fifths of the units speak against it."""
    model = nn.Linear(2, 1, bias=False).double().eval()
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -2.0]]))
    x = torch.ones(1, 2, dtype=torch.float64)
    done = contrast(DLBacktrace(model, x), x, target=0, against=None)
    for_it, against = done.relevance.positive, done.relevance.negative
    assert for_it["input"].tolist() == [pytest.approx([60.0, 0.0])]
    assert against["input"].tolist() == [pytest.approx([0.0, 40.0])]
    assert for_it.ledger.seed == UNITS
    assert against.ledger.seed == 0
    assert for_it.ledger.accounts["crossed"] == pytest.approx(40.0)
    assert against.ledger.accounts["crossed"] == pytest.approx(-40.0)


# by the formula


def dense() -> nn.Sequential:
    return nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 6), nn.ReLU(), nn.Linear(6, 3))


def convolutions() -> nn.Sequential:
    layers = (nn.Conv2d(2, 4, 3, padding=1, stride=2), nn.GELU(), nn.Conv2d(4, 4, 2, groups=2), nn.ReLU())
    return nn.Sequential(*layers, nn.AvgPool2d(2), nn.Flatten(), nn.Linear(4, 3))


NETWORKS: dict[str, tuple[Any, tuple[int, ...]]] = {"dense": (dense, (5,)), "convolutions": (convolutions, (2, 6, 6))}


@cache
def network(name: str) -> tuple[nn.Sequential, DLBacktrace]:
    build, shape = NETWORKS[name]
    model = build().double().eval()
    return model, DLBacktrace(model, torch.randn(2, *shape, dtype=torch.float64))


@pytest.mark.parametrize("name", NETWORKS)
@few
@given(seed=seeds, target=st.integers(0, 2), against=st.sampled_from(["rest", None, 0, 1, 2]))
def test_networks_by_the_formula(name: str, seed: int, target: int, against: int | str | None) -> None:
    if target == against:
        against = "rest"
    model, dlb = network(name)
    redrawn(model, seed)
    x = torch.randn(2, *NETWORKS[name][1], generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    done = contrast(dlb, x, target, against)
    for sample in range(2):
        first, last = through(model, x[sample])
        plus, minus = torch.zeros(3, dtype=torch.float64), torch.zeros(3, dtype=torch.float64)
        plus[target] = UNITS
        others = [c for c in range(3) if c != target] if against == "rest" else [against] if against is not None else []
        if others:
            minus[others] = UNITS * last.value[others].softmax(0)
        walk_back(last, plus, minus)
        shape = x[sample].shape
        assert_same(done.relevance.positive["input"][sample], first.plus.reshape(shape))
        assert_same(done.relevance.negative["input"][sample], first.minus.reshape(shape))


def lstm_oracle(model: Lstm, steps: list[Value]) -> Value:
    """The cell by its formula: gates are numbers, sums of two linear maps are sums."""
    start = steps[0].linear(lambda v: v[:3]).passing(torch.tanh)
    h = c = start
    for x in steps:
        read, carry = x.linear(model.read), h.linear(model.carry)
        i, f, o, g = (read + carry).parts(4)
        kept = c.passing(lambda v, f=f: f.value.sigmoid() * v)
        new = g.passing(torch.tanh).passing(lambda v, i=i: i.value.sigmoid() * v)
        c = kept + new
        h = c.passing(torch.tanh).passing(lambda v, o=o: o.value.sigmoid() * v)
    return h.linear(model.head)


def gru_oracle(model: Gru, steps: list[Value]) -> Value:
    h = steps[0].linear(lambda v: v[:3]).passing(torch.tanh)
    for x in steps:
        (z, r, n), (uz, ur, un) = x.linear(model.read).parts(3), h.linear(model.carry).parts(3)
        keep, reset = (z.value + uz.value).sigmoid(), (r.value + ur.value).sigmoid()
        new = (n + un.passing(lambda v, reset=reset: reset * v)).passing(torch.tanh)
        fresh, old = new.passing(lambda v, k=keep: (1 - k) * v), h.passing(lambda v, k=keep: k * v)
        h = fresh + old
    return h.linear(model.head)


CELLS: dict[str, tuple[Any, Any]] = {"lstm": (Lstm, lstm_oracle), "gru": (Gru, gru_oracle)}


@cache
def cell(name: str) -> tuple[Any, DLBacktrace]:
    model = CELLS[name][0]().double().eval()
    return model, DLBacktrace(model, torch.randn(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", CELLS)
@few
@given(seed=seeds, target=st.integers(0, 1))
def test_cells_in_plain_ops(name: str, seed: int, target: int) -> None:
    model, dlb = cell(name)
    redrawn(model, seed)
    x = torch.randn(1, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    done = contrast(dlb, x, target)
    steps = [Value(step) for step in x[0]]
    last = CELLS[name][1](model, steps)
    torch.testing.assert_close(last.value, model(x)[0].detach())
    plus = torch.zeros(2, dtype=torch.float64)
    plus[target] = UNITS
    walk_back(last, plus, plus.flip(0))
    assert_same(done.relevance.positive["x"][0], torch.stack([step.plus for step in steps]))
    assert_same(done.relevance.negative["x"][0], torch.stack([step.minus for step in steps]))


# of any model


@pytest.fixture(scope="module", params=[name for name in CASES if not name.endswith("eager")])
def traced(request: pytest.FixtureRequest) -> tuple[Case, DLBacktrace]:
    case = CASES[request.param]
    return case, zoo.traced(case.name, torch.float64)


def test_the_maps_exchange_add_up_and_close(traced: tuple[Case, DLBacktrace]) -> None:
    """Seeds exchanged, maps exchanged; their sum is `default` with both seeds; neither is negative; each has books."""
    case, dlb = traced
    call = case.example(dtype=torch.float64)
    one, other = contrast(dlb, call, 2, 1), contrast(dlb, call, 1, 2)
    for name in case.explained:
        for_it, against = one.relevance.positive[name], one.relevance.negative[name]
        assert_same(for_it, other.relevance.negative[name], 1e-12)
        assert_same(against, other.relevance.positive[name], 1e-12)
        assert_same(one.inputs[name], for_it - against, 1e-12)
        for side in (for_it, against):
            assert float(side.min()) >= -1e-9 * float(side.max())
            assert float(side.max()) > 0
    both = one.relevance.positive["output"] + one.relevance.negative["output"]
    assert float(both.sum()) == pytest.approx(2 * UNITS * len(both))
    whole = dlb.explain(call, mode="default", target=both, multiplier=1.0)
    for name in case.explained:
        both_maps = one.relevance.positive[name] + one.relevance.negative[name]
        assert_same(both_maps, whole.inputs[name], 1e-10)
    crossed = []
    for side in (one.relevance.positive, one.relevance.negative):
        assert side.ledger.check() == []
        assert side.ledger.seed == pytest.approx(UNITS * len(both))
        inputs = sum(float(side[name].sum()) for name in case.explained)
        total = inputs + sum(side.ledger.accounts.values())
        assert total == pytest.approx(side.ledger.seed, rel=1e-9)
        crossed.append(side.ledger.accounts["crossed"])
    assert crossed[0] == pytest.approx(-crossed[1], rel=1e-9, abs=1e-9)
