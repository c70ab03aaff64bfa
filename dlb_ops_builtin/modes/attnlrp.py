"""`attnlrp`: epsilon with rules for attention (Achtibat et al. 2024): softmax by Taylor expansion, gates by halves."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.formulas import share_out
from dlb_core.rules import AttentionView, BoundMode, Mode, Shares, SoftmaxView, formula
from dlb_ops_builtin.modes import epsilon


@formula(reads=("x", "output"))
def softmax(k: SoftmaxView, r: Tensor, mode: BoundMode) -> Shares:
    """R_x = x * (R_y - y * sum R_y) over its dimension; scores that are not finite (masked) count as 0.

    What the expansion keeps, sum_j R_j (1 - x_j + sum_i y_i x_i), is the account `softmax`.
    """
    x = torch.where(k.x.isfinite(), k.x, 0)
    y = k.output
    mean = (y * x).sum(k.dim, keepdim=True)
    rx = x * (r - y * r.sum(k.dim, keepdim=True))
    return Shares({k.name: rx}, softmax=(r * (1 - x + mean)).sum())


@formula(reads=("q", "k", "v", "mask", "output"))
def attention(k: AttentionView, r: Tensor, mode: BoundMode) -> Shares:
    """g = R / stab(o); half of g * o to v, a quarter of what the scores pass on to each of q and k.

    The values' part of the op is linear, so sum v dv = sum g o; the weights' other half goes through the softmax and
    leaves its residual in the account `softmax`; an additive mask is a constant among the scores.
    """
    o = k.output
    g, stabiliser = share_out(r, o, mode.eps)
    q_dq, k_dk, v_dv, *m_dm = k.contributions(g)
    masks = [part / 2 for part in m_dm]
    kept = (g * o).sum() / 2 - q_dq.sum() / 2 - sum((part.sum() for part in masks), torch.zeros_like(stabiliser))
    shares = dict(zip(k.names, (q_dq / 4, k_dk / 4, v_dv / 2, *masks), strict=True))
    return Shares(shares, softmax=kept, stabiliser=stabiliser)


ATTNLRP = Mode(
    "attnlrp",
    {**epsilon.FORMULAS, "softmax": softmax, "attention": attention},
    options={"eps": 1e-6, "bias": "absorb"},
    gates=False,
    source="Achtibat et al. 2024, arXiv:2402.05602",
    summary="epsilon with attention rules: softmax by its Taylor expansion, products half and half",
)
