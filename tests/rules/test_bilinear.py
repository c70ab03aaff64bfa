"""Matrix products of two active operands, and layers whose weights are made by the model, half and half."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from . import oracle
from .compare import assert_booked, assert_same
from .harness import ALL_MODE_NAMES, ALL_MODES, MODE_NAMES, MODES, ModeName, assert_conserved, bind_op, call_op
from .tensors import Tensors, both_dtypes, checked, shapes, tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", ALL_MODES, ids=ALL_MODE_NAMES)
first_modes = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


@st.composite
def products(draw: Any, t: st.SearchStrategy[Tensors]) -> tuple[Tensors, Any, dict[str, Any], str, str]:
    """An op with two matrices, with vectors and broadcast batches where matmul takes them."""
    make = draw(t)
    n, k, m = (draw(st.integers(0, 3)) for _ in range(3))
    kind = draw(st.sampled_from(["mm", "bmm", "matmul"]))
    if kind == "mm":
        return make, aten.mm.default, {"self": make(n, k), "mat2": make(k, m)}, "self", "mat2"
    if kind == "bmm":
        b = draw(st.integers(0, 2))
        return make, aten.bmm.default, {"self": make(b, n, k), "mat2": make(b, k, m)}, "self", "mat2"
    full = draw(shapes(0, 2, sizes=(1, 3)))
    one = [1 if draw(st.booleans()) else size for size in full]
    a = draw(st.sampled_from([(k,), (n, k), (*full, n, k)]))
    b = draw(st.sampled_from([(k,), (k, m), (*one[draw(st.integers(0, len(one))) :], k, m)]))
    return make, aten.matmul.default, {"self": make(*a), "other": make(*b)}, "self", "other"


def side(op: Any, arguments: dict[str, Any], x: str, r: torch.Tensor, mode: ModeName) -> oracle.Shared:
    """The dense formula for one operand with the other as weight."""
    w = oracle.matrix(lambda value: call_op(op, {**arguments, x: value}), arguments[x].shape)
    return oracle.linear(w, arguments[x].flatten(), torch.zeros(r.numel()).double(), r.flatten(), mode)


@every_mode
@checked
@given(drawn=products(tensors()))
def test_two_active_operands_take_half_each(mode: ModeName, drawn: tuple[Any, ...]) -> None:
    t, op, arguments, a, b = drawn
    r = t.normal(*call_op(op, arguments).shape)
    done = bind_op(op, arguments, [a, b], mode).back(r)
    halves = {name: side(op, arguments, name, r / 2, mode) for name in (a, b)}
    for name, half in halves.items():
        assert_same(done[name], half.x.reshape(arguments[name].shape), of=r)
    scale = float(r.abs().sum() + sum(half.x.abs().sum() for half in halves.values()))
    for account in ("unreached", "stabiliser"):
        expected = sum(half.accounts[account] for half in halves.values())
        assert_booked(done.booked(account), expected, scale=scale)


@every_mode
@checked
@given(drawn=products(tensors()), first=st.booleans())
def test_one_active_operand_is_linear_in_it(mode: ModeName, drawn: tuple[Any, ...], first: bool) -> None:
    t, op, arguments, a, b = drawn
    x = a if first else b
    r = t.normal(*call_op(op, arguments).shape)
    done = bind_op(op, arguments, [x], mode).back(r)
    expected = side(op, arguments, x, r, mode)
    assert_same(done[x], expected.x.reshape(arguments[x].shape), of=r)
    scale = float(r.abs().sum() + expected.x.abs().sum())
    for account, units in expected.accounts.items():
        assert_booked(done.booked(account), units, scale=scale)


@first_modes
@checked
@given(drawn=products(both_dtypes()))
def test_products_conserve(mode: ModeName, drawn: tuple[Any, ...]) -> None:
    t, op, arguments, a, b = drawn
    r = t.normal(*call_op(op, arguments).shape)
    assert_conserved(bind_op(op, arguments, [a, b], mode).back(r))


def generated(t: Tensors, kind: str, *, bias: bool) -> tuple[Any, dict[str, Any]]:
    """A layer and arguments of which all tensors can be explained."""
    if kind == "linear":
        return aten.linear.default, {"input": t(2, 3, 4), "weight": t(5, 4), "bias": t(5) if bias else None}
    window = {"stride": [2, 1], "padding": [1, 0], "groups": 2}
    return aten.conv2d.default, {
        "input": t(2, 4, 4, 3),
        "weight": t(4, 2, 3, 2),
        "bias": t(4) if bias else None,
        **window,
    }


@every_mode
@pytest.mark.parametrize("kind", ["linear", "conv2d"])
@pytest.mark.parametrize("active", ["input weight", "input weight bias", "weight", "input bias", "weight bias"])
@pytest.mark.parametrize("bias", [True, False])
def test_layers_with_made_weights(mode: ModeName, kind: str, active: str, bias: bool) -> None:
    """Halves for input and weight; the bias is an addend: of each half, or explained itself."""
    if "bias" in active and not bias:
        active = active.replace(" bias", "")
    t = Tensors(5)
    op, arguments = generated(t, kind, bias=bias)
    names = active.split()
    r = t.normal(*call_op(op, arguments).shape)
    done = bind_op(op, arguments, names, mode).back(r)
    zero = torch.zeros_like(arguments["input"])
    addend = call_op(op, {**arguments, "input": zero})
    maps = [name for name in names if name != "bias"]
    expected_bias, booked, scale = torch.zeros_like(addend), {"unreached": 0.0, "stabiliser": 0.0}, float(r.abs().sum())
    for name in maps:
        w = oracle.matrix(lambda v, name=name: call_op(op, {**arguments, name: v, "bias": None}), arguments[name].shape)
        part = oracle.linear(
            w,
            arguments[name].flatten(),
            addend.flatten(),
            r.flatten() / len(maps),
            mode,
            addend_receives="bias" in names,
        )
        assert_same(done[name], part.x.reshape(arguments[name].shape), of=r)
        expected_bias += part.addend.reshape(addend.shape)
        booked = {account: booked[account] + part.accounts[account] for account in booked}
    if "bias" in names:
        dims = [d for d in range(r.dim()) if d != (1 if kind == "conv2d" else r.dim() - 1)]
        assert_same(done["bias"], expected_bias.sum(dims), of=r)
    else:
        booked["bias:bias"] = float(expected_bias.sum())
    for account, units in booked.items():
        assert_booked(done.booked(account), units, scale=scale)


@first_modes
def test_a_zero_operand_still_takes_its_half_by_the_other(mode: ModeName) -> None:
    """With a = 0 the output is 0: default shares a's half by |b|, epsilon leaves it to the stabiliser."""
    b = torch.tensor([[1.0], [3.0]], dtype=torch.float64)
    done = bind_op(aten.mm.default, {"self": torch.zeros_like(b.mT), "mat2": b}, ["self", "mat2"], mode).back(
        torch.tensor([[8.0]], dtype=torch.float64)
    )
    if mode[0] == "default":
        torch.testing.assert_close(done["self"], torch.tensor([[1.0, 3.0]], dtype=torch.float64))
        assert done.booked("unreached") + float(done["mat2"].sum()) == pytest.approx(4.0)
    else:
        assert done.booked("stabiliser") == pytest.approx(8.0)
