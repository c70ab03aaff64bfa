"""One-to-one ops: activations, arithmetic with one or two operands."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, choice, compound, constant, elementwise, product, sum_

ACTIVATIONS: list[Row] = [
    elementwise("aten::relu"),
    elementwise("aten::relu6"),
    elementwise("aten::leaky_relu"),
    elementwise("aten::elu"),
    elementwise("aten::selu"),
    elementwise("aten::celu"),
    elementwise("aten::gelu"),
    elementwise("aten::silu"),
    elementwise("aten::mish"),
    elementwise("aten::hardswish"),
    elementwise("aten::hardtanh"),
    elementwise("aten::softplus"),
    elementwise("aten::log_sigmoid"),
    elementwise("aten::prelu", x="self"),
    elementwise("aten::threshold"),
    elementwise("aten::hardshrink"),
    elementwise("aten::softshrink"),
    elementwise("aten::tanh"),
    elementwise("aten::sigmoid", tags={"gate"}),
    elementwise("aten::hardsigmoid", tags={"gate"}),
    elementwise("aten::rrelu"),
    elementwise("aten::special_expit", tags={"gate"}),
]

OF_ONE_NUMBER = (
    *("absolute", "positive", "square", "sqrt", "frac", "nan_to_num", "deg2rad", "rad2deg"),
    *("exp", "exp2", "expm1", "log", "log2", "log10", "log1p", "logit", "special_logit", "special_entr"),
    *(
        "sin",
        "cos",
        "tan",
        "sinh",
        "cosh",
        "sinc",
        "special_bessel_j0",
        "i0",
        "special_i0e",
        "special_i1",
        "special_i1e",
    ),
    *("asin", "acos", "atan", "asinh", "acosh", "atanh", "arcsin", "arccos", "arctan", "arcsinh", "arccosh", "arctanh"),
    *("erf", "erfc", "erfinv", "special_erfcx", "special_ndtr", "special_ndtri", "special_log_ndtr"),
    *("lgamma", "digamma", "polygamma", "mvlgamma"),
)

FUNCTIONS: list[Row] = [
    *(elementwise(f"aten::{name}") for name in OF_ONE_NUMBER),
    *(elementwise(f"aten::{name}", tags={"affine"}) for name in ("neg", "negative")),
    *(elementwise(f"aten::{name}", tags={"inverse"}) for name in ("rsqrt", "reciprocal")),
    *(elementwise(f"aten::{name}.Tensor_Scalar", tags={"power"}) for name in ("pow", "float_power")),
    # all to the base while it is active
    *(elementwise(f"aten::{name}.Tensor_Tensor", x=("self", "exponent")) for name in ("pow", "float_power")),
    *(elementwise(f"aten::{name}.Scalar", x="exponent") for name in ("pow", "float_power")),
    *(elementwise(f"aten::{name}.default") for name in ("clamp", "clip", "clamp_min", "clamp_max")),
    # of two numbers: the second sets the scale, the period, the sign or the branch
    *(elementwise(f"aten::{name}", x=("self", "other")) for name in ("remainder", "fmod", "atan2", "arctan2")),
    *(elementwise(f"aten::{name}", x="self") for name in ("copysign", "ldexp.Tensor", "nextafter")),
    *(elementwise(f"aten::{name}", x=("other", "self")) for name in ("special_gammainc", "special_gammaincc")),
    elementwise("aten::special_zeta", x=("self", "other")),
]


def _quotient(op: str) -> Row:
    """A quotient, unless it is rounded: then it is a step."""
    plain = elementwise(op, x=("self", "other"), tags={"quotient"})
    rounded = constant(op)
    return choice(op, ("self", "other"), lambda arguments: rounded if arguments["rounding_mode"] else plain)


def _between(call: Call) -> dict[str, Any]:
    """self + weight * (end - self); the weight only mixes."""
    return {"self": 1 - call.weight, "end": call.weight}


def _beside(self: Tensor, other: Tensor) -> Tensor:
    return torch.stack(torch.broadcast_tensors(self, other))


# reductions of the two
PAIRS: list[Row] = [
    compound("aten::logaddexp", written=lambda self, other: _beside(self, other).logsumexp(0)),
    compound(
        "aten::logaddexp2",
        written=lambda self, other: (_beside(self, other) * math.log(2)).logsumexp(0) / math.log(2),
    ),
    compound("aten::hypot", written=lambda self, other: torch.linalg.vector_norm(_beside(self, other), 2, 0)),
]

ARITHMETIC: list[Row] = [
    sum_("aten::add.Tensor", x=("self", "other"), factors=lambda call: {"other": call.alpha}),
    sum_("aten::add.Scalar", x=("self", "other"), factors=lambda call: {"other": call.alpha}),
    sum_("aten::sub.Tensor", x=("self", "other"), factors=lambda call: {"other": -call.alpha}),
    sum_("aten::sub.Scalar", x=("self", "other"), factors=lambda call: {"other": -call.alpha}),
    sum_("aten::subtract", x=("self", "other"), factors=lambda call: {"other": -call.alpha}),
    sum_("aten::rsub", x=("self", "other"), factors=lambda call: {"self": -call.alpha}),
    sum_("aten::lerp.Scalar", x=("self", "end"), factors=_between),
    sum_("aten::lerp.Tensor", x=("self", "end"), factors=_between, reads=("weight",)),
    product("aten::mul.Tensor", a="self", b="other"),
    product("aten::mul.Scalar", a="self", b="other"),
    product("aten::multiply.Tensor", a="self", b="other"),
    product("aten::multiply.Scalar", a="self", b="other"),
    *(product(f"aten::{name}", a="self", b="other") for name in ("xlogy", "special_xlog1py")),
    *(
        row
        for name in ("div", "divide", "true_divide")
        for row in (
            elementwise(f"aten::{name}.Tensor", x=("self", "other"), tags={"quotient"}),  # all to the numerator
            elementwise(f"aten::{name}.Scalar", tags={"affine"}),
        )
    ),
    *(_quotient(f"aten::{name}_mode") for name in ("div.Tensor", "div.Scalar", "divide.Tensor", "divide.Scalar")),
]

ROWS: list[Row] = [*ACTIVATIONS, *FUNCTIONS, *ARITHMETIC, *PAIRS]
