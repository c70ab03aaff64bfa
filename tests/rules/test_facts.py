"""Gates, statistics and elementwise regions are found in the graph, and only where they are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from .harness import FORMULATED, MODE_NAMES, MODES, ModeName, Outcome, assert_conserved, bind
from .tensors import Tensors

aten = torch.ops.aten
OTHERS = (*FORMULATED, "cp-lrp")  # in attnlrp gates are factors like any other
every_mode = pytest.mark.parametrize("mode", [*MODES, *((name, None) for name in OTHERS)], ids=[*MODE_NAMES, *OTHERS])
#: where the test restates how addends share
shares_by_size = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def run(function: Any, mode: ModeName, *names: str, seed: int = 1) -> tuple[Outcome, torch.Tensor]:
    """The function of positive tensors [2, 4] of these names, with a random seed at its output."""
    t = Tensors(seed)
    bound = bind(function, {name: t.positive(2, 4) for name in names}, list(names), mode)
    r = t.normal(*bound.output.shape)
    done = bound.back(r)
    assert_conserved(done)
    return done, r


def mean(x: Any) -> Any:
    return aten.mean.dim(x, [-1], True)


def root_mean_square(x: Any) -> Any:
    return aten.sqrt.default(aten.add.Scalar(mean(aten.square.default(x)), 1e-5))


# gates: what carries a sigmoid's or a softmax' values is still a gate

SEEN_THROUGH = {
    "sigmoid": aten.sigmoid.default,
    "hardsigmoid": aten.hardsigmoid.default,
    "softmax": lambda g: aten.softmax.int(g, -1),
    "view": lambda g: aten.view.default(aten.sigmoid.default(g), [2, 4]),
    "permute twice": lambda g: aten.t.default(aten.t.default(aten.sigmoid.default(g))),
    "slice and expand": lambda g: aten.expand.default(aten.slice.Tensor(aten.sigmoid.default(g), 1, 0, 1), [2, 4]),
    "chunk": lambda g: aten.cat.default([aten.chunk.default(aten.sigmoid.default(g), 2, 1)[i] for i in (1, 0)], 1),
    "cast": lambda g: aten._to_copy.default(aten.sigmoid.default(g), dtype=torch.float64),
    "dropout": lambda g: aten.dropout.default(aten.sigmoid.default(g), 0.1, False),
    "masked": lambda g: aten.masked_fill.Scalar(aten.softmax.int(g, -1), torch.ones(2, 4) > 2, 0.0),
    "1 - g": lambda g: aten.rsub.Scalar(aten.sigmoid.default(g), 1.0),
    "-g": lambda g: aten.neg.default(aten.sigmoid.default(g)),
    "2 g": lambda g: aten.mul.Scalar(aten.sigmoid.default(g), 2.0),
    "g / 2": lambda g: aten.div.Scalar(aten.sigmoid.default(g), 2.0),
    "g + 1": lambda g: aten.add.Scalar(aten.sigmoid.default(g), 1.0),
}


@every_mode
@pytest.mark.parametrize("gate", SEEN_THROUGH)
@pytest.mark.parametrize("first", [True, False])
def test_a_gate_is_seen_through(gate: str, first: bool, mode: ModeName) -> None:
    def gated(x: Any, g: Any) -> Any:
        weight = SEEN_THROUGH[gate](g)
        return aten.mul.Tensor(weight, x) if first else aten.mul.Tensor(x, weight)

    done, r = run(gated, mode, "x", "g")
    assert torch.equal(done["x"], r)
    assert "g" not in done.relevance


NO_GATES = {
    "tanh": aten.tanh.default,
    "relu": aten.relu.default,
    "log of a gate": lambda g: aten.log.default(aten.sigmoid.default(g)),
    "gate plus a value": lambda g: aten.add.Tensor(aten.sigmoid.default(g), g),
    "gate times a value": lambda g: aten.mul.Tensor(aten.sigmoid.default(g), aten.tanh.default(g)),
    "log-softmax": lambda g: aten.log_softmax.int(g, -1),
    "gate beside a value": lambda g: aten.cat.default(
        [aten.slice.Tensor(aten.sigmoid.default(g), 1, 0, 2), aten.slice.Tensor(g, 1, 2)], 1
    ),
}


@every_mode
@pytest.mark.parametrize("other", NO_GATES)
def test_what_is_no_gate_takes_half(other: str, mode: ModeName) -> None:
    done, r = run(lambda x, g: aten.mul.Tensor(x, NO_GATES[other](g)), mode, "x", "g")
    torch.testing.assert_close(done["x"], r / 2)
    torch.testing.assert_close(done["g"].sum(), r.sum() / 2)


RENORMALISED = {
    "p / p.sum()": lambda p: aten.div.Tensor(p, aten.sum.dim_IntList(p, [-1], True)),
    "p / (p.sum() + eps)": lambda p: aten.div.Tensor(p, aten.add.Scalar(aten.sum.dim_IntList(p, [-1], True), 1e-9)),
    "p * (1 / p.sum())": lambda p: aten.mul.Tensor(p, aten.reciprocal.default(aten.sum.dim_IntList(p, [-1], True))),
}


def top_two(g: Any) -> Any:
    """The first two of a softmax over four, as a router keeps its best."""
    return aten.slice.Tensor(aten.softmax.int(g, -1), 1, 0, 2)


@every_mode
@pytest.mark.parametrize("way", RENORMALISED)
def test_renormalised_top_weights_are_a_gate(way: str, mode: ModeName) -> None:
    def routed(x: Any, g: Any) -> Any:
        return aten.mul.Tensor(RENORMALISED[way](top_two(g)), aten.slice.Tensor(x, 1, 0, 2))

    done, r = run(routed, mode, "x", "g")
    assert torch.equal(done["x"][:, :2], r)
    assert "g" not in done.relevance


@every_mode
@pytest.mark.parametrize("way", RENORMALISED)
def test_renormalised_weights_as_the_output_keep_their_units(way: str, mode: ModeName) -> None:
    """With no signal beside it the weight itself is the signal; its sum is a statistic."""
    done, r = run(lambda g: RENORMALISED[way](top_two(g)), mode, "g")
    torch.testing.assert_close(done["g"][:, :2], r)
    assert not done.accounts


# cells: the gate gets nothing


@every_mode
def test_the_gates_of_an_lstm_cell_get_nothing(mode: ModeName) -> None:
    """h = sigmoid(o) * tanh(sigmoid(f) * c + sigmoid(i) * tanh(g)): all to c and g."""

    def cell(o: Any, f: Any, c: Any, i: Any, g: Any) -> Any:
        kept = aten.mul.Tensor(aten.sigmoid.default(f), c)
        new = aten.mul.Tensor(aten.sigmoid.default(i), aten.tanh.default(g))
        return aten.mul.Tensor(aten.sigmoid.default(o), aten.tanh.default(aten.add.Tensor(kept, new)))

    done, r = run(cell, mode, "o", "f", "c", "i", "g")
    assert sorted(done.relevance) == ["c", "g"]
    units = done["c"] + done["g"]
    torch.testing.assert_close(units, r, rtol=1e-5, atol=1e-5)


@every_mode
def test_the_gates_of_a_gru_cell_get_nothing(mode: ModeName) -> None:
    """h' = (1 - z) * tanh(n + r * m) + z * h."""

    def cell(z: Any, n: Any, r: Any, m: Any, h: Any) -> Any:
        gate = aten.sigmoid.default(z)
        inner = aten.tanh.default(aten.add.Tensor(n, aten.mul.Tensor(aten.sigmoid.default(r), m)))
        new = aten.mul.Tensor(aten.rsub.Scalar(gate, 1.0), inner)
        return aten.add.Tensor(new, aten.mul.Tensor(gate, h))

    done, _ = run(cell, mode, "z", "n", "r", "m", "h")
    assert sorted(done.relevance) == ["h", "m", "n"]


