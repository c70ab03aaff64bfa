"""BatchNorm folded into the layer before or after it: the same function, and closed books."""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from folding import AFTER, BEFORE, flat, folded, pair
from torch import Tensor

from dlb_core import DLBacktrace


class Traced(NamedTuple):
    """A case, folded and not."""

    model: Any
    x: Tensor
    target: Tensor
    on: DLBacktrace
    off: DLBacktrace


@cache  # tracing is what costs here
def traced(name: str, side: str) -> Traced:
    model, x = pair(name, side)
    on, off = (DLBacktrace(model, x, fold=fold) for fold in (True, False))
    return Traced(model, x, torch.randn(model(x).shape, dtype=torch.float64), on, off)


SIDES = [(case, "before") for case in BEFORE] + [(case, "after") for case in AFTER]

every_case = pytest.mark.parametrize(("name", "side"), SIDES, ids=[f"{side}: {case}" for case, side in SIDES])


@every_case
def test_the_function_stays_and_the_books_close(name: str, side: str) -> None:
    model, x, target, on, off = traced(name, side)
    ((_, marked),) = folded(on)
    assert marked == "batch_norm"
    assert folded(off) == [("left", "batch_norm")]
    for mode in on.modes:
        bounds = {"low": -1.0, "high": 1.0} if mode == "z-box" else {}
        for dlb in (on, off):
            done = dlb.explain(x, mode=mode, target=target, **bounds)
            torch.testing.assert_close(done.output, model(x), rtol=1e-10, atol=1e-10)
            assert done.ledger.check() == []


@every_case
def test_recorded_and_in_single_precision(name: str, side: str) -> None:
    model, x = pair(name, side, torch.float32)
    dlb = DLBacktrace(model, x, tracer="tape")
    ((_, marked),) = folded(dlb)
    assert marked == "batch_norm"
    done = dlb.explain(x, target=torch.ones_like(model(x)))
    torch.testing.assert_close(done.output, model(x), rtol=1e-5, atol=1e-5)
    assert done.ledger.check() == []


@every_case
def test_epsilon_does_not_tell_whether_it_was_folded(name: str, side: str) -> None:
    """z / y of a layer and its norm is that of the folded layer; what biases took stays together."""
    _, x, target, *both = traced(name, side)
    on, off = (dlb.explain(x, mode="epsilon", eps=1e-12, target=target) for dlb in both)
    largest = float(off.inputs["x"].abs().max())
    torch.testing.assert_close(on.inputs["x"], off.inputs["x"], rtol=0, atol=1e-6 * largest)
    kept = [math.fsum(v for n, v in e.ledger.accounts.items() if n.startswith("bias:")) for e in (on, off)]
    assert kept[0] == pytest.approx(kept[1], rel=1e-6, abs=1e-6 * largest)
    owner = "second" if side == "before" else "first"
    assert {n.split(".")[0] for n in on.ledger.accounts if n.startswith("bias:")} == {f"bias:{owner}"}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("mode", ["default", "contrastive"])
def test_magnitudes_do_not_tell_either_where_the_layer_comes_first(name: str, mode: str) -> None:
    """Shares of |z|, and signs of what agrees, are those of the layer alone, scaled."""
    _, x, target, *both = traced(name, "before")
    on, off = (dlb.explain(x, mode=mode, target=target).inputs["x"] for dlb in both)
    torch.testing.assert_close(on, off, rtol=1e-8, atol=1e-9 * float(off.abs().max()))


@every_case
def test_default_shares_by_the_folded_weights(name: str, side: str) -> None:
    """By |x| |dy/dx| of what the two compute together, which is one linear map; places and all."""
    model, x, _, on, _ = traced(name, side)
    values = torch.tanh(x)

    def both(v: Tensor) -> Tensor:
        return flat(model.second(model.first(v)))

    weights = torch.autograd.functional.jacobian(both, values).reshape(both(values).numel(), -1).abs()
    contributions = weights * values.reshape(-1).abs()
    target = torch.rand(model(x).shape, dtype=torch.float64) + 0.5
    done = on.explain(x, target=target, multiplier=1.0)
    shares = (contributions / contributions.sum(1, keepdim=True)).nan_to_num(0)  # no tap reaches an output padding
    torch.testing.assert_close(done.inputs["x"].reshape(-1), target.reshape(-1) @ shares, rtol=1e-8, atol=1e-10)
