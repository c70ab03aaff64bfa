"""Networks whose gradient times input is attnlrp: what a rule does to relevance, detaching does to the gradient.

Each function has the value of the op it stands for. An elementwise function is its input times a detached slope, so
that relevance passes; a product is two halves, each with one factor detached; a normaliser's statistic is detached.
Softmax is left as it is, since its Taylor expansion is its gradient, and `Softmaxes` sums what that expansion leaves.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F


def passing(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """f(x) as x * (f(x) / x)."""
    value = function(x).detach()
    return torch.where(x == 0, value, x * (value / torch.where(x == 0, 1, x.detach())))


def halves(product: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor) -> Tensor:
    """A bilinear function, half through each factor."""
    return (product(a, b.detach()) + product(a.detach(), b)) / 2


def rms_norm(x: Tensor, weight: Tensor, eps: float, dtype: torch.dtype) -> Tensor:
    """Worked out in `dtype`, as models do."""

    def normalised(t: Tensor) -> Tensor:
        narrow = t.to(dtype)
        return (narrow * (narrow.square().mean(-1, keepdim=True) + eps).rsqrt()).to(t.dtype)

    return passing(normalised, x) * weight


def layer_norm(x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """The mean is a statistic as well; the shift is an addend."""
    return passing(lambda t: F.layer_norm(t, t.shape[-1:], weight, None, eps), x) + bias


class Softmaxes:
    """The softmaxes of a network and what their expansions leave, once the output was differentiated.

    dtype: in which they are worked out, as models do.
    """

    def __init__(self, dtype: torch.dtype = torch.float64) -> None:
        self._dtype = dtype
        self._seen: list[tuple[Tensor, Tensor]] = []

    def __call__(self, scores: Tensor) -> Tensor:
        weights = scores.softmax(-1, dtype=self._dtype).to(scores.dtype)
        weights.retain_grad()
        self._seen.append((scores, weights))
        return weights

    def left(self) -> float:
        """sum_j R_j (1 - x_j + sum_i y_i x_i), masked scores taken as 0, over all of them."""
        total = 0.0
        for scores, weights in self._seen:
            x = scores.detach().nan_to_num(neginf=0.0)
            assert weights.grad is not None
            r = weights.grad * weights.detach()
            total += float((r * (1 - x + (weights.detach() * x).sum(-1, keepdim=True))).sum())
        return total


def attention(q: Tensor, k: Tensor, v: Tensor, softmax: Softmaxes, *, causal: bool) -> Tensor:
    """softmax(q k^T / sqrt(d)) v over [B, H, T, d], keys and values in groups of query heads."""
    group = q.shape[1] // k.shape[1]
    k, v = (t.repeat_interleave(group, 1) for t in (k, v))
    scores = halves(torch.matmul, q, k.transpose(-1, -2)) * q.shape[-1] ** -0.5
    if causal:
        future = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
        scores = scores.masked_fill(future, float("-inf"))
    return halves(torch.matmul, softmax(scores), v)
