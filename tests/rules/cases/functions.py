"""Arguments for functions of one number and of two, on the numbers where they are defined."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten

ANYWHERE = (
    *("absolute", "positive", "negative", "frac", "nan_to_num", "deg2rad", "rad2deg", "tan", "sinh", "cosh", "sinc"),
    *("special_bessel_j0", "i0", "special_i0e", "special_i1", "special_i1e", "asinh", "arcsinh", "arctan", "rrelu"),
    *("special_erfcx", "special_ndtr", "special_log_ndtr", "special_expit"),
)
WITHIN_ONE = ("asin", "acos", "atanh", "arcsin", "arccos", "arctanh", "erfinv")
PROBABILITIES = ("logit", "special_logit", "special_ndtri")
POSITIVE = ("special_entr", "lgamma", "digamma")
ABOVE_ONE = ("acosh", "arccosh")


def _two(first: Any, second: Any = None, **more: Any) -> Any:
    """Two operands that broadcast, or one and a number."""

    def make(t: Tensors) -> Arguments:
        one = t.positive(2, 1, 3) if first == "positive" else t(2, 1, 3)
        two = {"positive": lambda: t.positive(4, 1), "any": lambda: t(4, 1)}.get(second, lambda: second)()
        return {"self": one, "other": two, **more}

    return make


def _each(op: Any, make: Any, second: str = "other") -> list[Case]:
    return [Case(op, make, active) for active in (("self", second), ("self",), (second,))]


def _one(op: Any, draw: Any, **more: Any) -> Case:
    return Case(op, lambda t: {"self": draw(t), **more}, ("self",))


def _inside(t: Tensors) -> Tensor:
    return t(2, 3).tanh() * 0.9


def _lerp(weight: Any) -> Any:
    return lambda t: {"self": t(2, 3), "end": t(3), "weight": t.positive(2, 1) - 0.5 if weight is None else weight}


CASES: list[Case] = [
    *(_one(getattr(aten, n).default, lambda t: t(2, 3)) for n in ANYWHERE),
    *(_one(getattr(aten, n).default, _inside) for n in WITHIN_ONE),
    *(_one(getattr(aten, n).default, lambda t: (_inside(t) + 1) / 2) for n in PROBABILITIES),
    *(_one(getattr(aten, n).default, lambda t: t.positive(2, 3)) for n in POSITIVE),
    *(_one(getattr(aten, n).default, lambda t: t.positive(2, 3) + 1) for n in ABOVE_ONE),
    _one(aten.clip.default, lambda t: t(2, 3), min=-0.5, max=0.5),
    Case(aten.polygamma.default, lambda t: {"n": 1, "self": t.positive(2, 3)}, ("self",)),
    _one(aten.mvlgamma.default, lambda t: t.positive(2, 3) + 2, p=2),
    *(_one(op, lambda t: t(2, 3), dim=-1) for op in (aten.special_log_softmax.default, aten.special_softmax.default)),
    _one(aten._log_softmax.default, lambda t: t(2, 3), dim=-1, half_to_float=False),
    _one(aten.float_power.Tensor_Scalar, lambda t: t.positive(2, 3).double(), exponent=3.0),
    Case(aten.float_power.Scalar, lambda t: {"self": 2.0, "exponent": t(2, 3).double()}, ("exponent",)),
    *_each(
        aten.float_power.Tensor_Tensor,
        lambda t: {"self": t.positive(2, 3).double(), "exponent": t(2, 3).double()},
        "exponent",
    ),
    *(case for n in ("remainder", "fmod") for case in _each(getattr(aten, n).Tensor, _two("any", "positive"))),
    *(Case(getattr(aten, n).Scalar, _two("any", 0.7), ("self",)) for n in ("remainder", "fmod")),
    *(case for n in ("atan2", "arctan2") for case in _each(getattr(aten, n).default, _two("any", "positive"))),
    *(Case(op, _two("any", "any"), ("self",)) for op in (aten.copysign.Tensor, aten.ldexp.Tensor)),
    Case(aten.nextafter.default, _two("any", "any"), ("self",)),
    *_each(aten.special_gammainc.default, _two("positive", "positive")),
    *_each(aten.special_gammaincc.default, _two("positive", "positive")),
    Case(aten.special_zeta.other_scalar, lambda t: {"self": t.positive(2, 3) + 1, "other": 2.0}, ("self",)),
    *(case for op in (aten.xlogy.Tensor, aten.special_xlog1py.default) for case in _each(op, _two("any", "positive"))),
    *_each(aten.true_divide.Tensor, _two("any", "positive")),
    *_each(aten.divide.Tensor, _two("any", "positive")),
    *(Case(op, _two("any", -2.0), ("self",)) for op in (aten.true_divide.Scalar, aten.divide.Scalar)),
    *(Case(op, _two("any", -2.0), ("self",)) for op in (aten.multiply.Scalar, aten.subtract.Scalar)),
    *_each(aten.subtract.Tensor, _two("any", "any", alpha=2.0)),
    *_each(aten.rsub.Tensor, _two("any", "any", alpha=2.0)),
    *(
        Case(op, _two("any", "positive", rounding_mode=None), ("self", "other"))
        for op in (aten.div.Tensor_mode, aten.divide.Tensor_mode)
    ),
    *(
        Case(op, _two("any", 2.0, rounding_mode=None), ("self",))
        for op in (aten.div.Scalar_mode, aten.divide.Scalar_mode)
    ),
    *_each(aten.lerp.Scalar, _lerp(0.25), "end"),
    *_each(aten.lerp.Tensor, _lerp(None), "end"),
    *(
        case
        for op in (aten.logaddexp.default, aten.logaddexp2.default, aten.hypot.default)
        for case in _each(op, _two("any", "any"))
    ),
]
