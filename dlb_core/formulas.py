"""What a mode is written with: from its rules for linear maps and for addends to a formula for every kind that asks it.

``Mode("mine", from_rules(linear, addends), options={...})``; the rest of this room is what such rules have in common.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import BoundMode, Formula, LinearView, NormaliseView, Shares, SumView

PIECE = 2**20  # elements of a tensor that is worth being careful with memory

Parts = Mapping[str, Any]
LinearRule = Callable[[LinearView, Tensor, BoundMode], Shares]
#: Addends of the output's shape (or numbers) by name, R, the mode -> relevance by name, units by account.
AddendRule = Callable[[Parts, Tensor, BoundMode], tuple[dict[str, Tensor], dict[str, Tensor]]]


def from_rules(linear: LinearRule, addends: AddendRule, *, output: bool = True) -> dict[str, Formula]:
    """Linear maps by `linear`; bilinear ones half and half by it; sums and a normaliser's shift by `addends`.

    output: does `linear` read what the map gave?
    """
    reads = ("bias", "output") if output else ("bias",)

    def bilinear(k: tuple[LinearView, LinearView], r: Tensor, mode: BoundMode) -> Shares:
        """Half to each operand, each half by the linear formula with the other as weight."""
        a, b = (linear(view, r / 2, mode) for view in k)
        return Shares(merged(a.relevance, b.relevance), merged(a.accounts, b.accounts))

    def sum_(k: SumView, r: Tensor, mode: BoundMode) -> Shares:
        """The addends share; with redistribute those that are constants take no part, and one alone takes all."""
        terms = {n: t for n, t in k.terms.items() if mode.bias == "absorb" or n in k.receivers}
        if len(terms) == 1:
            return Shares({name: k.back(name, r) for name in terms})
        relevance, accounts = addends(terms, r, mode)
        return Shares({name: k.back(name, share) for name, share in relevance.items()}, accounts)

    def normalise(k: NormaliseView, r: Tensor, mode: BoundMode) -> Shares:
        """R_x = R_y; with absorb the shift is an addend."""
        if mode.bias == "redistribute" or (shift := k.shift) is None:
            return Shares({k.name: r})
        terms = {k.name: k.output - shift, k.bias_name: shift}
        relevance, accounts = addends(terms, r, mode)
        return Shares({k.name: relevance[k.name]}, {k.bias_name: relevance[k.bias_name].sum(), **accounts})

    return {
        "linear": Formula(linear, ("x", "weight", *reads)),
        "bilinear": Formula(bilinear, ("a", "b", *reads)),
        "sum": Formula(sum_, ("x",)),
        "normalise": Formula(normalise, lambda mode: ("output", "bias") if mode.bias == "absorb" else ()),
    }


def merged(one: Parts, two: Parts) -> dict[str, Any]:
    """Both, what is in both added up."""
    return {**one, **{name: one[name] + part if name in one else part for name, part in two.items()}}


def total(terms: Parts) -> Any:
    """The sum of all addends."""
    return functools.reduce(operator.add, terms.values())


def counted_bias(k: LinearView, mode: BoundMode) -> Tensor | None:
    """The bias where it takes a share: under absorb, or when it is itself explained."""
    bias = k.bias
    return bias if bias is not None and (mode.bias == "absorb" or k.row.bias in k.receivers) else None


def value(k: LinearView, counted: Tensor | None) -> Tensor:
    """What the contributions that count add up to; without the bias the map is asked again: y - b would cancel."""
    return k.output if counted is not None or k.bias is None else k.apply(k.x, k.weight)


def shared(k: LinearView, rx: Tensor, s: Tensor, bias: Tensor | None, **accounts: Tensor) -> Shares:
    """x's relevance, what s * bias means for the books, and accounts."""
    given, booked = k.bias_shares(s, bias)
    return Shares({k.name: rx, **given}, {**booked, **accounts})


def magnitude(weight: Tensor | None) -> Tensor | None:
    """|w|; fixed weights are not negative."""
    return None if weight is None else weight.abs()


def side(y: Tensor) -> Tensor:
    """1 where y >= 0, -1 elsewhere."""
    return torch.where(y < 0, -1, 1).to(y.dtype)


def share_out(r: Tensor, y: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """s = R / stab(y) with stab(y) = y + eps * sign(y), sign(0) = 1; and what the stabiliser keeps of R."""
    little = torch.full((), eps, dtype=y.dtype, device=y.device)
    if y.numel() <= PIECE or not eager(r):
        signed = torch.copysign(little, y)
        s = r / (y + signed)
        return s, inner(s, signed)
    stabilised = torch.copysign(little, y).add_(y)  # a large y: what is not needed again is written over
    s = torch.div(r, stabilised, out=stabilised) if r.shape == y.shape else r / stabilised
    pieces = zip(s.flatten().split(PIECE), y.expand_as(s).flatten().split(PIECE), strict=True)
    return s, torch.stack([torch.dot(a, torch.copysign(little, b)) for a, b in pieces]).sum()


def inner(r: Tensor, weights: Tensor) -> Tensor:
    """sum(r * weights), without a tensor for the product: a tenth of the time on large ones, many seeds most of all."""
    return torch.dot(r.flatten(), weights.expand_as(r).flatten())


def portion(r: Tensor, n: Tensor) -> tuple[Tensor, Tensor]:
    """s = R / n for n >= 0, and the relevance of outputs that nothing reaches: n = 0, or so faint that R / n overflows.

    n must be the caller's own: it is written to.
    """
    return portion_of(r, divisor(n))


def divisor(n: Tensor) -> tuple[Tensor, Tensor]:
    """n with 1 where nothing reaches, and where that is; n must be the caller's own: it is written to."""
    nothing = faint(n)
    return n.masked_fill_(nothing, 1), nothing


def portion_of(r: Tensor, divisor: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """`portion` by a divisor that is known."""
    n, nothing = divisor
    return r / n, inner(r, nothing.to(r.dtype))


def eager(value: Tensor) -> bool:
    """Is this a plain tensor that holds numbers now, not one of a pass that is traced, compiled or vmapped?"""
    if torch.compiler.is_compiling() or torch._C._functorch.is_functorch_wrapped_tensor(value):
        return False
    return type(value) is Tensor


def surely(holds: Tensor) -> bool:
    """Is it known to hold everywhere without waiting for a device: on a CPU, and not while a pass is traced or vmapped?

    For ways that are shorter where it holds and give the same; where nothing is known, the long way is right.
    """
    return holds.device.type == "cpu" and eager(holds) and bool(holds.all())


def faint(n: Tensor) -> Tensor:
    """Where a sum of magnitudes is zero, or so near to it that dividing by it overflows."""
    return n < 1e8 * torch.finfo(n.dtype).tiny
