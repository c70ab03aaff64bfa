"""`gamma`: the side of y's sign is favoured (Montavon et al. 2019, for inputs of both signs)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from dlb_core.formulas import (
    Parts,
    counted_bias,
    from_rules,
    magnitude,
    merged,
    share_out,
    shared,
    side,
    total,
    value,
)
from dlb_core.rules import BoundMode, LinearView, Mode, Shares

# With z+ = (|z| + z) / 2 and z- = (z - |z|) / 2 the favoured contributions are
# z + gamma z+ = (1 + gamma/2) z + gamma/2 |z| for y >= 0, and the same with a minus for y < 0: two transposes.


def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
    """y >= 0: (z + gamma z+) / (y + gamma (P + b+)); y < 0: (z + gamma z-) / (y - gamma (N + |b-|))."""
    bias, half = counted_bias(k, mode), mode.gamma / 2
    xa, wa = k.x.abs(), magnitude(k.weight)
    y, sizes = value(k, bias), k.apply(xa, wa)
    if bias is not None:
        sizes = sizes + bias.abs()
    sign = side(y)
    s, stabiliser = share_out(r, (1 + half) * y + half * sign * sizes, mode.eps)
    favoured = sign * s
    rx = (1 + half) * k.x * k.transpose(s, k.weight) + half * xa * k.transpose(favoured, wa)
    if bias is None:
        return shared(k, rx, s, None, stabiliser=stabiliser)
    plain, extra = k.bias_shares(s, (1 + half) * bias), k.bias_shares(favoured, half * bias.abs())
    given, booked = (merged(one, two) for one, two in zip(plain, extra, strict=True))
    return Shares({k.name: rx, **given}, {**booked, "stabiliser": stabiliser})


def addends(terms: Parts, r: Tensor, mode: BoundMode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The same of the addends themselves."""
    half = mode.gamma / 2
    y = total(terms)
    sign = side(y)
    favoured = {name: (1 + half) * term + half * sign * abs(term) for name, term in terms.items()}
    s, stabiliser = share_out(r, total(favoured), mode.eps)
    return {name: s * term for name, term in favoured.items()}, {"stabiliser": stabiliser}


def _check(options: Mapping[str, Any]) -> None:
    gamma = options["gamma"]
    if not (isinstance(gamma, (int, float)) and 0 <= gamma < float("inf")):
        raise ValueError(f"gamma={gamma!r}: must be a finite number, 0 (that is epsilon) or more")


GAMMA = Mode(
    "gamma",
    from_rules(linear, addends),
    options={"gamma": 0.25, "eps": 1e-6, "bias": "absorb"},
    check=_check,
    source="Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10",
    summary="epsilon that favours contributions of the output's sign by gamma",
)
