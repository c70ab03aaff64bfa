"""Changes that go through a softmax: its exponents from its weights, and all of fused attention."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.differences.changes import Flow, OfDifferences, Sharing, before, change, changed, midway, moving
from dlb_core.kernel.kinds import Attention, AttentionView, Linear, SoftmaxView


def softmax(view: SoftmaxView, r: Tensor, mode: OfDifferences) -> Shares:
    """dy_j = L_j (dx_j - sum_i p_i dx_i): L the logarithmic mean of y at both points, p = L / sum L."""
    call = view.call
    sharing = Sharing(mode, call)
    dx = changed(call, view.name, mode)
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
    row, call = view.row, view.call
    sharing, then = Sharing(mode, call), before(view.call)
    q, k, v = (midway(getattr(call, name), getattr(then, name)) for name in (row.q, row.k, row.v))
    now, earlier = (_weights(row, at, v) for at in (call, then))
    groups = q.shape[-3] // k.shape[-3] if q.dim() > 3 else 1

    def linear(x: str, apply: object) -> Linear:
        return row.become(Linear, x=x, apply=apply)

    values = Flow(linear(row.v, lambda v, w, at: _attend(row, at, v)), call, changed(call, row.v, mode), both=True)
    weights = Flow(linear("weights", lambda p, v, at: p @ _repeated(v, groups)), call, change(mode, now, earlier), v)
    parts = sharing.split(r, {"values": values.output, "weights": weights.output})
    sharing.give(row.v, sharing.through(parts["values"], values))

    scale = None if row.scale is None else row.scale(call)
    factor = q.shape[-1] ** -0.5 if scale is None else scale
    by_q = linear(row.q, lambda q, k, at: factor * q @ _repeated(k, groups).mT)
    by_k = linear(row.k, lambda k, q, at: factor * q @ _repeated(k, groups).mT)
    flows = {
        row.q: Flow(by_q, call, changed(call, row.q, mode), k),
        row.k: Flow(by_k, call, changed(call, row.k, mode), q),
    }
    terms = {name: flow.output for name, flow in flows.items()}
    if row.mask in moving(call):
        terms[row.mask] = changed(call, row.mask, mode).expand(now.shape)
    dz = torch.stack(list(terms.values())).sum(0)
    scores = _exponents(sharing, sharing.through(parts["weights"], weights), dz, now, earlier, -1)
    return sharing.divide(scores, terms, flows)


def _attend(row: Attention, call: Call, v: Tensor) -> Tensor:
    mask = getattr(call, row.mask) if row.mask else None
    return row.apply(getattr(call, row.q), getattr(call, row.k), v, mask, call)


def _weights(row: Attention, call: Call, v: Tensor) -> Tensor:
    """The attention weights: what the map makes of unit values."""
    size = v.shape[-2]
    return _attend(row, call, torch.eye(size, dtype=v.dtype, device=v.device).expand(*v.shape[:-2], size, size))


def _repeated(x: Tensor, groups: int) -> Tensor:
    """Keys and values that several heads of queries share, once for each."""
    return x if groups == 1 else x.repeat_interleave(groups, -3)
