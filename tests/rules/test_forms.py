"""A fused op and the same function written out give the same relevance, on models as they are traced."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlb_core import DLBacktrace, Relevance

from .harness import MODE_NAMES, MODES, ModeName

every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
Form = Callable[..., Tensor]


class Between(nn.Module):
    """A form between two dense layers, with tensors of its own: w, b (trailing size) where it wants them."""

    def __init__(self, form: Form, size: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.before, self.after = nn.Linear(4, size), nn.Linear(size, 3)
        self.w, self.b = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.form(self.before(x), self.w, self.b))


def explained(model: nn.Module, x: Tensor, modes: list[ModeName], **options: Any) -> dict[ModeName, Relevance]:
    """Relevance in every mode, for a seed with both signs; the trace is made once."""
    dlb = DLBacktrace(model.double().eval(), x, check="raise", **options)
    dlb.predict(x)
    output = model(x)
    target = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    more = {"epsilon": {"eps": 1e-9}}
    return {(n, b): dlb.evaluation(n, target=target, multiplier=1.0, bias=b, **more.get(n, {})) for n, b in modes}


def assert_agree(one: nn.Module, other: nn.Module, x: Tensor, modes: list[ModeName] = MODES, rtol: float = 1e-4) -> None:
    """The same function, and the same relevance of the input in every mode."""
    torch.testing.assert_close(one.double().eval()(x), other.double().eval()(x))
    first, second = explained(one, x, modes), explained(other, x, modes)
    for mode in modes:
        expected = first[mode]["x"]
        assert float(expected.abs().sum()) > 0
        atol = rtol * float(expected.abs().max())
        torch.testing.assert_close(second[mode]["x"], expected, rtol=rtol, atol=atol, msg=lambda m, k=mode: f"{k}: {m}")


X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)

ACTIVATIONS: dict[str, tuple[Form, Form]] = {
    "gelu": (lambda u, w, b: F.gelu(u), lambda u, w, b: u * 0.5 * (1 + torch.erf(u / math.sqrt(2)))),
    "gelu by tanh": (
        lambda u, w, b: F.gelu(u, approximate="tanh"),
        lambda u, w, b: 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * torch.pow(u, 3)))),
    ),
    "gelu by cubes": (
        lambda u, w, b: F.gelu(u, approximate="tanh"),
        lambda u, w, b: 0.5 * u * (1 + torch.tanh(u * 0.7978845608028654 * (1 + 0.044715 * u * u))),
    ),
    "silu": (lambda u, w, b: F.silu(u), lambda u, w, b: u * torch.sigmoid(u)),
    "silu, gate first": (lambda u, w, b: F.silu(u), lambda u, w, b: torch.sigmoid(u) * u),
    "mish": (lambda u, w, b: F.mish(u), lambda u, w, b: u * torch.tanh(F.softplus(u))),
    "hard-swish": (lambda u, w, b: F.hardswish(u), lambda u, w, b: u * F.relu6(u + 3) / 6),
    "square": (lambda u, w, b: torch.square(u), lambda u, w, b: u * u),
    "power": (lambda u, w, b: torch.square(u), lambda u, w, b: u**2),
    "relu squared": (lambda u, w, b: torch.square(F.relu(u)), lambda u, w, b: F.relu(u) * F.relu(u)),
    "softsign": (lambda u, w, b: torch.tanh(u) * 0 + u / (1 + u.abs()), lambda u, w, b: u / (1 + u.abs())),
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


@pytest.mark.parametrize("name", [*ACTIVATIONS, *NORMS])
def test_elementwise_functions_and_norms(name: str) -> None:
    fused, written = {**ACTIVATIONS, **NORMS}[name]
    assert_agree(Between(fused), Between(written), X)


class Attention(nn.Module):
    """Two heads over five positions; the core is fused or written out."""

    def __init__(self, core: Form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.core = core
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (part.view(x.shape[0], 5, 2, 2).transpose(1, 2) for part in parts)
        return self.out(self.core(q, k, v).transpose(1, 2).reshape(x.shape[0], 5, 4)) + x


CAUSAL = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)
LAST = torch.zeros(5, dtype=torch.bool).index_fill(0, torch.tensor([4]), True)
CORES: dict[str, tuple[Form, Form]] = {
    "plain": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(2), -1) @ v,
    ),
    "scaled queries": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
        lambda q, k, v: torch.matmul(F.dropout(F.softmax((q * 0.3) @ k.mT, -1), 0.1, False), v),
    ),
    "causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: torch.softmax(q @ k.mT / math.sqrt(2) + CAUSAL, -1) @ v,
    ),
    "masked": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, ~LAST),
        lambda q, k, v: torch.softmax((q @ k.mT / math.sqrt(2)).masked_fill(LAST, float("-inf")), -1) @ v,
    ),
    "batched": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v),
        lambda q, k, v: torch.bmm(
            F.softmax(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT) * 0.5**0.5, -1), v.flatten(0, 1)
        ).unflatten(0, (2, 2)),
    ),
}


@pytest.mark.parametrize("name", CORES)
def test_attention(name: str) -> None:
    fused, written = CORES[name]
    assert_agree(Attention(fused), Attention(written), X)


class Normed(nn.Module):
    """A layer, its BatchNorm, and a classifier."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(dims)
        layer, norm = {0: (nn.Linear, nn.BatchNorm1d), 1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[
            dims
        ]
        self.layer = layer(3, 4, *(() if dims == 0 else (3,)))
        self.norm = norm(4)
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.head = nn.Linear(4 * 3**dims, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.layer(x))).flatten(1))


