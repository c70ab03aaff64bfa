"""Along a path, too, a fused op and the same written out give the same relevance."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, integrated

from .models import (
    modes,
    numbers,
    seeded,
    traced,
)


class Written(nn.Module):
    """An RMSNorm as one op, or in ops: [B, 4, 6] -> [B, 3]."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused, self.one, self.norm, self.two = fused, nn.Linear(6, 6), nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        scale = self.norm.weight * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
        return self.two(self.norm(x) if self.fused else x * scale).relu().mean(1)


def test_fused_and_written_norms_agree_in_every_mode() -> None:
    x, base = numbers(30, 2, 4, 6), numbers(31, 2, 4, 6)
    fused, written = (DLBacktrace(seeded(lambda kind=kind: Written(fused=kind)), x) for kind in (True, False))
    for mode, options in modes(fused):
        one, other = (d.explain(x, mode=integrated(mode, base, 3, **options), target=1) for d in (fused, written))
        assert torch.allclose(one.inputs["x"], other.inputs["x"], atol=1e-6 * one.ledger.input_scale), mode
        assert one.ledger.accounts.get("held", 0) == pytest.approx(other.ledger.accounts["held"], rel=1e-4, abs=1e-6)


def test_fused_and_written_attention_agree_in_every_mode() -> None:
    (_, fused), (_, written) = traced("attention"), traced("written attention")
    x = numbers(12, 2, 4, 6)
    for mode, options in modes(fused):
        if mode == "vision" or options or mode in ("flat", "w-square"):
            continue  # what is first in a model differs by how it is written
        one, other = (
            d.explain(x, mode=integrated(mode, steps=2, **options), target=1).inputs["x"] for d in (fused, written)
        )
        assert torch.allclose(one, other, atol=1e-6 * float(one.abs().max())), mode
