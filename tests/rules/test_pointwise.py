"""One-to-one ops pass relevance; products give halves, quotients all to the numerator."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dlb_core.rules import Elementwise

from .cases import CASES
from .harness import MODE_NAMES, MODES, ModeName, bind, bind_op, call_op, pack
from .tensors import Tensors, broadcast_pair, checked, tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
ONE_TO_ONE = [
    c for c in CASES if isinstance(pack().find(c.op), Elementwise) and "quotient" not in pack().find(c.op).tags
]


@every_mode
@pytest.mark.parametrize("case", [c for c in ONE_TO_ONE if c.active == ("self",)], ids=str)
def test_one_to_one_ops_pass_relevance(mode: ModeName, case: Any) -> None:
    t = Tensors(3)
    arguments = case.arguments(t)
    r = t.normal(*call_op(case.op, arguments).shape)
    done = case.bind(arguments, mode).back(r)
    assert torch.equal(done["self"], r.sum_to_size(arguments["self"].shape))
    assert not done.accounts


@st.composite
def pairs(draw: Any) -> tuple[Tensors, dict[str, Any]]:
    make = draw(tensors())
    a, b = draw(broadcast_pair())
    return make, {"self": make(*a), "other": make(*b)}


@every_mode
@checked
@given(drawn=pairs())
def test_a_product_of_two_active_operands_gives_halves(mode: ModeName, drawn: tuple[Tensors, dict[str, Any]]) -> None:
    t, arguments = drawn
    r = t.normal(*call_op(aten.mul.Tensor, arguments).shape)
    done = bind_op(aten.mul.Tensor, arguments, ["self", "other"], mode).back(r)
    for name, value in arguments.items():
        torch.testing.assert_close(done[name], (r / 2).sum_to_size(value.shape))


@every_mode
@checked
@given(drawn=pairs(), op=st.sampled_from([aten.mul.Tensor, aten.div.Tensor]), active=st.sampled_from(["self", "other"]))
def test_a_constant_factor_takes_nothing(mode: ModeName, drawn: tuple[Any, ...], op: Any, active: str) -> None:
    t, arguments = drawn
    r = t.normal(*call_op(op, arguments).shape)
    done = bind_op(op, arguments, [active], mode).back(r)
    torch.testing.assert_close(done[active], r.sum_to_size(arguments[active].shape))
    assert not done.accounts


@every_mode
@checked
@given(drawn=pairs(), op=st.sampled_from([aten.div.Tensor, aten.pow.Tensor_Tensor]))
def test_the_numerator_and_the_base_take_all(mode: ModeName, drawn: tuple[Any, ...], op: Any) -> None:
    t, arguments = drawn
    if op is aten.pow.Tensor_Tensor:
        arguments = {"self": arguments["self"].abs() + 0.5, "exponent": arguments["other"]}
    r = t.normal(*call_op(op, arguments).shape)
    done = bind_op(op, arguments, list(arguments), mode).back(r)
    assert list(done.relevance) == ["self"]
    torch.testing.assert_close(done["self"], r.sum_to_size(arguments["self"].shape))


@every_mode
@pytest.mark.parametrize("gate", [aten.sigmoid.default, aten.hardsigmoid.default], ids=["sigmoid", "hardsigmoid"])
@pytest.mark.parametrize("first", [True, False])
def test_a_gate_takes_nothing_beside_a_signal(mode: ModeName, gate: Any, first: bool) -> None:
    t = Tensors(4)

    def gated(x: Any, g: Any) -> Any:
        return aten.mul.Tensor(gate(g), x) if first else aten.mul.Tensor(x, gate(g))

    r = t.normal(2, 3)
    done = bind(gated, {"x": t(2, 3), "g": t(3)}, ["x", "g"], mode).back(r)
    assert torch.equal(done["x"], r)
    assert "g" not in done.relevance


@every_mode
def test_two_gates_take_halves(mode: ModeName) -> None:
    t = Tensors(4)
    r = t.normal(2, 3)
    done = bind(
        lambda a, b: aten.mul.Tensor(aten.sigmoid.default(a), aten.sigmoid.default(b)),
        {"a": t(2, 3), "b": t(3)},
        ["a", "b"],
        mode,
    ).back(r)
    torch.testing.assert_close(done["a"], r / 2)
    torch.testing.assert_close(done["b"], (r / 2).sum(0))
