"""One-to-one ops: activations, arithmetic with one or two operands."""

from __future__ import annotations

from dlb_core.rules import Row, elementwise, product, sum_

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
    elementwise("aten::log_softmax"),  # ranks its input, as a softmax that weights nothing does
]

FUNCTIONS: list[Row] = [
    elementwise("aten::abs"),
    elementwise("aten::neg", tags={"affine"}),
    elementwise("aten::exp"),
    elementwise("aten::log"),
    elementwise("aten::log2"),
    elementwise("aten::log10"),
    elementwise("aten::log1p"),
    elementwise("aten::exp2"),
    elementwise("aten::expm1"),
    elementwise("aten::erf"),
    elementwise("aten::erfc"),
    elementwise("aten::atan"),
    elementwise("aten::sin"),
    elementwise("aten::cos"),
    elementwise("aten::sqrt"),
    elementwise("aten::square"),
    elementwise("aten::rsqrt", tags={"inverse"}),
    elementwise("aten::reciprocal", tags={"inverse"}),
    elementwise("aten::pow.Tensor_Scalar", tags={"power"}),
    elementwise("aten::pow.Tensor_Tensor", x=("self", "exponent")),  # all to the base while it is active
    elementwise("aten::pow.Scalar", x="exponent"),
    elementwise("aten::clamp.default"),
    elementwise("aten::clamp_min.default"),
    elementwise("aten::clamp_max.default"),
]

ARITHMETIC: list[Row] = [
    sum_("aten::add.Tensor", x=("self", "other"), factors=lambda call: {"other": call.alpha}),
    sum_("aten::add.Scalar", x=("self", "other"), factors=lambda call: {"other": call.alpha}),
    sum_("aten::sub.Tensor", x=("self", "other"), factors=lambda call: {"other": -call.alpha}),
    sum_("aten::sub.Scalar", x=("self", "other"), factors=lambda call: {"other": -call.alpha}),
    sum_("aten::rsub.Scalar", x=("self", "other"), factors=lambda call: {"self": -call.alpha}),
    product("aten::mul.Tensor", a="self", b="other"),
    product("aten::mul.Scalar", a="self", b="other"),
    product("aten::multiply.Tensor", a="self", b="other"),
    elementwise("aten::div.Tensor", x=("self", "other"), tags={"quotient"}),  # all to the numerator
    elementwise("aten::div.Scalar", tags={"affine"}),
]

ROWS: list[Row] = [*ACTIVATIONS, *FUNCTIONS, *ARITHMETIC]
