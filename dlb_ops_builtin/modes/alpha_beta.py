"""`alpha-beta` and `z-plus`: positive and negative contributions share apart (Bach et al. 2015)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlb_core.choices import choose
from dlb_core.formulas import (
    Parts,
    counted_bias,
    faint,
    from_rules,
    magnitude,
    merged,
    portion,
    shared,
    surely,
    value,
)
from dlb_core.rules import BoundMode, LinearView, Mode, Shares

EMPTY = ("other", "account")
Weigh = Callable[[BoundMode], tuple[float, float]]  # alpha and beta


def _split(
    r: Tensor, up: Tensor, down: Tensor, mode: BoundMode, weigh: Weigh
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """R / P for the positive side and R / N for the negative one, each times its factor; what has no side is booked.

    An empty side's units go to the other one, or into the account `empty-side`.
    """
    alpha, beta = weigh(mode)
    no_up, no_down = faint(up), faint(down)
    if mode.empty == "other":
        to_up = torch.where(no_up, 0, torch.where(no_down, 1, alpha).to(r.dtype))
        to_down = torch.where(no_down, 0, torch.where(no_up, 1, -beta).to(r.dtype))
        booked = {"unreached": (r * (no_up & no_down)).sum()}
    else:
        to_up, to_down = torch.where(no_up, 0, alpha).to(r.dtype), torch.where(no_down, 0, -beta).to(r.dtype)
        booked = {"empty-side": (r * (alpha * no_up - beta * no_down)).sum()}
    return to_up * r / torch.where(no_up, 1, up), to_down * r / torch.where(no_down, 1, down), booked


#: A side that is a smaller part of all magnitudes is added up by itself: as a difference it would have lost digits.
LEAST = 1e-2


class _Sides:
    """A linear map's contributions by sign; a half of x that has surely nothing in it is left out."""

    def __init__(self, k: LinearView, positive: Tensor | None, negative: Tensor | None) -> None:
        self.k = k
        x = k.x
        self.mixed = not surely(x >= 0)
        self.more: Tensor = x.clamp(min=0) if self.mixed else x
        self.less: Tensor | None = x.clamp(max=0) if self.mixed else None
        self.positive, self.negative = positive, negative
        self.signed = negative is not None

    def sums(self, y: Tensor, bias: Tensor | None, both: bool) -> tuple[Tensor, Tensor]:
        """P + b+ and N + |b-|; unless `both`, the second only where the first is zero.

        One product gives them where x has both signs: they add up to the sum of magnitudes and differ by y.
        """
        if self.mixed and self.signed:
            size = _with(self.k.apply(self.k.x.abs(), magnitude(self.k.weight)), None if bias is None else bias.abs())
            up, down = (size + y) / 2, (size - y) / 2
            if surely(up > LEAST * size) and (not both or surely(down > LEAST * size)):
                return up, down if both else torch.zeros_like(up)
        up = _with(self._through(self.more, self.less, y), None if bias is None else bias.clamp(min=0))
        if not both:
            return up, torch.where(faint(up), -y, 0).clamp_(min=0)
        return up, _with(-self._through(self.less, self.more, y), None if bias is None else -bias.clamp(max=0))

    def _through(self, first: Tensor | None, second: Tensor | None, y: Tensor) -> Tensor:
        """`first` by the positive weights and `second` by the negative ones, in the shape of y."""
        through = [] if first is None else [self.k.apply(first, self.positive)]
        if second is not None and self.signed:
            through.append(self.k.apply(second, self.negative))
        return sum(through[1:], through[0]) if through else torch.zeros_like(y)

    def agreeing(self, s: Tensor) -> Tensor:
        """What s gives to contributions that are positive."""
        return self._back(s, self.more, self.less)

    def opposing(self, s: Tensor) -> Tensor:
        """What s gives to contributions that are negative, with their sign."""
        return self._back(s, self.less, self.more)

    def _back(self, s: Tensor, first: Tensor | None, second: Tensor | None) -> Tensor:
        back = [] if first is None else [first * self.k.transpose(s, self.positive)]
        if second is not None and self.signed:
            back.append(second * self.k.transpose(s, self.negative))
        return sum(back[1:], back[0]) if back else torch.zeros_like(self.more)


