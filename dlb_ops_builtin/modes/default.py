"""`default`: contributions share by magnitude, so that all of the seed arrives at the inputs.

Biases and constant addends get nothing (`bias="redistribute"`) unless `bias="absorb"` asks for their share.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from dlb_core.formulas import Parts, counted_bias, divisor, from_rules, magnitude, portion_of, shared
from dlb_core.rules import BoundMode, Formula, LinearView, Mode, NormaliseView, Shares


def floor(mode: BoundMode, dtype: torch.dtype) -> float:
    """tau, an absolute floor under magnitudes: it decides only where all magnitudes are zero."""
    if mode.tau is not None:
        return float(mode.tau)
    return 1e-150 if dtype is torch.float64 else 1e-18


def size(x: Tensor, mode: BoundMode) -> Tensor:
    """|x| + tau."""
    return x.abs() + floor(mode, x.dtype)


def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
    """n = sum |x||w|; R_x = |x| * T(R / n, |w|); |x| has an absolute floor tau."""
    xa, wa = size(k.x, mode), magnitude(k.weight)
    bias = counted_bias(k, mode)
    amount = None if bias is None else bias.abs()
    s, unreached = portion_of(r, sizes(k, xa, amount, lambda: wa))
    return shared(k, xa * k.transpose(s, wa), s, amount, unreached=unreached)


def sizes(k: LinearView, xa: Tensor, amount: Tensor | None, wa: Callable[[], Tensor | None]) -> tuple[Tensor, Tensor]:
    """sum |x||w| (+ |b|) as a divisor; it is the same for all relevance, so two passes may share it."""

    def add_up() -> tuple[Tensor, Tensor]:
        n = k.apply(xa, wa())
        return divisor(n if amount is None else n + amount)

    found: tuple[Tensor, Tensor] = k.call.once(f"sizes of {k.name}", add_up)
    return found


def addends(terms: Parts, r: Tensor, mode: BoundMode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """R_k = (|x_k| + tau) / sum * R_y."""
    sizes = {n: size(t if isinstance(t, Tensor) else torch.full_like(r, t), mode) for n, t in terms.items()}
    s = r / sum(sizes.values())
    return {name: s * each for name, each in sizes.items()}, {}


def normalise(k: NormaliseView, r: Tensor, mode: BoundMode) -> Shares:
    """R_x = R_y; with absorb the shift takes |b| / (|y - b| + |b|) of it: like a bias, nothing where all is zero."""
    if mode.bias == "redistribute" or (shift := k.shift) is None:
        return Shares({k.name: r})
    mine, theirs = size(k.output - shift, mode), shift.abs()
    s = r / (mine + theirs)
    return Shares({k.name: s * mine}, {k.bias_name: (s * theirs).sum()})


FORMULAS = from_rules(linear, addends, output=False)

DEFAULT = Mode(
    "default",
    {**FORMULAS, "normalise": Formula(normalise, FORMULAS["normalise"].reads)},
    options={"tau": None, "bias": "redistribute"},
    source="magnitude shares, made exactly conserving",
    summary="contributions share by absolute value; biases get nothing, all arrives at the inputs",
)
