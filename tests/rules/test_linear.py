"""Dense layers, convolutions, pooling by averages and reductions against the dense matrix of contributions."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlb_core.rules import Choice, Linear

from . import oracle
from .case import Case
from .cases import CASES, complex_numbers
from .compare import assert_booked, assert_same
from .harness import ALL_MODE_NAMES, ALL_MODES, MODE_NAMES, MODES, ModeName, assert_conserved, bind_op, call_op, pack
from .tensors import Tensors, both_dtypes, checked, dim_of, shapes, tensors

aten = torch.ops.aten


def _is_fixed(case: Case) -> bool:
    """One map of one operand, with weights of its own."""
    if case.program is not None or not isinstance(pack().find(case.op), (Linear, Choice)):
        return False
    row = case.bind(case.arguments(Tensors(1))).plan.steps[0].declared
    return isinstance(row, Linear) and row.weight is None and row.bias is None


COMPLEX = complex_numbers.CASES  # maps between pairs of numbers have tests of their own
FIXED = [case for case in CASES if _is_fixed(case) and case not in COMPLEX]
every_mode = pytest.mark.parametrize("mode", ALL_MODES, ids=ALL_MODE_NAMES)
first_modes = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)  # what is booked is proved with the places in all


def prove(op: Any, arguments: dict[str, Any], t: Tensors, mode: ModeName, x: str = "self", bias: str = "") -> None:
    """The op's rule gives x, the bias and every account what the dense matrix says; values in float64."""

    def apply(value: torch.Tensor, *, with_bias: bool) -> torch.Tensor:
        changed = {**arguments, x: value}
        return call_op(op, changed if with_bias or not bias else {**changed, bias: None})

    size = tuple(arguments[x].shape)
    w = oracle.matrix(lambda value: apply(value, with_bias=False), size)
    addend = apply(torch.zeros(size, dtype=torch.float64), with_bias=True).flatten()
    output = call_op(op, arguments)
    r = t.normal(*output.shape)
    bound = bind_op(op, arguments, [x], mode)
    fixed = bound.row.weight is None and bound.row.weights is None
    halves = mode[0] not in ("alpha-beta", "z-plus") or not bound.row.magnitudes_only
    known = mode if halves else ("default", mode[1])  # where weights have no halves to take, by magnitude
    expected = oracle.linear(w, arguments[x].flatten(), addend, r.flatten(), known, fixed=fixed)
    done = bound.back(r)
    assert_same(done[x], expected.x.reshape(size), of=r)
    scale = float(r.abs().sum() + expected.x.abs().sum())
    for account, units in {**expected.accounts, f"bias:{bias}": float(expected.addend.sum())}.items():
        assert_booked(done.booked(account), units, scale=scale)
    assert set(done.accounts) <= {*expected.accounts, f"bias:{bias}"}


@st.composite
def dense_arguments(draw: Any, t: st.SearchStrategy[Tensors]) -> tuple[Tensors, dict[str, Any]]:
    make = draw(t)
    batch, features, units = draw(shapes(0, 2, sizes=(0, 3))), draw(st.integers(0, 5)), draw(st.integers(0, 4))
    bias = make(units) if draw(st.booleans()) else None
    return make, {"input": make(*batch, features), "weight": make(units, features), "bias": bias}


@every_mode
@checked
@given(drawn=dense_arguments(tensors()))
def test_dense_layer(mode: ModeName, drawn: tuple[Tensors, dict[str, Any]]) -> None:
    t, arguments = drawn
    prove(aten.linear.default, arguments, t, mode, "input", "bias")


@first_modes
@checked
@given(drawn=dense_arguments(both_dtypes()))
def test_dense_layer_conserves(mode: ModeName, drawn: tuple[Tensors, dict[str, Any]]) -> None:
    t, arguments = drawn
    r = t.normal(*arguments["input"].shape[:-1], arguments["weight"].shape[0])
    assert_conserved(bind_op(aten.linear.default, arguments, ["input"], mode).back(r))


@every_mode
def test_dense_layer_of_one_unit_with_a_flat_weight(mode: ModeName) -> None:
    t = Tensors(1)
    prove(aten.linear.default, {"input": t(3, 4), "weight": t(4)}, t, mode, "input")


