"""The oracle of the kit, and attention written out."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlb_core.testing.oracle import Shared, addends, linear, matrix, normaliser, origins, stab

__all__ = ["Shared", "addends", "attention_weights", "linear", "matrix", "normaliser", "origins", "stab"]


def attention_weights(
    q: Tensor, k: Tensor, scale: float, allowed: Callable[[int, int, int, int], bool], addend: Tensor | None
) -> Tensor:
    """softmax(q k^T * scale + addend) over the allowed keys, written out: [B, H, L, S], q's heads in groups of k's."""
    batches, heads, queries, keys = *q.shape[:3], k.shape[2]
    group = heads // k.shape[1]
    weights = torch.zeros(batches, heads, queries, keys, dtype=torch.float64)
    for b in range(batches):
        for h in range(heads):
            for i in range(queries):
                scores = {}
                for j in range(keys):
                    if allowed(b, h, i, j):
                        dot = float((q[b, h, i] * k[b, h // group, j]).sum()) * scale
                        scores[j] = dot + (float(addend[b, h, i, j]) if addend is not None else 0.0)
                total = sum(torch.tensor(list(scores.values()), dtype=torch.float64).exp().tolist())
                for j, score in scores.items():
                    weights[b, h, i, j] = float(torch.tensor(score, dtype=torch.float64).exp()) / total
    return weights
