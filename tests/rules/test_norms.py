"""Normalisers: relevance stays in place, the statistics take nothing, the shift is an addend."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import Tensor

from . import oracle
from .compare import assert_booked, assert_same, kept
from .harness import ALL_MODE_NAMES, ALL_MODES, MODE_NAMES, MODES, ModeName, assert_conserved, bind_op, call_op
from .tensors import Tensors, both_dtypes, checked, tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", ALL_MODES, ids=ALL_MODE_NAMES)
first_modes = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)  # what is booked is proved with the places in all
NORM_EPS = 1e-5


def spread(values: Tensor | None, shape: torch.Size, *, channel: bool) -> Tensor | None:
    """A norm's weight or bias in the shape of its input: by channel, or by trailing dimensions."""
    if values is None:
        return None
    return (values.reshape(-1, *[1] * (len(shape) - 2)) if channel else values).expand(shape)


def parts(op: Any, arguments: dict[str, Any]) -> tuple[Tensor, Tensor | None]:
    """What a norm computes, written out: the scaled input, and what is added to it at last."""
    x = arguments["input"].double()
    weight, bias = arguments.get("weight"), arguments.get("bias")
    own = arguments.get("training", False)
    if op is aten.batch_norm.default and not own:
        std = (arguments["running_var"] + NORM_EPS).sqrt()
        gain = (1 / std) if weight is None else weight / std
        shift = -arguments["running_mean"] * gain + (0 if bias is None else bias)
        return x * spread(gain, x.shape, channel=True), spread(shift, x.shape, channel=True)
    channel = own or op is aten.group_norm.default
    if own:
        groups = x.transpose(0, 1).flatten(1)
    elif channel:
        groups = x.reshape(x.shape[0], arguments["num_groups"], -1)
    else:
        groups = x.flatten(x.dim() - len(arguments["normalized_shape"]))
    mean = 0 if op is aten.rms_norm.default else groups.mean(-1, keepdim=True)
    centred = groups - mean
    scaled = centred / ((centred**2).mean(-1, keepdim=True) + NORM_EPS).sqrt()
    scaled = scaled.reshape(x.transpose(0, 1).shape).transpose(0, 1) if own else scaled.reshape(x.shape)
    gain = spread(weight, x.shape, channel=channel)
    return scaled if gain is None else scaled * gain, spread(bias, x.shape, channel=channel)


@st.composite
def norms(draw: Any, t: st.SearchStrategy[Tensors]) -> tuple[Tensors, Any, dict[str, Any]]:
    make = draw(t)
    kind = draw(st.sampled_from(["layer", "rms", "group", "batch", "batch alone"]))
    affine, with_bias = draw(st.booleans()), draw(st.booleans())
    if kind in ("layer", "rms"):
        batch = draw(st.lists(st.integers(0, 3), max_size=2))
        shape = draw(st.lists(st.integers(1, 3), min_size=1, max_size=2))
        arguments = {"input": make(*batch, *shape), "normalized_shape": shape}
        arguments["weight"] = make(*shape) if affine else None
        if kind == "rms":
            return make, aten.rms_norm.default, {**arguments, "eps": NORM_EPS}
        arguments["bias"] = make(*shape) if affine and with_bias else None
        return make, aten.layer_norm.default, {**arguments, "eps": NORM_EPS}
    groups, per_group = draw(st.integers(1, 2)), draw(st.integers(1, 2))
    channels = groups * per_group
    place = draw(st.lists(st.integers(1, 3), max_size=2))
    arguments = {"input": make(draw(st.integers(1, 3)), channels, *place)}
    weights = {"weight": make(channels) if affine else None, "bias": make(channels) if affine and with_bias else None}
    if kind == "group":
        return make, aten.group_norm.default, {**arguments, "num_groups": groups, **weights, "eps": NORM_EPS}
    running = {"running_mean": make(channels), "running_var": make.positive(channels)}
    rest = {"training": kind == "batch alone", "momentum": 0.1, "eps": NORM_EPS, "cudnn_enabled": False}
    if kind == "batch alone":  # torch asks for more than one value per channel
        assume(arguments["input"].numel() > channels)
        running = {"running_mean": None, "running_var": None}
    return make, aten.batch_norm.default, {**arguments, **weights, **running, **rest}


@every_mode
@checked
@given(drawn=norms(tensors()))
def test_norms(mode: ModeName, drawn: tuple[Tensors, Any, dict[str, Any]]) -> None:
    t, op, arguments = drawn
    scaled, shift = parts(op, arguments)
    torch.testing.assert_close(call_op(op, arguments), scaled if shift is None else scaled + shift)
    r = t.normal(*arguments["input"].shape)
    rx, booked, stabiliser = oracle.normaliser(scaled, shift, r, mode)
    done = bind_op(op, arguments, ["input"], mode).back(r)
    assert_same(done["input"], rx, of=r)
    account = "bias:bias" if arguments.get("bias") is not None else f"bias:{done.last}"
    scale = float(r.abs().sum() + rx.abs().sum())
    assert_booked(done.booked(account), booked, scale=scale)
    assert_booked(kept(done), stabiliser, scale=scale)


@first_modes
@checked
@given(drawn=norms(both_dtypes()))
def test_norms_conserve(mode: ModeName, drawn: tuple[Tensors, Any, dict[str, Any]]) -> None:
    t, op, arguments = drawn
    done = bind_op(op, arguments, ["input"], mode).back(t.normal(*arguments["input"].shape))
    assert_conserved(done)
    assert all(bool(torch.isfinite(value).all()) for value in done.relevance.values())
