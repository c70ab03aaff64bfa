"""A fused op and the same function written out give the same relevance, on models as they are traced."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core import DLBacktrace

from .forms import (
    MIX,
    Between,
    Form,
    X,
    assert_agree,
    by_sum,
)


def gelu_by_tanh(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.gelu(u, approximate="tanh")


def silu(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.silu(u)


def square(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.square(u)


ACTIVATIONS: dict[str, tuple[Form, Form]] = {
    "gelu": (lambda u, w, b: F.gelu(u), lambda u, w, b: u * 0.5 * (1 + torch.erf(u / math.sqrt(2)))),
    "gelu by tanh": (
        gelu_by_tanh,
        lambda u, w, b: 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * torch.pow(u, 3)))),
    ),
    "gelu by cubes": (
        gelu_by_tanh,
        lambda u, w, b: 0.5 * u * (1 + torch.tanh(u * 0.7978845608028654 * (1 + 0.044715 * u * u))),
    ),
    "silu": (silu, lambda u, w, b: u * torch.sigmoid(u)),
    "silu, gate first": (silu, lambda u, w, b: torch.sigmoid(u) * u),
    "mish": (lambda u, w, b: F.mish(u), lambda u, w, b: u * torch.tanh(F.softplus(u))),
    "hard-swish": (lambda u, w, b: F.hardswish(u), lambda u, w, b: u * F.relu6(u + 3) / 6),
    "glu": (lambda u, w, b: F.glu(torch.cat([u, u.flip(-1)], -1)), lambda u, w, b: u * torch.sigmoid(u.flip(-1))),
    "swiglu": (lambda u, w, b: F.silu(u) * u.flip(-1), lambda u, w, b: u * torch.sigmoid(u) * u.flip(-1)),
    "square": (square, lambda u, w, b: u * u),
    "power": (square, lambda u, w, b: u**2),
    "relu squared": (lambda u, w, b: torch.square(F.relu(u)), lambda u, w, b: F.relu(u) * F.relu(u)),
}


def centred(u: Tensor) -> Tensor:
    return u - u.mean(-1, keepdim=True)


def variance(u: Tensor) -> Tensor:
    return (centred(u) ** 2).mean(-1, keepdim=True)


def second_moment(u: Tensor) -> Tensor:
    return u.pow(2).mean(-1, keepdim=True)


def by_moments(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean = u.mean(dim=-1, keepdim=True)
    return (u - mean) * torch.rsqrt(second_moment(u) - mean**2 + 1e-5) * w + b


def by_steps(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean = torch.mean(u, -1, True)
    difference = u - mean
    return w * (difference / torch.sqrt((difference * difference).sum(-1, keepdim=True) / 6 + 1e-5)) + b


def fused_layer_norm(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(u, (6,), w, b)


def fused_rms_norm(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.rms_norm(u, (6,), w, 1e-5)


NORMS: dict[str, tuple[Form, Form]] = {
    "layer norm, divided": (fused_layer_norm, lambda u, w, b: centred(u) / torch.sqrt(variance(u) + 1e-5) * w + b),
    "layer norm, rsqrt": (fused_layer_norm, lambda u, w, b: centred(u) * torch.rsqrt(variance(u) + 1e-5) * w + b),
    "layer norm, power": (fused_layer_norm, lambda u, w, b: w * (centred(u) * (variance(u) + 1e-5) ** -0.5) + b),
    "layer norm, weight first": (fused_layer_norm, lambda u, w, b: w * centred(u) / (variance(u) + 1e-5).sqrt() + b),
    "layer norm, by moments": (fused_layer_norm, by_moments),
    "layer norm, in steps": (fused_layer_norm, by_steps),
    "RMS norm, rsqrt": (fused_rms_norm, lambda u, w, b: w * (u * torch.rsqrt(second_moment(u) + 1e-5))),
    "RMS norm, divided": (fused_rms_norm, lambda u, w, b: u / torch.sqrt(second_moment(u) + 1e-5) * w),
    "RMS norm, reciprocal": (fused_rms_norm, lambda u, w, b: u * (1 / torch.sqrt(second_moment(u) + 1e-5)) * w),
    "RMS norm, weight first": (fused_rms_norm, lambda u, w, b: w * u * torch.rsqrt((u * u).mean(-1, True) + 1e-5)),
}


def length(u: Tensor) -> Tensor:
    return u.norm(dim=-1, keepdim=True)


def direction(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.normalize(u, dim=-1)


MORE_NORMS: dict[str, tuple[Form, Form]] = {
    "direction": (direction, lambda u, w, b: u / length(u)),
    "direction, clamped": (direction, lambda u, w, b: u / length(u).clamp_min(1e-12)),
    "direction, shifted": (direction, lambda u, w, b: u / (length(u) + 1e-12)),
    "direction, reciprocal": (direction, lambda u, w, b: u * (1 / torch.linalg.vector_norm(u, dim=-1, keepdim=True))),
    "direction, squares": (direction, lambda u, w, b: u * torch.rsqrt((u * u).sum(-1, keepdim=True))),
    "direction, einsum": (direction, lambda u, w, b: u / torch.einsum("bti,bti->bt", u, u).sqrt().unsqueeze(-1)),
    "direction, matmul": (direction, lambda u, w, b: u / (u[..., None, :] @ u[..., None])[..., 0].sqrt()),
    "RMS norm, einsum": (
        fused_rms_norm,
        lambda u, w, b: u / torch.sqrt(torch.einsum("bti,bti->bt", u, u).unsqueeze(-1) / 6 + 1e-5) * w,
    ),
    "layer norm, var": (
        fused_layer_norm,
        lambda u, w, b: centred(u) / torch.sqrt(u.var(-1, correction=0, keepdim=True) + 1e-5) * w + b,
    ),
    "layer norm, weights apart": (fused_layer_norm, lambda u, w, b: F.layer_norm(u, (6,)) * w + b),
}


def gated(weights: Callable[[Tensor], Tensor]) -> Form:
    """A signal times weights that are made from other scores than it."""
    return lambda u, w, b: u.flip(-1) * weights(u @ MIX)


softmax = gated(lambda z: z.softmax(-1))

GATES: dict[str, tuple[Form, Form]] = {
    "sigmoid, exp": (gated(torch.sigmoid), gated(lambda z: 1 / (1 + torch.exp(-z)))),
    "sigmoid, reciprocal": (gated(torch.sigmoid), gated(lambda z: torch.reciprocal(torch.exp(-z) + 1))),
    "sigmoid, two exp": (gated(torch.sigmoid), gated(lambda z: torch.exp(z) / (1 + torch.exp(z)))),
    "sigmoid, tanh": (gated(torch.sigmoid), gated(lambda z: 0.5 * (torch.tanh(z / 2) + 1))),
    "hard-sigmoid, relu6": (gated(F.hardsigmoid), gated(lambda z: F.relu6(z + 3) / 6)),
    "hard-sigmoid, relu6 by a factor": (gated(F.hardsigmoid), gated(lambda z: F.relu6(3.0 + z) * (1 / 6))),
    "hard-sigmoid, clamp": (gated(F.hardsigmoid), gated(lambda z: torch.clamp(z / 6 + 0.5, 0, 1))),
    "hard-sigmoid, hardtanh": (gated(F.hardsigmoid), gated(lambda z: F.hardtanh((z + 3) / 6, 0, 1))),
    "softmax, exp": (softmax, gated(lambda z: z.exp() / z.exp().sum(-1, keepdim=True))),
    "softmax, one exp": (softmax, gated(lambda z: by_sum((z - z.amax(-1, keepdim=True)).exp()))),
    "softmax, max": (softmax, gated(lambda z: by_sum((z - z.max(-1, keepdim=True).values.detach()).exp()))),
    "softmax, reciprocal": (softmax, gated(lambda z: z.exp() * (1 / z.exp().sum(-1, keepdim=True)))),
    "softmax, logsumexp": (softmax, gated(lambda z: (z - z.logsumexp(-1, keepdim=True)).exp())),
    "softmax, log-softmax": (softmax, gated(lambda z: z.log_softmax(-1).exp())),
}

FORMS = {**ACTIVATIONS, **NORMS, **MORE_NORMS, **GATES}


@pytest.mark.parametrize("name", FORMS)
def test_elementwise_functions_norms_and_gates(name: str) -> None:
    fused, written = FORMS[name]
    assert_agree(Between, fused, written)


NO_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "not shifted by one": lambda z: 1 / (2 + torch.exp(-z)),
    "of another value": lambda z: torch.exp(z) / (1 + torch.exp(z * z)),
    "half a tanh": lambda z: 0.5 * torch.tanh(z / 2) + 0.4,
    "another ramp": lambda z: F.relu6(z + 2) / 6,
    "a ramp that is not scaled": lambda z: torch.clamp(z, 0, 1),
    "a sum over more": lambda z: z.exp() / z.exp().sum((1, 2), keepdim=True),
    "a sum of others": lambda z: z.exp() / z.flip(-1).exp().cumsum(-1),
}


@pytest.mark.parametrize("name", NO_GATES)
def test_what_only_looks_like_a_gate_stays_as_it_is(name: str) -> None:
    model = Between(gated(NO_GATES[name])).double().eval()
    ops = {row["op"].partition(".")[0] for row in DLBacktrace(model, X).plan("attnlrp").table().records()}
    assert ops.isdisjoint({"aten::sigmoid", "aten::hardsigmoid", "aten::softmax"})
    torch.testing.assert_close(DLBacktrace(model, X).predict(X)["output"].output, model(X))
