"""`epsilon`: signed shares z / stab(y) (Bach et al. 2015). Every sink is named."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import BoundMode, LinearView, Mode, NormaliseView, Shares, SumView, formula


def share_out(r: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """s = R / stab(y) with stab(y) = y + eps * sign(y), sign(0) = 1; and what the stabiliser keeps of R."""
    stabilised = torch.copysign(torch.full((), eps, dtype=y.dtype, device=y.device), y).add_(y)
    s = r / stabilised
    del stabilised
    return s, eps * (s.sum() - 2 * torch.where(torch.signbit(y), s, 0).sum())


@formula(reads=("x", "weight", "bias", "output"))
def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
    """s = R / stab(y); R_x = x * T(s, w); bias <- s * b (redistribute: s = R / stab(y - b))."""
    bias = k.bias
    counted = bias is not None and (mode.bias == "absorb" or k.row.bias in k.receivers)
    y = k.output if counted or bias is None else k.apply(k.x, k.weight)  # output - bias would cancel
    s, stabiliser = share_out(r, y, mode.eps)
    given, booked = k.bias_shares(s, bias if counted else None)
    return Shares({k.name: k.x * k.transpose(s, k.weight), **given}, booked, stabiliser=stabiliser)


@formula(reads=("a", "b", "bias", "output"))
def bilinear(k: tuple[LinearView, LinearView], r: Tensor, mode: BoundMode) -> Shares:
    """Half to each operand, each half by the linear formula with the other as weight."""
    a, b = k
    bias = a.bias
    counted = bias is not None and (mode.bias == "absorb" or a.row.bias in a.receivers)
    y = a.output if counted or bias is None else a.apply(a.x, a.weight)
    s, stabiliser = share_out(r, y, mode.eps)
    given, booked = a.bias_shares(s, bias if counted else None)
    halves = {v.name: v.x * v.transpose(s, v.weight) / 2 for v in (a, b)}
    return Shares({**halves, **given}, booked, stabiliser=stabiliser)


@formula(reads=("x",))
def sum_(k: SumView, r: Tensor, mode: BoundMode) -> Shares:
    """R_k = x_k / stab(y) * R_y; with redistribute the constant addends are left out of y."""
    terms: dict[str, Any] = k.terms
    if mode.bias == "redistribute":
        terms = {name: term for name, term in terms.items() if name in k.receivers}
    if len(terms) == 1:
        return Shares({name: k.back(name, r) for name in terms})
    s, stabiliser = share_out(r, sum(terms.values()), mode.eps)
    return Shares({name: k.back(name, s * term) for name, term in terms.items()}, stabiliser=stabiliser)


@formula(reads=lambda mode: ("output", "bias") if mode.bias == "absorb" else ())
def normalise(k: NormaliseView, r: Tensor, mode: BoundMode) -> Shares:
    """R_x = R_y (y - b) / stab(y); bias <- R_y b / stab(y); with redistribute R_x = R_y."""
    if mode.bias == "redistribute" or (shift := k.shift) is None:
        return Shares({k.name: r})
    y = k.output
    s, stabiliser = share_out(r, y, mode.eps)
    return Shares({k.name: s * (y - shift)}, {k.bias_name: (s * shift).sum()}, stabiliser=stabiliser)


EPSILON = Mode(
    "epsilon",
    {"linear": linear, "bilinear": bilinear, "sum": sum_, "normalise": normalise},
    options={"eps": 1e-6, "bias": "absorb"},
    source="Bach et al. 2015, doi:10.1371/journal.pone.0130140",
    summary="signed shares z / stab(y); biases and constants take theirs",
)
