"""Arguments for activations, functions of one number, and arithmetic."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten

ACTIVATIONS = [
    *(aten.relu, aten.relu6, aten.leaky_relu, aten.elu, aten.selu, aten.celu, aten.gelu, aten.silu, aten.mish),
    *(aten.hardswish, aten.hardtanh, aten.softplus, aten.log_sigmoid, aten.tanh, aten.sigmoid, aten.hardsigmoid),
    aten.hardshrink,
    aten.softshrink,
]
FUNCTIONS = [
    aten.abs,
    aten.neg,
    aten.exp,
    aten.erf,
    aten.sin,
    aten.cos,
    aten.square,
    aten.exp2,
    aten.expm1,
    aten.erfc,
    aten.atan,
]
ON_POSITIVE = [aten.log, aten.sqrt, aten.rsqrt, aten.reciprocal, aten.log2, aten.log10, aten.log1p]


def _one(t: Tensors) -> Arguments:
    return {"self": t(2, 3)}


def _positive(t: Tensors) -> Arguments:
    return {"self": t.positive(2, 3)}


def _two(first: tuple[int, ...], second: tuple[int, ...], **more: Any) -> Callable[[Tensors], Arguments]:
    return lambda t: {"self": t(*first), "other": t(*second), **more}


def _quotient(t: Tensors) -> Arguments:
    return {"self": t(2, 1, 3), "other": t.positive(2, 3)}


def _power(t: Tensors) -> Arguments:
    return {"self": t.positive(3), "exponent": t(2, 3)}


def _scalar(value: float, **more: Any) -> Callable[[Tensors], Arguments]:
    return lambda t: {"self": t(2, 3), "other": value, **more}


def _each(op: Any, arguments: Callable[[Tensors], Arguments], second: str = "other", label: str = "") -> list[Case]:
    return [Case(op, arguments, active, label) for active in (("self", second), ("self",), (second,))]


CASES: list[Case] = [
    *(Case(op.default, _one, ("self",)) for op in (*ACTIVATIONS, *FUNCTIONS)),
    *(Case(op.default, _positive, ("self",)) for op in ON_POSITIVE),
    Case(aten.gelu.default, lambda t: {**_one(t), "approximate": "tanh"}, ("self",), "tanh"),
    Case(aten.log_softmax.int, lambda t: {**_one(t), "dim": -1}, ("self",)),
    Case(aten.pow.Tensor_Scalar, lambda t: {**_one(t), "exponent": 3}, ("self",)),
    Case(aten.pow.Scalar, lambda t: {"self": 2.0, "exponent": t(2, 3)}, ("exponent",)),
    Case(aten.prelu.default, lambda t: {"self": t(2, 3, 4), "weight": t(3)}, ("self",)),
    Case(aten.threshold.default, lambda t: {**_one(t), "threshold": 0.1, "value": -0.5}, ("self",)),
    *_each(aten.pow.Tensor_Tensor, _power, "exponent"),
    Case(aten.clamp.default, lambda t: {**_one(t), "min": -0.5, "max": 0.5}, ("self",)),
    Case(aten.clamp_min.default, lambda t: {**_one(t), "min": 0.1}, ("self",)),
    Case(aten.clamp_max.default, lambda t: {**_one(t), "max": 0.1}, ("self",)),
    *_each(aten.add.Tensor, _two((2, 1, 3), (4, 1))),
    *_each(aten.add.Tensor, _two((2, 3), (2, 3), alpha=-2), label="alpha"),
    *_each(aten.sub.Tensor, _two((2, 3), (3,), alpha=0.5)),
    Case(aten.add.Scalar, _scalar(1.5, alpha=2), ("self",)),
    Case(aten.sub.Scalar, _scalar(1.5), ("self",)),
    Case(aten.rsub.Scalar, _scalar(1.0), ("self",)),
    *_each(aten.mul.Tensor, _two((2, 1, 3), (4, 1))),
    *_each(aten.multiply.Tensor, _two((2, 3), (3,))),
    Case(aten.mul.Scalar, _scalar(-2.0), ("self",)),
    *_each(aten.div.Tensor, _quotient),
    Case(aten.div.Scalar, _scalar(-2.0), ("self",)),
]
