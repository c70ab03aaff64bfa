"""Changes that go through a softmax: its exponents from its weights, and all of fused attention."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.differences.changes import (
    Flow,
    OfDifferences,
    Sharing,
    before,
    change,
    changed,
    masked_change,
    midway,
    moving,
)
from dlb_core.kernel.kinds import Attention, AttentionView, Linear, SoftmaxView


def softmax(view: SoftmaxView, r: Tensor, mode: OfDifferences) -> Shares:
    """dy_j = L_j (dx_j - sum_i p_i dx_i): L the logarithmic mean of y at both points, p = L / sum L."""
    call = view.call
    sharing = Sharing(mode, call)
    dx = masked_change(mode, view.x, getattr(before(call), view.name))
    sharing.give(view.name, _exponents(sharing, r, dx, call.output, before(call).output, view.dim))
    return sharing.shares()


def _exponents(sharing: Sharing, r: Tensor, dx: Tensor, now: Tensor, then: Tensor, dim: int) -> Tensor:
    """R of the exponents from R of the weights: a sum, then a linear map; log y is x less its row's constant."""
    p = _logarithmic_mean(now, then)
    p = p / p.sum(dim, keepdim=True)
    mean = Linear(op="", x="x", apply=lambda x, w, call: (p * x).sum(dim, keepdim=True))
    flow = Flow(mean, sharing.call, dx)
    parts = sharing.split(r, {"own": dx, "mean": -flow.output})
    return parts["own"] + sharing.through(parts["mean"].sum(dim, keepdim=True), flow)


def _logarithmic_mean(a: Tensor, b: Tensor) -> Tensor:
    """(a - b) / log(a / b), which lies between them; 0 where one of them is."""
    none = (a <= 0) | (b <= 0)
    near = (a - b).abs() <= 1e-3 * (a + b)  # there by its series, (2 geometric mean + arithmetic mean) / 3
    away = none | near
    steep = (a - b) / torch.where(away, 2.0, a / torch.where(b > 0, b, 1)).log()
    return torch.where(none, 0, torch.where(near, ((a * b).clamp_min(0).sqrt() * 2 + (a + b) / 2) / 3, steep))


def attention(view: AttentionView, r: Tensor, mode: OfDifferences) -> Shares:
    """do = mean P dv + dP mean v; dP through its softmax to the scores, q k^T and an additive mask."""
    row, call, then = view.row, view.call, before(view.call)
    sharing, maps = Sharing(mode, call), _Maps(row, call)
    q, k, v = (midway(getattr(call, name), getattr(then, name)) for name in (row.q, row.k, row.v))
    now, earlier = (_weights(row, at, v) for at in (call, then))
    by_value = Flow(maps.values, call, changed(call, row.v, mode), midway(now, earlier))
    by_weight = Flow(maps.weights, call, change(mode, now, earlier), v)
    parts = sharing.split(r, {"values": by_value.output, "weights": by_weight.output})
    sharing.give(row.v, sharing.through(parts["values"], by_value))
    flows = {
        row.q: Flow(maps.queries, call, changed(call, row.q, mode), k),
        row.k: Flow(maps.keys, call, changed(call, row.k, mode), q),
    }
    terms = {name: flow.output for name, flow in flows.items()}
    if row.mask in moving(call):
        terms[row.mask] = masked_change(mode, getattr(call, row.mask), getattr(then, row.mask)).expand(now.shape)
    dz = torch.stack(list(terms.values())).sum(0)
    scores = _exponents(sharing, sharing.through(parts["weights"], by_weight), dz, now, earlier, -1)
    return sharing.divide(scores, terms, flows)


class _Maps:
    """What attention is made of, each as a linear map in one operand; several heads of q may share those of k and v."""

    def __init__(self, row: Attention, call: Call) -> None:
        q, k = call.shape(row.q), call.shape(row.k)
        self.groups = q[-3] // k[-3] if len(q) > 3 else 1
        scale = None if row.scale is None else row.scale(call)
        factor = q[-1] ** -0.5 if scale is None else scale
        spread, gathered = self._spread, self._gathered
        self.values = row.become(
            Linear,
            x=row.v,
            weight="weights",
            apply=lambda v, p, at: p @ spread(v),
            transpose=lambda s, p, at: gathered(p.mT @ s),
        )
        self.weights = row.become(
            Linear,
            x="weights",
            weight=row.v,
            apply=lambda p, v, at: p @ spread(v),
            transpose=lambda s, v, at: s @ spread(v).mT,
        )
        self.queries = row.become(
            Linear,
            x=row.q,
            weight=row.k,
            apply=lambda q, k, at: factor * q @ spread(k).mT,
            transpose=lambda s, k, at: factor * s @ spread(k),
        )
        self.keys = row.become(
            Linear,
            x=row.k,
            weight=row.q,
            apply=lambda k, q, at: factor * q @ spread(k).mT,
            transpose=lambda s, q, at: gathered(factor * s.mT @ q),
        )

    def _spread(self, x: Tensor) -> Tensor:
        """Keys or values once for each head of queries that reads them."""
        return x if self.groups == 1 else x.repeat_interleave(self.groups, -3)

    def _gathered(self, x: Tensor) -> Tensor:
        return x if self.groups == 1 else x.unflatten(-3, (-1, self.groups)).sum(-3)


def _weights(row: Attention, call: Call, v: Tensor) -> Tensor:
    """The attention weights: what the op makes of unit values."""
    size = v.shape[-2]
    unit = torch.eye(size, dtype=v.dtype, device=v.device).expand(*v.shape[:-2], size, size)
    return row.apply(
        getattr(call, row.q), getattr(call, row.k), unit, getattr(call, row.mask) if row.mask else None, call
    )
