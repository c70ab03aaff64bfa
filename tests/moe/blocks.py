"""Mixtures of experts as users write them in plain PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

WIDTH = 12


class Experts(nn.Module):
    """A router over a list of experts: the k best, with weights that sum to one: [..., width] -> [..., width].

    loop: run each expert on the tokens that chose it; else all of them on all tokens, and weigh what was not chosen by
    zero. Both are the same function.
    """

    def __init__(self, experts: int, k: int, loop: bool, width: int = WIDTH) -> None:
        super().__init__()
        self.k, self.loop = k, loop
        self.router = nn.Linear(width, experts)
        self.experts = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 10), nn.GELU(), nn.Linear(10, width)) for _ in range(experts)
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        weight, index = self.router(rows).softmax(-1).topk(self.k)
        weight = weight / weight.sum(-1, keepdim=True)
        mixed = self._chosen(rows, weight, index) if self.loop else self._all(rows, weight, index)
        return mixed.reshape(x.shape)

    def _chosen(self, rows: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        out = torch.zeros_like(rows)
        for number, expert in enumerate(self.experts):
            token, place = (index == number).nonzero(as_tuple=True)
            if len(token):
                out.index_add_(0, token, expert(rows[token]) * weight[token, place, None])
        return out

    def _all(self, rows: Tensor, weight: Tensor, index: Tensor) -> Tensor:
        weights = rows.new_zeros(rows.shape[0], len(self.experts)).scatter(1, index, weight)
        return (torch.stack([expert(rows) for expert in self.experts], 1) * weights.unsqueeze(-1)).sum(1)


class LanguageModel(nn.Module):
    """Ids to logits: attention and experts, twice: [B, T] -> [B, T, vocabulary]."""

    def __init__(self, vocabulary: int, loop: bool, experts: int = 4, k: int = 2) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(vocabulary, WIDTH), nn.Linear(WIDTH, vocabulary)
        self.qkv = nn.ModuleList(nn.Linear(WIDTH, 3 * WIDTH) for _ in range(2))
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH) for _ in range(4))
        self.experts = nn.ModuleList(Experts(experts, k, loop) for _ in range(2))

    def forward(self, input_ids: Tensor) -> Tensor:
        x = self.embed(input_ids)
        for i, experts in enumerate(self.experts):
            q, k, v = self.qkv[i](self.norms[2 * i](x)).chunk(3, -1)
            x = x + nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + experts(self.norms[2 * i + 1](x))
        return self.head(x)


class Table(nn.Module):
    """A row of numbers to classes: [B, 6] -> [B, 3]."""

    def __init__(self, loop: bool, experts: int = 4, k: int = 2) -> None:
        super().__init__()
        self.first, self.experts, self.head = nn.Linear(6, WIDTH), Experts(experts, k, loop), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.experts(self.first(x).tanh()))
