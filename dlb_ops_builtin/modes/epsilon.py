"""`epsilon`: signed shares z / stab(y) (Bach et al. 2015). Every sink is named."""

from __future__ import annotations

from torch import Tensor

from dlb_core.formulas import Parts, counted_bias, from_rules, share_out, shared, total, value
from dlb_core.rules import BoundMode, LinearView, Mode, Shares, formula


def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
    """s = R / stab(y); R_x = x * T(s, w); bias <- s * b (redistribute: s = R / stab(y - b))."""
    bias = counted_bias(k, mode)
    s, stabiliser = share_out(r, value(k, bias), mode.eps)
    return shared(k, k.x * k.transpose(s, k.weight), s, bias, stabiliser=stabiliser)


@formula(reads=("a", "b", "bias", "output"))
def bilinear(k: tuple[LinearView, LinearView], r: Tensor, mode: BoundMode) -> Shares:
    """Half to each operand, each half by the linear formula with the other as weight; both halves have one s."""
    a, b = k
    bias = counted_bias(a, mode)
    s, stabiliser = share_out(r, value(a, bias), mode.eps)
    halves = {v.name: v.x * v.transpose(s, v.weight) / 2 for v in (a, b)}
    given, booked = a.bias_shares(s, bias)
    return Shares({**halves, **given}, booked, stabiliser=stabiliser)


def addends(terms: Parts, r: Tensor, mode: BoundMode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """R_k = x_k / stab(y) * R_y."""
    s, stabiliser = share_out(r, total(terms), mode.eps)
    return {name: s * term for name, term in terms.items()}, {"stabiliser": stabiliser}


FORMULAS = {**from_rules(linear, addends), "bilinear": bilinear}

EPSILON = Mode(
    "epsilon",
    FORMULAS,
    options={"eps": 1e-6, "bias": "absorb"},
    suits=("tabular",),
    source="Bach et al. 2015, doi:10.1371/journal.pone.0130140",
    summary="signed shares z / stab(y); biases and constants take theirs",
)

CP_LRP = Mode(
    "cp-lrp",
    FORMULAS,
    options={"eps": 1e-6, "bias": "absorb"},
    source="Ali et al. 2022, arXiv:2202.07304",
    summary="epsilon with attention weights, gates and normalisers' statistics as constants",
)