@every_mode
def test_squeeze_and_excitation_goes_to_the_signal(mode: ModeName) -> None:
    t = Tensors(2)

    def block(x: Any, w: Any) -> Any:
        gate = aten.sigmoid.default(aten.linear.default(aten.mean.dim(x, [2]), w))
        return aten.mul.Tensor(x, aten.unsqueeze.default(gate, -1))

    r = t.normal(2, 3, 5)
    done = bind(block, {"x": t(2, 3, 5), "w": t(3, 3)}, ["x"], mode).back(r)
    assert torch.equal(done["x"], r)


# statistics: reduced from the same source, and divided by

DIVISIONS = {
    "x * rsqrt(mean(x^2))": lambda x, s: aten.mul.Tensor(x, aten.rsqrt.default(mean(aten.square.default(s)))),
    "rsqrt(mean(x^2)) * x": lambda x, s: aten.mul.Tensor(aten.rsqrt.default(mean(aten.square.default(s))), x),
    "x * mean(x^2)^-0.5": lambda x, s: aten.mul.Tensor(x, aten.pow.Tensor_Scalar(mean(aten.square.default(s)), -0.5)),
    "x * (1 / rms)": lambda x, s: aten.mul.Tensor(x, aten.reciprocal.default(root_mean_square(s))),
    "x * (1 / sum|x|)": lambda x, s: aten.mul.Tensor(
        x, aten.reciprocal.default(aten.sum.dim_IntList(aten.abs.default(s), [-1], True))
    ),
}


