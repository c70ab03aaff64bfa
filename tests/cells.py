"""Recurrent cells in plain ops, written once over what multiplies, squashes and weighs."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class Algebra(NamedTuple):
    """What a network is written in: plain ops, or such as a proof puts in their place."""

    multiply: Callable[[Tensor, Tensor], Tensor]
    apply: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]
    softmax: Callable[[Tensor], Tensor]


PLAIN = Algebra(torch.mul, lambda f, x: f(x), lambda x: x.softmax(-1))


class Cells(nn.Module):
    """A recurrent network over [B, T, 4] that says one of two things."""

    gates: int

    def __init__(self) -> None:
        super().__init__()
        self.read, self.carry = nn.Linear(4, 3 * self.gates), nn.Linear(3, 3 * self.gates)
        self.head = nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.written(x, PLAIN)

    def written(self, x: Tensor, a: Algebra) -> Tensor:
        raise NotImplementedError


class Lstm(Cells):
    """The state begins as the first step's values."""

    gates = 4

    def written(self, x: Tensor, a: Algebra) -> Tensor:
        h = c = a.apply(torch.tanh, x[:, 0, :3])
        for t in range(x.shape[1]):
            i, f, o, g = (self.read(x[:, t]) + self.carry(h)).chunk(4, -1)
            kept = a.multiply(a.apply(torch.sigmoid, f), c)
            c = kept + a.multiply(a.apply(torch.sigmoid, i), a.apply(torch.tanh, g))
            h = a.multiply(a.apply(torch.sigmoid, o), a.apply(torch.tanh, c))
        return self.head(h)


class Gru(Cells):
    gates = 3

    def written(self, x: Tensor, a: Algebra) -> Tensor:
        h = a.apply(torch.tanh, x[:, 0, :3])
        for t in range(x.shape[1]):
            (z, r, n), (uz, ur, un) = self.read(x[:, t]).chunk(3, -1), self.carry(h).chunk(3, -1)
            keep = a.apply(torch.sigmoid, z + uz)
            new = a.apply(torch.tanh, n + a.multiply(a.apply(torch.sigmoid, r + ur), un))
            h = a.multiply(a.apply(lambda t: 1 - t, keep), new) + a.multiply(keep, h)
        return self.head(h)


class Weighing(Cells):
    """Steps weighed by a softmax over what they say, as attention in a recurrent reader does."""

    gates = 1

    def written(self, x: Tensor, a: Algebra) -> Tensor:
        steps = a.apply(torch.tanh, self.read(x))
        weights = a.softmax(self.carry(steps)[..., 0]).unsqueeze(-1)
        return self.head(a.multiply(weights, steps).sum(1))


def redrawn(model: nn.Module, seed: int, scale: float = 0.5) -> None:
    """New weights in place, the same for the same seed: a trace follows them."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.float64) * scale)
