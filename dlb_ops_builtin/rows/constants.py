"""Ops that carry no relevance: comparisons, shapes, fresh tensors, arithmetic on sizes."""

from __future__ import annotations

from dlb_core.rules import Row, constant

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "logical_not", "logical_and", "logical_or")
BITS = ("bitwise_not", "bitwise_and", "bitwise_or", "__and__", "__or__", "any", "all")
STEPS = ("floor", "ceil", "round", "trunc", "sign", "argmax", "argmin", "floor_divide", "histc", "bincount")
FRESH = (
    *("zeros", "ones", "full", "empty", "arange", "linspace", "eye", "scalar_tensor", "zeros_like", "ones_like"),
    *("full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty"),
)
SIZES = ("sym_size", "sym_stride", "sym_numel", "sym_storage_offset")
NUMBERS = (
    *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "eq", "ne", "lt", "le", "gt", "ge"),
    *("and_", "or_", "not_"),
)
SYMBOLS = ("sym_min", "sym_max", "sym_not", "sym_float", "sym_int", "sym_ite", "sym_sum", "_sym_sqrt")

ROWS: list[Row] = [
    *(constant(f"aten::{name}") for name in (*COMPARISONS, *BITS, *STEPS, *FRESH, *SIZES)),
    *(constant(f"operator.{name}") for name in NUMBERS),
    *(constant(f"torch.{name}") for name in SYMBOLS),
]
