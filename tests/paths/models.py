"""The models that paths are followed through, in float64, each traced once."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlb_core import DLBacktrace

STABLE = {"eps": 1e-12}  # what a stabiliser adds would hide what is compared


class Perceptron(nn.Module):
    """Dense layers with ReLU: [B, 5] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Convolutions(nn.Module):
    """Convolution, BatchNorm, a residual, max-pooling, dense: [B, 1, 6, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.two, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 3 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x)).relu()
        x = F.max_pool2d((x + self.two(x)).relu(), 2)
        return self.fc(x.flatten(1))


class Recurrent(nn.Module):
    """A fused LSTM in both directions: [B, 4, 3] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


class Cell(nn.Module):
    """An LSTM written in plain ops: [B, 4, 3] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h, self.fc = nn.Linear(3, 16), nn.Linear(4, 16), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 4)
        for t in range(4):
            i, f, g, o = (self.x(x[:, t]) + self.h(h)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.fc(h)


class Attentive(nn.Module):
    """Two heads of attention and a gated dense layer: [B, 4, 6] -> [B, 3]; with norms, or without."""

    def __init__(self, *, fused: bool = True, norms: bool = False, detached: bool = False) -> None:
        super().__init__()
        self.fused, self.norms, self.detached = fused, norms, detached
        self.first, self.second = nn.LayerNorm(6), nn.LayerNorm(6)
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.up, self.gate, self.down, self.fc = (nn.Linear(6, n) for n in (5, 5, 5, 3))
        self.down = nn.Linear(5, 6)

    def normed(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        if not self.norms:
            return x
        if not self.detached:
            return norm(x)
        mean, scale = x.mean(-1, keepdim=True), (x.var(-1, correction=0, keepdim=True) + norm.eps).rsqrt()
        return (x - mean.detach()) * scale.detach() * norm.weight + norm.bias

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 3)).transpose(1, 2) for t in self.qkv(self.normed(self.first, x)).chunk(3, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-1, -2) / math.sqrt(3)).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).flatten(2))
        z = self.normed(self.second, x)
        return self.fc((x + self.down(F.silu(self.gate(z)) * self.up(z))).mean(1))


class Reader(nn.Module):
    """Ids through an embedding: [B, T] -> [B, 3]; `inner` takes the embedding itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(11, 6), inner

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.inner(self.table(input_ids))


class Two(nn.Module):
    """Two inputs that meet in a product: [B, 4], [B, 4] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc(self.a(left).tanh() * self.b(right).relu())


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (Perceptron, (5,)),
    "convolutions": (Convolutions, (1, 6, 6)),
    "lstm": (Recurrent, (4, 3)),
    "cell": (Cell, (4, 3)),
    "attention": (Attentive, (4, 6)),
    "written attention": (lambda: Attentive(fused=False), (4, 6)),
    "transformer": (lambda: Attentive(norms=True), (4, 6)),
}
SMOOTH = ("lstm", "cell", "attention", "written attention")  # differentiable, and nothing is held


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with the same weights at every call, in float64; its biases and statistics are random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer += 0.5 * torch.rand_like(buffer)
    return model.requires_grad_(False)


@cache
def traced(name: str) -> tuple[nn.Module, DLBacktrace]:
    build, shape = MODELS[name]
    model = seeded(build)
    return model, DLBacktrace(model, torch.zeros(2, *shape, dtype=torch.float64))


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def modes(dlb: DLBacktrace) -> list[tuple[str, dict[str, Any]]]:
    """Every mode that has one map, with the options that it cannot do without."""
    options: dict[str, dict[str, Any]] = {"z-box": {"low": -5.0, "high": 5.0}}
    return [(name, options.get(name, {})) for name in dlb.modes if name not in ("contrastive", "auto")]


def chosen(y: Tensor, target: int = 1) -> Tensor:
    return y[:, target].sum()


def gradients(model: nn.Module, x: Tensor, base: Tensor, steps: int, target: int = 1) -> Tensor:
    """Integrated Gradients by autograd and the midpoint rule."""
    total = torch.zeros_like(x)
    for k in range(steps):
        point = (base + (x - base) * (k + 0.5) / steps).requires_grad_()
        total += torch.autograd.grad(chosen(model(point), target), point)[0]
    return (x - base) * total / steps


@cache
def two() -> tuple[nn.Module, DLBacktrace]:
    model = seeded(Two)
    return model, DLBacktrace(model, (torch.zeros(2, 4).double(), torch.zeros(2, 4).double()))


@cache
def reader() -> tuple[Reader, DLBacktrace, DLBacktrace]:
    """Ids, and the same network on embeddings."""
    model = seeded(lambda: Reader(Attentive(norms=True)))
    assert isinstance(model, Reader)
    inner = DLBacktrace(model.inner, torch.zeros(2, 4, 6).double())
    return model, DLBacktrace(model, torch.zeros(2, 4, dtype=torch.long)), inner