@every_mode
@pytest.mark.parametrize("way", [*DIVISIONS, "x / rms"])
def test_a_statistic_of_the_same_source_gets_nothing(way: str, mode: ModeName) -> None:
    divided = {**DIVISIONS, "x / rms": lambda x, s: aten.div.Tensor(x, root_mean_square(s))}[way]
    done, r = run(lambda x: divided(x, x), mode, "x")
    torch.testing.assert_close(done["x"], r)
    assert not done.accounts


@every_mode
@pytest.mark.parametrize("way", DIVISIONS)
def test_another_source_is_no_statistic(way: str, mode: ModeName) -> None:
    """The same formula with statistics of y: x and y take half each."""
    done, r = run(lambda x, y: DIVISIONS[way](x, y), mode, "x", "y")
    torch.testing.assert_close(done["x"], r / 2)
    torch.testing.assert_close(done["y"].sum(), r.sum() / 2, rtol=1e-5, atol=1e-5)


@shares_by_size
def test_a_mean_that_multiplies_is_no_statistic(mode: ModeName) -> None:
    """x * mean(x) divides by nothing: half to x, half through the mean."""
    done, r = run(lambda x: aten.mul.Tensor(x, mean(x)), mode, "x")
    half = (r / 2).sum(-1, keepdim=True)
    x = Tensors(1).positive(2, 4)
    torch.testing.assert_close(done["x"], r / 2 + half * x / x.sum(-1, keepdim=True), rtol=1e-4, atol=1e-4)


@shares_by_size
def test_a_mean_that_is_subtracted_is_no_statistic_without_a_division(mode: ModeName) -> None:
    """x - mean(x): the mean is a term like any other."""
    done, r = run(lambda x: aten.sub.Tensor(x, mean(x)), mode, "x")
    assert not torch.allclose(done["x"], r)


def deviation(x: Any) -> Any:
    return aten.sqrt.default(mean(aten.square.default(aten.sub.Tensor(x, mean(x)))))