def _with(amount: Tensor, more: Tensor | None) -> Tensor:
    return amount if more is None else amount + more


def _formulas(weigh: Weigh) -> dict[str, Any]:
    def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
        """alpha z+ / (P + b+) - beta |z-| / (N + |b-|)."""
        bias, halves = counted_bias(k, mode), k.halves
        if halves is None:
            return _by_magnitude(k, r, bias)
        both = weigh(mode)[1] != 0
        sides = _Sides(k, *halves)
        su, sd, booked = _split(r, *sides.sums(value(k, bias), bias, both), mode, weigh)
        rx = sides.agreeing(su)
        if both:
            rx = rx - sides.opposing(sd)
        elif not surely(sd == 0):  # a side alone is all that there is: z itself, of one sign
            rx = rx - k.x * k.transpose(sd, k.weight)
        if bias is None:
            return Shares({k.name: rx}, booked)
        for_it, against = k.bias_shares(su, bias.clamp(min=0)), k.bias_shares(sd, -bias.clamp(max=0))
        given, account = (merged(one, two) for one, two in zip(for_it, against, strict=True))
        return Shares({k.name: rx, **given}, {**account, **booked})

    def addends(terms: Parts, r: Tensor, mode: BoundMode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The same of the addends themselves."""
        full = {n: t if isinstance(t, Tensor) else torch.full_like(r, t) for n, t in terms.items()}
        zero = torch.zeros_like(r)
        up = sum((t.clamp(min=0) for t in full.values()), zero)
        down = sum((-t.clamp(max=0) for t in full.values()), zero)
        su, sd, booked = _split(r, up, down, mode, weigh)
        return {name: su * t.clamp(min=0) - sd * t.clamp(max=0) for name, t in full.items()}, booked

    return from_rules(linear, addends)


def _by_magnitude(k: LinearView, r: Tensor, bias: Tensor | None) -> Shares:
    """Where weights have no halves to take: alpha - beta = 1 unit, shared by magnitude."""
    xa, wa = k.x.abs(), magnitude(k.weight)
    amount = None if bias is None else bias.abs()
    n = k.apply(xa, wa) if amount is None else k.apply(xa, wa) + amount
    s, unreached = portion(r, n)
    return shared(k, xa * k.transpose(s, wa), s, amount, unreached=unreached)


def _check(options: Mapping[str, Any]) -> None:
    choose("empty", options["empty"], EMPTY)
    if "alpha" not in options:
        return
    alpha, beta = options["alpha"], options["beta"]
    numbers = all(isinstance(v, (int, float)) and v >= 0 for v in (alpha, beta))
    if not numbers or abs(alpha - beta - 1) > 1e-9:
        raise ValueError(f"alpha={alpha!r}, beta={beta!r}: both 0 or more with alpha - beta = 1, e.g. alpha=2, beta=1")


BACH = "Bach et al. 2015, doi:10.1371/journal.pone.0130140"
ALPHA_BETA = Mode(
    "alpha-beta",
    _formulas(lambda mode: (mode.alpha, mode.beta)),
    options={"alpha": 2.0, "beta": 1.0, "empty": "other", "bias": "absorb"},
    check=_check,
    source=BACH,
    summary="alpha times the positive contributions' share less beta times the negative ones', alpha - beta = 1",
)
Z_PLUS = Mode(
    "z-plus",
    _formulas(lambda mode: (1.0, 0.0)),
    options={"empty": "other", "bias": "absorb"},
    check=_check,
    source=BACH,
    summary="positive contributions share (alpha-beta with alpha = 1)",
)
