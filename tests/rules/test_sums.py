"""Sums with signs, factors and broadcasting, against shares written out element by element."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from . import oracle
from .compare import assert_booked, assert_same, kept
from .harness import (
    ALL_MODE_NAMES,
    ALL_MODES,
    MODE_NAMES,
    MODES,
    ModeName,
    assert_conserved,
    bind,
    bind_op,
    call_op,
    pack,
)
from .tensors import Tensors, both_dtypes, broadcast_pair, checked, tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", ALL_MODES, ids=ALL_MODE_NAMES)
first_modes = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)  # what is booked is proved with the places in all
OPS = {aten.add.Tensor: 1.0, aten.sub.Tensor: -1.0}


@st.composite
def sums(draw: Any, t: st.SearchStrategy[Tensors]) -> tuple[Tensors, Any, dict[str, Any], list[str]]:
    make, op = draw(t), draw(st.sampled_from(list(OPS)))
    a, b = draw(broadcast_pair())
    alpha = draw(st.sampled_from([1, -1, 2.5]))
    active = draw(st.sampled_from([["self", "other"], ["self"], ["other"]]))
    return make, op, {"self": make(*a), "other": make(*b), "alpha": alpha}, active


@every_mode
@checked
@given(drawn=sums(tensors()))
def test_terms_share(mode: ModeName, drawn: tuple[Any, ...]) -> None:
    t, op, arguments, active = drawn
    shape = call_op(op, arguments).shape
    r = t.normal(*shape)
    factors = {"self": 1.0, "other": OPS[op] * arguments["alpha"]}
    terms = {name: (arguments[name] * factor).expand(shape) for name, factor in factors.items()}
    counted = [mode[1] == "absorb" or name in active for name in terms]
    fixed = [name for name in terms if name not in active]
    if any(arguments[name].dim() == 0 for name in fixed):
        counted = [name in active for name in terms]  # a number beside a tensor: one elementwise function
    shares, stabiliser = oracle.addends(list(terms.values()), counted, r, mode)
    done = bind_op(op, arguments, active, mode).back(r)
    scale = float(r.abs().sum() + sum(s.abs().sum() for s in shares))
    for name, share in zip(terms, shares, strict=True):
        if name in active:
            assert_same(done[name], share.sum_to_size(arguments[name].shape), of=share)
        else:
            assert_booked(done.booked(f"constant:{name}"), float(share.sum()), scale=scale)
    assert_booked(kept(done), stabiliser, scale=scale)


@first_modes
@checked
@given(drawn=sums(both_dtypes()))
def test_sums_conserve(mode: ModeName, drawn: tuple[Any, ...]) -> None:
    t, op, arguments, active = drawn
    r = t.normal(*call_op(op, arguments).shape)
    assert_conserved(bind_op(op, arguments, active, mode).back(r))


@every_mode
@pytest.mark.parametrize("op", [aten.add.Scalar, aten.sub.Scalar, aten.rsub.Scalar])
def test_a_number_takes_nothing(mode: ModeName, op: Any) -> None:
    t = Tensors(1)
    r = t.normal(2, 3)
    done = bind_op(op, {"self": t(2, 3), "other": 3.0}, ["self"], mode).back(r)
    assert torch.equal(done["self"], r)
    assert not done.accounts


@every_mode
@pytest.mark.parametrize("addend", [torch.tensor([True, False, True]), torch.tensor([1, 0, -2])], ids=["bool", "int"])
def test_constants_of_other_dtypes(mode: ModeName, addend: torch.Tensor) -> None:
    """A mask or a count that is added is a constant like any other."""
    t = Tensors(1)
    x, r = t(3), t.normal(3)
    counted = [True, mode[1] == "absorb"]
    shares, stabiliser = oracle.addends([x, addend.double()], counted, r, mode)
    done = bind_op(aten.add.Tensor, {"self": x, "other": addend}, ["self"], mode).back(r)
    assert_same(done["self"], shares[0], of=shares[0])
    assert_booked(done.booked("constant:other"), float(shares[1].sum()), scale=float(r.abs().sum()))
    assert_booked(kept(done), stabiliser, scale=float(r.abs().sum()))


@pytest.mark.parametrize("mode", pack().modes)
def test_a_mask_of_minus_infinity_closes_places_and_takes_nothing_elsewhere(mode: str) -> None:
    """Scores + mask, as it is written: a closed place has no relevance, an open one all of its own."""
    example = getattr(pack().modes[mode], "example", {})
    mask = torch.tensor([0.0, -torch.inf, torch.finfo(torch.float64).min, 0.0], dtype=torch.float64)
    x, r = Tensors(1)(4), torch.tensor([2.0, 0.0, 0.0, -3.0], dtype=torch.float64)
    done = bind_op(aten.add.Tensor, {"self": x, "other": mask}, ["self"], (mode, None), **example).back(r)
    torch.testing.assert_close(done["self"], r, rtol=1e-4, atol=0)
    assert_conserved(done)


@every_mode
def test_a_value_added_to_itself_takes_all(mode: ModeName) -> None:
    t = Tensors(1)
    r = t.normal(3)
    done = bind(lambda x: aten.add.Tensor(x, x), {"x": t(3)}, ["x"], mode).back(r)
    assert torch.equal(done["x"], r)


def test_four_equal_contributions_share_equally() -> None:
    """0.1 + 0.1 + 0.1 + 0.1 gets 25 each of 100, in whatever order they are added."""
    x = {name: torch.tensor([0.1], dtype=torch.float64) for name in "abcd"}

    def balanced(a: Any, b: Any, c: Any, d: Any) -> Any:
        return aten.add.Tensor(aten.add.Tensor(a, b), aten.add.Tensor(c, d))

    def chained(a: Any, b: Any, c: Any, d: Any) -> Any:
        return aten.add.Tensor(aten.add.Tensor(aten.add.Tensor(a, b), c), d)

    for function in (balanced, chained):
        done = bind(function, x, list(x)).back(torch.tensor([100.0], dtype=torch.float64))
        assert [float(done[name]) for name in x] == pytest.approx([25.0] * 4)