@st.composite
def convolution_arguments(draw: Any, dims: int, t: st.SearchStrategy[Tensors]) -> tuple[Tensors, dict[str, Any]]:
    make = draw(t)
    number = {1: 6, 2: 4, 3: 3}[dims]
    kernel = [draw(st.integers(1, 3 if dims < 3 else 2)) for _ in range(dims)]
    dilation = [draw(st.integers(1, 2)) for _ in range(dims)]
    padding = [draw(st.integers(0, 2)) for _ in range(dims)]
    stride = [draw(st.integers(1, 3))] * draw(st.sampled_from([1, dims]))  # one number means the same for all
    spans = [d * (k - 1) + 1 - 2 * p for d, k, p in zip(dilation, kernel, padding, strict=True)]
    size = [max(1, span) + draw(st.integers(0, number - 2)) for span in spans]
    groups, into, out = draw(st.integers(1, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    batch = draw(st.sampled_from([(), (0,), (1,), (2,)]))
    window = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    bias = make(out * groups) if draw(st.booleans()) else None
    weight = make(out * groups, into, *kernel)
    return make, {"input": make(*batch, into * groups, *size), "weight": weight, "bias": bias, **window}


CONVOLUTIONS = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}


@every_mode
@pytest.mark.parametrize("dims", CONVOLUTIONS)
@checked
@given(data=st.data())
def test_convolution(mode: ModeName, dims: int, data: st.DataObject) -> None:
    t, arguments = data.draw(convolution_arguments(dims, tensors()))
    prove(CONVOLUTIONS[dims], arguments, t, mode, "input", "bias")


@first_modes
@pytest.mark.parametrize("dims", CONVOLUTIONS)
@checked
@given(data=st.data())
def test_convolution_conserves(mode: ModeName, dims: int, data: st.DataObject) -> None:
    t, arguments = data.draw(convolution_arguments(dims, both_dtypes()))
    r = t.normal(*call_op(CONVOLUTIONS[dims], arguments).shape)
    assert_conserved(bind_op(CONVOLUTIONS[dims], arguments, ["input"], mode).back(r))


@every_mode
@checked
@given(t=tensors(), data=st.data())
def test_sum_over_dimensions(mode: ModeName, t: Tensors, data: st.DataObject) -> None:
    shape = data.draw(shapes(1, 4, sizes=(0, 3)))
    dims = list({d % len(shape): d for d in data.draw(st.lists(dim_of(shape), min_size=0))}.values())
    arguments = {"self": t(*shape), "dim": dims, "keepdim": data.draw(st.booleans())}
    prove(aten.sum.dim_IntList, arguments, t, mode)


@every_mode
@checked
@given(t=tensors(), data=st.data())
def test_mean_over_dimensions(mode: ModeName, t: Tensors, data: st.DataObject) -> None:
    shape = data.draw(shapes(1, 4, sizes=(1, 3)))
    dims = list({d % len(shape): d for d in data.draw(st.lists(dim_of(shape), min_size=1))}.values())
    arguments = {"self": t(*shape), "dim": dims, "keepdim": data.draw(st.booleans())}
    prove(aten.mean.dim, arguments, t, mode)


@every_mode
@checked
@given(t=tensors(), shape=shapes(0, 3))
def test_sum_and_mean_of_all(mode: ModeName, t: Tensors, shape: tuple[int, ...]) -> None:
    prove(aten.sum.default, {"self": t(*shape)}, t, mode)
    prove(aten.mean.default, {"self": t(*shape)}, t, mode)


@every_mode
@checked
@given(t=tensors(), data=st.data())
def test_average_pooling(mode: ModeName, t: Tensors, data: st.DataObject) -> None:
    two = st.lists(st.integers(1, 3), min_size=1, max_size=2)
    kernel = data.draw(two)
    window = {"kernel_size": kernel, "stride": data.draw(two | st.just([])), "padding": [k // 2 for k in kernel]}
    switches = {"ceil_mode": data.draw(st.booleans()), "count_include_pad": data.draw(st.booleans())}
    divisor = {"divisor_override": data.draw(st.sampled_from([None, 3]))}
    shape = data.draw(st.sampled_from([(2, 1), (2,)])) + data.draw(st.tuples(st.integers(3, 5), st.integers(3, 5)))
    prove(aten.avg_pool2d.default, {"self": t(*shape), **window, **switches, **divisor}, t, mode)


@every_mode
@checked
@given(t=tensors(), size=st.tuples(*[st.integers(1, 5)] * 2), out=st.tuples(*[st.integers(1, 6)] * 2))
def test_adaptive_average_pooling(mode: ModeName, t: Tensors, size: tuple[int, int], out: tuple[int, int]) -> None:
    prove(aten.adaptive_avg_pool2d.default, {"self": t(2, *size), "output_size": list(out)}, t, mode)


@every_mode
@pytest.mark.parametrize("case", FIXED, ids=str)
def test_every_map_without_a_bias(mode: ModeName, case: Case) -> None:
    """Pools, interpolations, samplings, transforms: what they make of unit vectors says all about them."""
    t = Tensors(1)
    prove(case.op, case.arguments(t), t, mode, *case.active)


@pytest.mark.parametrize("sign", [1.0, -1.0])
def test_the_stabiliser_takes_what_eps_says(sign: float) -> None:
    """y = 3, eps = 1: a quarter goes to the stabiliser, whatever the sign of y."""
    arguments = {"input": torch.tensor([[sign, 2 * sign]]).double(), "weight": torch.ones(1, 2).double()}
    r = torch.tensor([[100.0]]).double()
    done = bind_op(aten.linear.default, arguments, ["input"], ("epsilon", "absorb"), eps=1.0).back(r)
    assert done["input"].tolist() == [pytest.approx([25.0, 50.0])]
    assert done.booked("stabiliser") == pytest.approx(25.0)


def test_the_floor_under_magnitudes_is_tau() -> None:
    """|x| + tau with x = 0 and 2, tau = 1: shares of 1 and 3."""
    arguments = {"input": torch.tensor([[0.0, -2.0]]).double(), "weight": torch.ones(1, 2).double()}
    r = torch.tensor([[100.0]]).double()
    done = bind_op(aten.linear.default, arguments, ["input"], MODES[0], tau=1.0).back(r)
    assert done["input"].tolist() == [pytest.approx([25.0, 75.0])]


def test_one_weight_of_another_op_is_not_enough() -> None:
    """The comparison sees a rule that is wrong by one weight: it can fail."""
    t = Tensors(2)
    arguments = {"input": t(2, 3), "weight": t(2, 3)}
    w = oracle.matrix(lambda x: call_op(aten.linear.default, {**arguments, "input": x}), (2, 3))
    w[0, 0] *= 1.01
    r = t.normal(2, 2)
    expected = oracle.linear(w, arguments["input"].flatten(), torch.zeros(4).double(), r.flatten(), MODES[0])
    done = bind_op(aten.linear.default, arguments, ["input"]).back(r)
    with pytest.raises(AssertionError):
        assert_same(done["input"], expected.x.reshape(2, 3), of=r)
