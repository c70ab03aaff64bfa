"""Attention is linear in the values with the weights of this call; queries, keys and masks take nothing."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from . import oracle
from .compare import assert_booked, assert_same
from .harness import ALL_MODE_NAMES, ALL_MODES, MODE_NAMES, MODES, ModeName, assert_conserved, bind_op, call_op
from .tensors import Tensors, both_dtypes, checked, tensors

aten = torch.ops.aten
SDPA = aten.scaled_dot_product_attention.default
every_mode = pytest.mark.parametrize("mode", ALL_MODES, ids=ALL_MODE_NAMES)
first_modes = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


@st.composite
def attentions(draw: Any, t: st.SearchStrategy[Tensors]) -> tuple[Tensors, dict[str, Any]]:
    make = draw(t)
    batch, kv_heads, group = draw(st.integers(0, 2)), draw(st.integers(1, 2)), draw(st.integers(1, 2))
    queries, keys, dim, out = (draw(st.integers(1, 4)) for _ in range(4))
    arguments: dict[str, Any] = {
        "query": make(batch, kv_heads * group, queries, dim),
        "key": make(batch, kv_heads, keys, dim),
        "value": make(batch, kv_heads, keys, out),
    }
    mask = draw(st.sampled_from(["none", "bool", "additive", "causal"]))
    if mask == "bool":
        arguments["attn_mask"] = make.mask(queries, keys)
    elif mask == "additive":
        arguments["attn_mask"] = make.normal(batch, 1, queries, keys).masked_fill(
            make.mask(batch, 1, queries, keys), float("-inf")
        )
        arguments["attn_mask"][..., 0] = 0.5
    arguments["is_causal"] = mask == "causal"
    arguments["scale"] = draw(st.sampled_from([None, 0.7]))
    arguments["enable_gqa"] = group > 1
    return make, arguments


def weights_of(arguments: dict[str, Any]) -> Tensor:
    """softmax(q k^T * scale + mask), entry by entry."""
    q, k, mask = arguments["query"], arguments["key"], arguments.get("attn_mask")
    full = None if mask is None else mask.expand(*q.shape[:3], k.shape[2])

    def allowed(b: int, h: int, i: int, j: int) -> bool:
        if arguments["is_causal"]:
            return j <= i
        if full is None:
            return True
        return bool(full[b, h, i, j]) if full.dtype == torch.bool else bool(full[b, h, i, j] > float("-inf"))

    addend = full if full is not None and full.dtype != torch.bool else None
    scale = arguments["scale"] if arguments["scale"] is not None else q.shape[-1] ** -0.5
    return oracle.attention_weights(q, k, scale, allowed, addend)


@every_mode
@checked
@given(drawn=attentions(tensors()))
def test_values_share_by_the_weights(mode: ModeName, drawn: tuple[Tensors, dict[str, Any]]) -> None:
    t, arguments = drawn
    v, weights = arguments["value"], weights_of(arguments)
    group = weights.shape[1] // v.shape[1]

    def attend(value: Tensor) -> Tensor:
        return weights @ value.repeat_interleave(group, 1)

    torch.testing.assert_close(call_op(SDPA, arguments), attend(v))
    r = t.normal(*weights.shape[:3], v.shape[-1])
    w = oracle.matrix(attend, v.shape)
    expected = oracle.linear(w, v.flatten(), torch.zeros(r.numel()).double(), r.flatten(), mode, fixed=True)
    done = bind_op(SDPA, arguments, ["query", "key", "value"], mode).back(r)
    assert list(done.relevance) == ["value"]
    assert_same(done["value"], expected.x.reshape(v.shape), of=r)
    for account, units in expected.accounts.items():
        assert_booked(done.booked(account), units, scale=float(r.abs().sum() + expected.x.abs().sum()))


@every_mode
@checked
@given(drawn=attentions(both_dtypes()))
def test_attention_conserves(mode: ModeName, drawn: tuple[Tensors, dict[str, Any]]) -> None:
    t, arguments = drawn
    r = t.normal(*call_op(SDPA, arguments).shape)
    assert_conserved(bind_op(SDPA, arguments, ["query", "key", "value"], mode).back(r))


@first_modes
def test_constant_values_are_a_named_sink(mode: ModeName) -> None:
    t = Tensors(1)
    arguments = {"query": t(1, 1, 2, 3), "key": t(1, 1, 4, 3), "value": t(1, 1, 4, 2)}
    r = t.normal(1, 1, 2, 2)
    done = bind_op(SDPA, arguments, ["query", "key"], mode).back(r)
    assert not done.relevance
    total = done.booked("constant:value") + done.booked("stabiliser")
    assert total == pytest.approx(float(r.sum()))


@every_mode
@pytest.mark.parametrize("op", [aten.softmax.int, aten.log_softmax.int, aten._softmax.default], ids=str)
def test_a_softmax_that_weights_nothing_passes_relevance(mode: ModeName, op: Any) -> None:
    t = Tensors(1)
    r = t.normal(2, 3)
    rest = {"half_to_float": False} if op is aten._softmax.default else {}
    done = bind_op(op, {"self": t(2, 3), "dim": -1, **rest}, ["self"], mode).back(r)
    assert torch.equal(done["self"], r)
    assert not done.accounts
