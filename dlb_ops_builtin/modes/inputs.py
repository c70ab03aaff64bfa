"""Rules for input layers: `w-square`, `flat` and `z-box`. Asked for as a whole they run there, epsilon beyond."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlb_core.formulas import Parts, counted_bias, from_rules, magnitude, portion, share_out, shared
from dlb_core.rules import BoundMode, LinearView, Mode, Shares
from dlb_ops_builtin.modes import epsilon


def _by_weights(of: Callable[[LinearView], Tensor | None], square: bool) -> Callable[..., Shares]:
    def linear(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
        """Every input counts for what its weight says, whatever its value; R_x = T(R / n, c)."""
        counts = of(k)
        bias = counted_bias(k, mode)
        amount = None if bias is None else bias.square() if square else (bias != 0).to(bias.dtype)
        n = k.apply(torch.ones_like(k.x), counts)
        s, unreached = portion(r, n if amount is None else n + amount)
        return shared(k, k.transpose(s, counts), s, amount, unreached=unreached)

    return linear


def _squared(k: LinearView) -> Tensor | None:
    weight = k.weight
    return None if weight is None else weight.square()


def _equal(terms: Parts, r: Tensor, mode: BoundMode) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """An addend's weight is 1: all get the same."""
    return {name: r / len(terms) for name in terms}, {}


def _boxed(k: LinearView, r: Tensor, mode: BoundMode) -> Shares:
    """x w - low w+ - high w- in place of z, all of one sign for x within its bounds.

    With the middle m and the half-width d of the box it is (x - m) w + d |w|: two transposes.
    """
    x, w, wa = k.x, k.weight, magnitude(k.weight)
    low, high = (_bound(name, getattr(mode, name), x) for name in ("low", "high"))
    above, width = x - (low + high) / 2, (high - low) / 2
    bias = counted_bias(k, mode)
    n = k.apply(above, w) + k.apply(width, wa)
    s, stabiliser = share_out(r, n if bias is None else n + bias, mode.eps)
    return shared(k, above * k.transpose(s, w) + width * k.transpose(s, wa), s, bias, stabiliser=stabiliser)


def _bound(name: str, value: Any, x: Tensor) -> Tensor:
    bound = torch.as_tensor(value, dtype=x.dtype, device=x.device)
    try:
        return bound.expand(x.shape)
    except RuntimeError:
        raise ValueError(
            f"{name}= of shape {list(bound.shape)} does not fit what the layer reads, {list(x.shape)}"
        ) from None


def _check_box(options: Mapping[str, Any]) -> None:
    low, high = options["low"], options["high"]
    if low is None or high is None:
        raise ValueError("z-box needs the bounds of the input: low= and high=, numbers or tensors that broadcast to it")
    if not bool((torch.as_tensor(low) <= torch.as_tensor(high)).all()):
        raise ValueError("z-box needs low <= high everywhere")


W_SQUARE = Mode(
    "w-square",
    from_rules(_by_weights(_squared, square=True), _equal, output=False),
    options={"bias": "redistribute"},
    elsewhere="epsilon",
    source="Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008",
    summary="an input layer shares by squared weights, whatever the input's values; epsilon elsewhere",
)
FLAT = Mode(
    "flat",
    from_rules(_by_weights(lambda k: k.connections, square=False), _equal, output=False),
    options={"bias": "redistribute"},
    elsewhere="epsilon",
    source="Lapuschkin et al. 2019, doi:10.1038/s41467-019-08987-4",
    summary="an input layer shares equally over what it is connected to; epsilon elsewhere",
)
Z_BOX = Mode(
    "z-box",
    from_rules(_boxed, epsilon.addends, output=False),
    options={"low": None, "high": None, "eps": 1e-6, "bias": "redistribute"},
    check=_check_box,
    elsewhere="epsilon",
    example={"low": -3.0, "high": 3.0},
    source="Montavon et al. 2017, doi:10.1016/j.patcog.2016.11.008",
    summary="an input layer shares by x w - low w+ - high w-, for inputs within low .. high; epsilon elsewhere",
)
