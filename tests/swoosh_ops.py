"""Ops that no pack of ours knows, registered as a third party would."""

from __future__ import annotations

import torch
from torch import Tensor, nn


@torch.library.custom_op("swoosh::swoosh", mutates_args=())
def swoosh(x: Tensor) -> Tensor:
    return x * torch.sigmoid(1.5 * x)


@torch.library.custom_op("swoosh::mirror", mutates_args=())
def mirror(x: Tensor, dims: list[int]) -> Tensor:
    return x.flip(dims)


@torch.library.custom_op("swoosh::mix", mutates_args=())
def mix(x: Tensor, w: Tensor) -> Tensor:
    return x @ w


@torch.library.custom_op("swoosh::gauss", mutates_args=())
def gauss(x: Tensor) -> Tensor:
    return torch.exp(-x * x)


swoosh.register_fake(torch.empty_like)
gauss.register_fake(torch.empty_like)
mirror.register_fake(lambda x, dims: torch.empty_like(x))
mix.register_fake(lambda x, w: x.new_empty(*x.shape[:-1], w.shape[-1]))


class Swoosh(nn.Module):
    """All four in a row: [B, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(6, 3))

    def forward(self, x: Tensor) -> Tensor:
        return gauss(mirror(mix(swoosh(x), self.weight), [1]))


class One(nn.Module):
    """A dense layer, one of the ops by name, another dense layer: [B, 6] -> [B, 3]."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.before, self.after, self.op = nn.Linear(6, 6), nn.Linear(6, 3), op

    def forward(self, x: Tensor) -> Tensor:
        return self.after(getattr(torch.ops.swoosh, self.op)(self.before(x)))


class Swish2d(nn.Module):
    """A layer whose pack has a rule for the whole of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(1.5 * x)
