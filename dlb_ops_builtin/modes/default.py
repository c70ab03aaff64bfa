"""`default`: contributions share by magnitude, so that all of the seed arrives at the inputs.

Biases and constant addends get nothing (`bias="redistribute"`) unless `bias="absorb"` asks for their share.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import BoundMode, LinearView, Mode, NormaliseView, Shares, SumView, formula


def _tau(mode: BoundMode, dtype: torch.dtype) -> float:
    """An absolute floor under magnitudes: it decides only where all magnitudes are zero."""
    if mode.tau is not None:
        return float(mode.tau)
    return 1e-150 if dtype is torch.float64 else 1e-18


def _magnitude(x: Tensor, mode: BoundMode) -> Tensor:
    return x.abs() + _tau(mode, x.dtype)


def _portion(r: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """s = R / n, and the relevance of outputs that no weight reaches: n = 0, or so faint that R / n overflows."""
    nothing = n < 1e8 * torch.finfo(n.dtype).tiny
    unreached = (r * nothing).sum()
    return r / n.masked_fill_(nothing, 1), unreached  # n is ours: it was just computed


def _linear(v: LinearView, r: Tensor, mode: BoundMode) -> tuple[Tensor, dict[str, Tensor], dict[str, Tensor]]:
    """x's relevance, the bias's relevance or account, and `unreached`."""
    xa = _magnitude(v.x, mode)
    wa = None if v.weight is None else v.weight.abs()
    n = v.apply(xa, wa)
    bias = v.bias
    given: dict[str, Tensor] = {}
    booked: dict[str, Tensor] = {}
    counted = bias is not None and (mode.bias == "absorb" or v.row.bias in v.receivers)
    if bias is not None and counted:
        n = n + bias.abs()
    s, unreached = _portion(r, n)
    if bias is not None and counted:
        given, booked = v.bias_shares(s, bias.abs())
    return xa * v.transpose(s, wa), given, {**booked, "unreached": unreached}


@formula(reads=("x", "weight", "bias"))
def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
    """n = sum |x||w|; R_x = |x| * T(R / n, |w|); |x| has an absolute floor tau."""
    rx, given, booked = _linear(k, r, mode)
    return Shares({k.name: rx, **given}, booked)


@formula(reads=("a", "b", "bias"))
def bilinear(k: tuple[LinearView, LinearView], r: Tensor, mode: BoundMode) -> Shares:
    """Half to each operand, each half by the linear formula with the other as weight."""
    relevance: dict[str, Any] = {}
    accounts: dict[str, Tensor] = {}
    for view in k:
        rx, given, booked = _linear(view, r / 2, mode)
        for name, share in {view.name: rx, **given}.items():
            relevance[name] = relevance[name] + share if name in relevance else share
        for name, amount in booked.items():
            accounts[name] = accounts[name] + amount if name in accounts else amount
    return Shares(relevance, accounts)


@formula(reads=("x",))
def sum_(k: SumView, r: Tensor, mode: BoundMode) -> Shares:
    """R_k = (|x_k| + tau) / sum * R_y over the operands that count."""
    counted = {n: t for n, t in k.terms.items() if mode.bias == "absorb" or n in k.receivers}
    if len(counted) == 1:
        return Shares({name: k.back(name, r) for name in counted})
    sizes = {n: _magnitude(t if isinstance(t, Tensor) else torch.full_like(r, t), mode) for n, t in counted.items()}
    s = r / sum(sizes.values())
    return Shares({name: k.back(name, s * size) for name, size in sizes.items()})


@formula(reads=lambda mode: ("output", "bias") if mode.bias == "absorb" else ())
def normalise(k: NormaliseView, r: Tensor, mode: BoundMode) -> Shares:
    """R_x = R_y; with absorb the shift takes |b| / (|y - b| + |b|) of it."""
    if mode.bias == "redistribute" or (shift := k.shift) is None:
        return Shares({k.name: r})
    size, shift = _magnitude(k.output - shift, mode), shift.abs()
    s = r / (size + shift)
    return Shares({k.name: s * size}, {k.bias_name: (s * shift).sum()})


DEFAULT = Mode(
    "default",
    {"linear": linear, "bilinear": bilinear, "sum": sum_, "normalise": normalise},
    options={"tau": None, "bias": "redistribute"},
    source="magnitude shares, made exactly conserving",
    summary="contributions share by absolute value; biases get nothing, all arrives at the inputs",
)