CENTRED = {
    "(x - mean) / std": lambda x, w: aten.div.Tensor(aten.sub.Tensor(x, mean(x)), deviation(x)),
    "(x - mean) * (1 / std)": lambda x, w: aten.mul.Tensor(
        aten.sub.Tensor(x, mean(x)), aten.reciprocal.default(deviation(x))
    ),
    "w * (x - mean) / std": lambda x, w: aten.div.Tensor(aten.mul.Tensor(w, aten.sub.Tensor(x, mean(x))), deviation(x)),
    "2 * (x - mean) / std": lambda x, w: aten.div.Tensor(
        aten.mul.Scalar(aten.sub.Tensor(x, mean(x)), 2.0), deviation(x)
    ),
    "cast(x - mean) / std": lambda x, w: aten.div.Tensor(
        aten._to_copy.default(aten.sub.Tensor(x, mean(x)), dtype=torch.float64), deviation(x)
    ),
    "view(x - mean) / std": lambda x, w: aten.div.Tensor(
        aten.view.default(aten.sub.Tensor(x, mean(x)), [2, 4]), deviation(x)
    ),
}


@every_mode
@pytest.mark.parametrize("way", CENTRED)
def test_the_mean_that_is_subtracted_before_a_division_is_a_statistic(way: str, mode: ModeName) -> None:
    t = Tensors(3)
    r = t.normal(2, 4)
    done = bind(lambda x, w: CENTRED[way](x, w), {"x": t(2, 4), "w": t(4)}, ["x"], mode).back(r)
    torch.testing.assert_close(done["x"], r)
    assert not done.accounts


@shares_by_size
def test_the_mean_of_another_source_is_a_term(mode: ModeName) -> None:
    """(x - mean(y)) / std(x): y's mean takes its share of the difference."""
    done, _ = run(lambda x, y: aten.div.Tensor(aten.sub.Tensor(x, mean(y)), deviation(x)), mode, "x", "y")
    assert bool(done["y"].any())


# regions: one elementwise function of one source

REGIONS = {
    "x * x": lambda x: aten.mul.Tensor(x, x),
    "x * sigmoid(x)": lambda x: aten.mul.Tensor(x, aten.sigmoid.default(x)),
    "x * tanh(softplus(x))": lambda x: aten.mul.Tensor(x, aten.tanh.default(aten.softplus.default(x))),
    "x * relu6(x + 3) / 6": lambda x: aten.div.Scalar(
        aten.mul.Tensor(x, aten.relu6.default(aten.add.Scalar(x, 3.0))), 6.0
    ),
    "x + x^3": lambda x: aten.add.Tensor(x, aten.pow.Tensor_Scalar(x, 3)),
    "x / (1 + exp(-x))": lambda x: aten.div.Tensor(x, aten.add.Scalar(aten.exp.default(aten.neg.default(x)), 1.0)),
    "x / (1 + |x|)": lambda x: aten.div.Tensor(x, aten.add.Scalar(aten.abs.default(x), 1.0)),
    "exp(x) - exp(-x)": lambda x: aten.sub.Tensor(aten.exp.default(x), aten.exp.default(aten.neg.default(x))),
}


@every_mode
@pytest.mark.parametrize("way", REGIONS)
def test_a_region_of_one_source_is_elementwise(way: str, mode: ModeName) -> None:
    done, r = run(REGIONS[way], mode, "x")
    assert torch.equal(done["x"], r)
    assert not done.accounts


@every_mode
def test_two_sources_are_no_region(mode: ModeName) -> None:
    done, _ = run(lambda x, y: aten.add.Tensor(x, aten.mul.Tensor(y, aten.tanh.default(x))), mode, "x", "y")
    assert bool(done["y"].any())


@every_mode
def test_another_shape_is_no_region(mode: ModeName) -> None:
    """x * x.T mixes places: half to each of them."""
    t = Tensors(1)
    r = t.normal(3, 3)
    done = bind(lambda x: aten.mul.Tensor(x, aten.t.default(x)), {"x": t(3, 3)}, ["x"], mode).back(r)
    torch.testing.assert_close(done["x"], (r + r.T) / 2)