@every_mode
@pytest.mark.parametrize("dims", [0, 1, 2])
def test_a_folded_batch_norm(dims: int, mode: ModeName) -> None:
    """Redistributed, folding changes nothing; absorbed, the books only name the two biases together."""
    x = torch.randn(2, 3, *[5] * dims, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = Normed(dims)
    folded, unfolded = (explained(model, x, [mode], fold=fold)[mode] for fold in (True, False))
    assert not any("norm" in name for name in folded if name not in ("norm", "output"))
    if mode[1] == "redistribute" or mode[0] == "epsilon":
        expected = unfolded["x"]
        torch.testing.assert_close(folded["x"], expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))


class Recurrent(nn.Module):
    """An LSTM cell over five steps, with the gates split from one product."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.x, self.h = nn.Linear(4, 12), nn.Linear(3, 12)

    def forward(self, x: Tensor) -> Tensor:
        h = c = torch.zeros(x.shape[0], 3, dtype=x.dtype)
        for t in range(5):
            i, f, g, o = (self.x(x[:, t]) + self.h(h)).chunk(4, 1)
            c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
            h = torch.sigmoid(o) * torch.tanh(c)
        return h


@every_mode
def test_a_written_out_lstm_gives_every_step_its_share(mode: ModeName) -> None:
    """The gates' rows of the weights take no part: relevance does not change when they do, if the gates do not."""
    model = Recurrent()
    relevance = explained(model, X, [mode])[mode]
    assert bool(relevance["x"].abs().sum((0, 2)).gt(0).all())
    units = float(relevance["x"].sum()) + math.fsum(relevance.ledger.accounts.values())
    assert units == pytest.approx(relevance.ledger.seed)


class Routed(nn.Module):
    """Two experts weighted by the renormalised best of four scores, computed from an input of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router = nn.Linear(3, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x: Tensor, scores: Tensor) -> Tensor:
        weights = self.router(scores).softmax(-1)[:, :2]
        weights = weights / weights.sum(-1, keepdim=True)
        return sum(weights[:, i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


@every_mode
def test_a_router_gets_nothing(mode: ModeName) -> None:
    inputs = (X[:, 0], torch.randn(2, 3, generator=torch.Generator().manual_seed(4), dtype=torch.float64))
    model = Routed().double().eval()
    dlb = DLBacktrace(model, inputs)
    dlb.predict(*inputs)
    relevance = dlb.evaluation(mode[0], target=torch.ones(2, 3, dtype=torch.float64), multiplier=1.0, bias=mode[1])
    assert bool(relevance["x"].any())
    assert not bool(relevance["scores"].any())
