"""`contrastive`: the default map split into for and against. What flows here is the difference of the two.

A contribution that has the sign of its neuron's value agrees: it hands on both maps. One that has the other sign
exchanges them, so the difference D = R+ - R- changes its sign; D's units that changed sides are the account `crossed`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.formulas import counted_bias, from_rules, inner, magnitude, portion_of, shared, side, surely
from dlb_core.rules import BoundMode, Formula, LinearView, Mode, NormaliseView, Shares, SumView
from dlb_ops_builtin.modes.default import DEFAULT, floor, size, sizes

FAR, NEAR = 1e9, 16.0  # tau is nothing beside 1e9 tau; y - b has lost a digit at most where |b| < 16 n


def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
    """D_x = x * T(sign(y) D / n, w), with the n of `default`; crossed <- D (n - sign(y) sum z) / n."""
    bias = counted_bias(k, mode)
    x, w = k.x, k.weight
    xa, sign = size(x, mode), side(k.output)
    signed = side(x) * xa
    amount = None if bias is None else bias.abs()
    n, nothing = known = sizes(k, xa, amount, lambda: magnitude(w))
    disagree = n - sign * _value(k, n, signed, bias, floor(mode, xa.dtype))  # twice the magnitude of what disagrees
    s, unreached = portion_of(r, known)
    crossed, s = inner(s, disagree.masked_fill(nothing, 0)), sign * s
    return shared(k, signed * k.transpose(s, w), s, bias, crossed=crossed, unreached=unreached)


def _value(k: LinearView, n: Tensor, signed: Tensor, bias: Tensor | None, tau: float) -> Tensor:
    """What the contributions (and a bias that counts) add up to: y, where tau and rounding are surely nothing beside n.

    Else the map is asked again.
    """
    least, other = FAR * tau, None if bias is not None else k.bias
    if surely(n > (least if other is None else least + other.abs() / NEAR)):
        return k.output if other is None else k.output - other
    value = k.apply(signed, k.weight)
    return value if bias is None else value + bias


def sum_(k: SumView, r: Tensor, mode: BoundMode) -> Shares:
    """An addend agrees when it has the sign of the sum of all of them."""
    terms = {n: t if isinstance(t, Tensor) else torch.full_like(r, t) for n, t in k.terms.items()}
    sign = side(sum(terms.values(), torch.zeros_like(r)))
    counted = {n: t for n, t in terms.items() if mode.bias == "absorb" or n in k.receivers}
    sizes = {n: size(t, mode) for n, t in counted.items()}
    s = sign * r / sum(sizes.values())
    signed = {n: side(t) * sizes[n] for n, t in counted.items()}
    crossed = sum((sizes[n] - sign * signed[n] for n in signed), torch.zeros_like(r))
    return Shares({n: k.back(n, s * t) for n, t in signed.items()}, crossed=(sign * s * crossed).sum())


def normalise(k: NormaliseView, r: Tensor, mode: BoundMode) -> Shares:
    """What was scaled and the shift are addends; with redistribute the shift has a sign but no share."""
    if (shift := k.shift) is None:
        return Shares({k.name: r})
    y = k.output
    scaled, sign = y - shift, side(y)
    agrees = sign * side(scaled)
    if mode.bias == "redistribute":
        return Shares({k.name: agrees * r}, crossed=((1 - agrees) * r).sum())
    mine, theirs = size(scaled, mode), shift.abs()
    s = r / (mine + theirs)
    b = sign * side(shift) * theirs
    crossed = s * ((1 - agrees) * mine + theirs - b)
    return Shares({k.name: s * agrees * mine}, {k.bias_name: (s * b).sum(), "crossed": crossed.sum()})


FORMULAS = from_rules(linear, lambda terms, r, mode: ({}, {}))

CONTRASTIVE = Mode(
    "contrastive",
    {
        "linear": FORMULAS["linear"],
        "bilinear": FORMULAS["bilinear"],
        "sum": Formula(sum_, ("x",)),
        "normalise": Formula(normalise, ("output", "bias")),
    },
    options={**DEFAULT.options, "against": "rest"},
    splits="default",
    source="the default map split by agreement of signs",
    summary="two maps, for and against the target; the mapping itself is their difference",
)
