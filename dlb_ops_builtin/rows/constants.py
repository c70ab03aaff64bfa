"""Ops that carry no relevance: comparisons, shapes, fresh tensors, arithmetic on sizes."""

from __future__ import annotations

from dlb_core.rules import Row, constant

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "isnan", "isinf", "logical_not", "logical_and", "logical_or")
MORE_COMPARISONS = (
    *(
        "isfinite",
        "isposinf",
        "isneginf",
        "isclose",
        "isin",
        "logical_xor",
        "signbit",
    ),
    *("searchsorted", "bucketize", "greater", "greater_equal", "less", "less_equal", "not_equal"),
)
BITS = ("bitwise_not", "bitwise_and", "bitwise_or", "__and__", "__or__", "any", "all")
MORE_BITS = (
    *("bitwise_xor", "__xor__", "bitwise_left_shift", "bitwise_right_shift", "__lshift__", "__rshift__", "gcd", "lcm"),
    "_is_all_true",
    "_is_any_true",
)
STEPS = ("floor", "ceil", "round", "trunc", "sign", "argmax", "argmin", "floor_divide", "histc", "bincount")
MORE_STEPS = (
    *("fix", "sgn", "heaviside", "argsort", "nonzero", "argwhere", "count_nonzero", "one_hot"),
    *("where.default", "_unique2"),
)
FRESH = (
    *("zeros", "ones", "full", "empty", "arange", "linspace", "eye", "scalar_tensor", "zeros_like", "ones_like"),
    *("full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty", "logspace"),
    *("tril_indices", "triu_indices", "fft_fftfreq", "fft_rfftfreq"),
    *("hann_window", "hamming_window", "blackman_window", "bartlett_window", "kaiser_window"),
)
SIZES = ("sym_size", "sym_stride", "sym_numel", "sym_storage_offset", "item")  # numbers of Python
NUMBERS = (
    *("add", "sub", "mul", "floordiv", "truediv", "mod", "neg", "pow", "eq", "ne", "lt", "le", "gt", "ge"),
    *("and_", "or_", "not_"),
)
SYMBOLS = ("sym_min", "sym_max", "sym_not", "sym_float", "sym_int", "sym_ite", "sym_sum", "_sym_sqrt")

ROWS: list[Row] = [
    *(constant(f"aten::{name}") for name in (*COMPARISONS, *MORE_COMPARISONS, *BITS, *MORE_BITS)),
    *(constant(f"aten::{name}") for name in (*STEPS, *MORE_STEPS, *FRESH, *SIZES)),
    *(constant(f"operator.{name}") for name in NUMBERS),
    *(constant(f"torch.{name}") for name in SYMBOLS),
]
