"""Attention, fused or written out, gives the same relevance in every mode."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .forms import (
    MIX,
    Form,
    X,
    assert_agree,
    assert_close,
    attend,
    by_sum,
    explained,
    fused_reference,
)


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
        attend,
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
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, ~LAST.expand(5, 5)),
        lambda q, k, v: torch.softmax((q @ k.mT / math.sqrt(2)).masked_fill(LAST, float("-inf")), -1) @ v,
    ),
    "mask of the least number": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: torch.softmax(q @ k.mT / math.sqrt(2) + CAUSAL.clamp_min(torch.finfo(q.dtype).min), -1) @ v,
    ),
    "biased scores": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=MIX[:5, :5]),
        lambda q, k, v: torch.softmax(q @ k.mT / math.sqrt(2) + MIX[:5, :5], -1) @ v,
    ),
    "einsum": (
        attend,
        lambda q, k, v: torch.einsum(
            "bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).mul(0.5**0.5).softmax(-1), v
        ),
    ),
    "keys first": (attend, lambda q, k, v: (k @ q.mT / math.sqrt(2)).softmax(-2).mT @ v),
    "products and sums": (
        attend,
        lambda q, k, v: (
            ((q.unsqueeze(3) * k.unsqueeze(2)).sum(-1) / math.sqrt(2)).softmax(-1).unsqueeze(-1) * v.unsqueeze(2)
        ).sum(3),
    ),
    "softmax spelled out": (attend, lambda q, k, v: by_sum(below(q @ k.mT / math.sqrt(2)).exp()) @ v),
    "batched": (
        attend,
        lambda q, k, v: torch.bmm(
            F.softmax(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT) * 0.5**0.5, -1), v.flatten(0, 1)
        ).unflatten(0, (2, 2)),
    ),
}


def below(scores: Tensor) -> Tensor:
    return scores - scores.amax(-1, keepdim=True)


@pytest.mark.parametrize("name", CORES)
def test_attention(name: str) -> None:
    fused, written = CORES[name]
    # `faithful` goes by kind: sums and products are not matrix products, nor a learned addend a mask
    assert_agree(Attention, fused, written, ("faithful",) if name in ("biased scores", "products and sums") else ())


def test_weights_that_are_divided_last_are_gates() -> None:
    """exp(s - max s) v / sum exp(s - max s), as tiled attention adds up; their rules see a product and no softmax."""

    def late(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        powers = below(q @ k.mT / math.sqrt(2)).exp()
        return (powers @ v) / powers.sum(-1, keepdim=True)

    _, expected = fused_reference(Attention, attend)
    for mode, got in explained(Attention(late), X).items():
        if mode[0] not in ("attnlrp", "faithful"):
            assert_close(got["x"], expected[mode]["x"], mode)
