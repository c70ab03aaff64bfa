"""Small networks with routed experts, written with the pack's op, and the same arithmetic one token at a time."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlb_ops_moe.op import expert_linear


class Experts(nn.Module):
    """`experts` networks of two layers, each row through those that were chosen for it."""

    def __init__(self, width: int, inner: int, experts: int) -> None:
        super().__init__()
        self.up = nn.Parameter(torch.randn(experts, inner, width) / width**0.5)
        self.up_bias = nn.Parameter(torch.randn(experts, inner) / 4)
        self.down = nn.Parameter(torch.randn(experts, width, inner) / inner**0.5)

    def forward(self, x: Tensor, index: Tensor, weight: Tensor) -> Tensor:
        rows = x.unsqueeze(1).expand(-1, index.shape[1], -1)
        hidden = torch.relu(expert_linear(rows, index, self.up, self.up_bias))
        made = expert_linear(hidden, index, self.down)
        return (made * weight.unsqueeze(-1)).sum(1)


class Mixture(nn.Module):
    """A router that takes the `k` most probable experts, their weights made to add up to one."""

    def __init__(self, width: int = 5, inner: int = 6, experts: int = 4, k: int = 2) -> None:
        super().__init__()
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = Experts(width, inner, experts)
        self.k = k

    def forward(self, x: Tensor) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        weight, index = self.router(flat).softmax(-1).topk(self.k)
        return self.experts(flat, index, weight / weight.sum(-1, keepdim=True)).reshape(x.shape)


class Net(nn.Module):
    """Two mixtures one after the other around a residual, and a head on the mean over tokens if there are any."""

    def __init__(self, width: int = 5, classes: int = 3, **mixture: int) -> None:
        super().__init__()
        self.first = Mixture(width, **mixture)
        self.second = Mixture(width, **mixture)
        self.head = nn.Linear(width, classes, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.first(x)
        x = self.second(x)
        return self.head(x.mean(1) if x.dim() == 3 else x)


class Chosen(NamedTuple):
    """What a mixture did with flat tokens: the weight of every expert, and what it returned, weighed or not at all."""

    probability: Tensor  # [S, E]
    weight: Tensor  # [S, E]
    returned: Tensor  # [S, E, width], of experts that were not chosen too


def by_hand(mixture: Mixture, x: Tensor) -> Chosen:
    """The mixture with every expert run for every token."""
    probability = torch.softmax(x @ mixture.router.weight.T, -1)
    weight = torch.zeros_like(probability)
    for token, each in enumerate(probability):
        best = each.topk(mixture.k).indices
        weight[token, best] = each[best] / each[best].sum()
    experts = mixture.experts
    returned = [
        torch.relu(x @ up.T + bias) @ down.T
        for up, bias, down in zip(experts.up, experts.up_bias, experts.down, strict=True)
    ]
    return Chosen(probability, weight, torch.stack(returned, 1))
