"""Ops that carry no relevance end activity: what comes out of them is a constant."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlb_core.kernel.facts import facts
from dlb_core.rules import Constant

from . import oracle
from .cases import constants
from .compare import assert_booked, assert_same
from .harness import MODE_NAMES, MODES, ModeName, bind, pack

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
X = torch.tensor([1.5, -2.5, 0.5], dtype=torch.float64)
R = torch.tensor([1.0, -2.0, 4.0], dtype=torch.float64)
NUMBERS = [*constants.NUMBERS, *constants.SIZES]
OTHERS = {*constants.SEVERAL, "aten::eye", "aten::one_hot", "aten::fft_rfftfreq"}
TENSORS = [n for n in constants.CALLS if n not in NUMBERS and "empty" not in n and n not in OTHERS]  # known values, [3]


@pytest.mark.parametrize("op", constants.CALLS)
def test_a_constant_ends_activity(op: str) -> None:
    bound = bind(constants.CALLS[op], {"x": X}, ["x"])
    row = pack().find(bound.end.target)
    assert isinstance(row, Constant)
    assert row.op == op
    assert not facts(bound.end).active


@every_mode
@pytest.mark.parametrize("op", [*TENSORS, *NUMBERS])
def test_a_constant_factor_takes_nothing(op: str, mode: ModeName) -> None:
    times = aten.mul.Scalar if op in NUMBERS else aten.mul.Tensor
    done = bind(lambda x: times(x, constants.CALLS[op](x)), {"x": X}, ["x"], mode).back(R)
    assert torch.equal(done["x"], R)
    assert not done.accounts


@every_mode
@pytest.mark.parametrize("op", TENSORS)
def test_a_constant_addend_is_booked_under_its_node(op: str, mode: ModeName) -> None:
    """By the bias policy; one without dimensions is a number and takes nothing."""
    value = bind(constants.CALLS[op], {"x": X}, ["x"]).output
    bound = bind(lambda x: aten.add.Tensor(x, constants.CALLS[op](x)), {"x": X}, ["x"], mode)
    counted = [True, mode[1] == "absorb" and value.dim() > 0]
    (mine, theirs), stabiliser = oracle.addends([X, value.double().expand(3)], counted, R, mode)
    done = bound.back(R)
    addend: Any = bound.end.args[1]
    assert_same(done["x"], mine, of=R)
    for account, units in {f"constant:{addend.name}": float(theirs.sum()), "stabiliser": stabiliser}.items():
        assert_booked(done.booked(account), units, scale=float(R.abs().sum()))


@pytest.mark.parametrize("rounding", ["floor", "trunc"])
def test_a_rounded_quotient_is_a_step(rounding: str) -> None:
    for op in (aten.div.Tensor_mode, aten.divide.Tensor_mode):
        bound = bind(lambda x, op=op: op(x, x, rounding_mode=rounding), {"x": X}, ["x"])
        assert not facts(bound.end).active
