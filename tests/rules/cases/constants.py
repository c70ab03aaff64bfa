"""A call for every op that carries no relevance: by name, as a function of an active `x` with shape [3]."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch

from .. import vision_ops

vision_ops.register()
aten = torch.ops.aten
Use = Callable[[Any], Any]


def _call(op: Any, *args: Any, **kwargs: Any) -> Use:
    """The op on `args`, in which `X` stands for the active tensor and `N` for its size."""

    def use(x: Any) -> Any:
        def fill(a: Any) -> Any:
            if a is N:
                return aten.sym_size.int(x, 0)
            return x if a is X else [fill(item) for item in a] if isinstance(a, list) else a

        return x.tracer.create_proxy("call_function", op, tuple(map(fill, args)), kwargs)

    return use


X, N = object(), object()
WINDOWS = ("hann", "hamming", "blackman", "bartlett", "kaiser")

COMPARISONS: dict[str, Use] = {
    **{f"aten::{n}": _call(getattr(aten, n).Scalar, X, 0.5) for n in ("eq", "ne", "lt", "le", "gt", "ge")},
    **{f"aten::{n}": _call(getattr(aten, n).default, X) for n in ("isnan", "isinf", "logical_not", "any", "all")},
    **{f"aten::{n}": _call(getattr(aten, n).default, X, X) for n in ("logical_and", "logical_or")},
}
MORE_COMPARISONS: dict[str, Use] = {
    **{f"aten::{n}": _call(getattr(aten, n).default, X) for n in ("isfinite", "isposinf", "isneginf", "signbit")},
    **{f"aten::{n}": _call(getattr(aten, n).default, X, X) for n in ("isclose", "logical_xor")},
    **{
        f"aten::{n}": _call(getattr(aten, n).Scalar, X, 0.5) for n in ("greater", "greater_equal", "less", "less_equal")
    },
    "aten::not_equal": _call(aten.not_equal.Scalar, X, 0.5),
    "aten::isin": _call(aten.isin.Tensor_Tensor, X, X),
    "aten::searchsorted": _call(aten.searchsorted.Tensor, X, X),
    "aten::bucketize": _call(aten.bucketize.Tensor, X, X),
}
STEPS: dict[str, Use] = {
    "aten::special_round": _call(aten.special_round.default, X),
    **{f"aten::{n}": _call(getattr(aten, n).default, X) for n in ("floor", "ceil", "round", "trunc", "sign")},
    **{f"aten::{n}": _call(getattr(aten, n).default, X) for n in ("argmax", "argmin")},
    "aten::floor_divide": _call(aten.floor_divide.default, X, X),
    "aten::histc": _call(aten.histc.default, X, 3),
    **{f"aten::{n}": _call(getattr(aten, n).default, X) for n in ("fix", "sgn", "argsort")},
    "aten::heaviside": _call(aten.heaviside.default, X, X),
    "aten::count_nonzero": _call(aten.count_nonzero.default, X),
}


def _overlapping(op: Any, x: Any) -> Any:
    return _call(op, aten.expand.default(aten.unsqueeze.default(x, 1), [3, 4]), x, 0.5)(x)


SEVERAL: dict[str, Use] = {  # their outputs have another shape, or there are several
    "torchvision::nms": lambda x: _overlapping(torch.ops.torchvision.nms.default, x),
    "aten::nonzero": _call(aten.nonzero.default, X),
    "aten::argwhere": _call(aten.argwhere.default, X),
    "aten::where.default": lambda x: _call(aten.where.default, aten.gt.Scalar(x, 0.0))(x),
    "aten::_unique2": _call(aten._unique2.default, X),
    "aten::tril_indices": _call(aten.tril_indices.default, N, 2),
    "aten::triu_indices": _call(aten.triu_indices.default, N, 2),
}
FRESH: dict[str, Use] = {
    "aten::zeros": _call(aten.zeros.default, [N]),
    "aten::ones": _call(aten.ones.default, [N]),
    "aten::full": _call(aten.full.default, [N], 2.0),
    "aten::empty": _call(aten.empty.memory_format, [N]),
    "aten::arange": _call(aten.arange.default, N),
    "aten::fill.Scalar": _call(aten.fill.Scalar, X, 2.0),
    "aten::zero": _call(aten.zero.default, X),
    "aten::linspace": _call(aten.linspace.default, 0.0, 1.0, N),
    "aten::logspace": _call(aten.logspace.default, 0.0, 1.0, N),
    **{f"aten::{n}_window": _call(getattr(aten, f"{n}_window").default, N) for n in WINDOWS},
    "aten::fft_fftfreq": _call(aten.fft_fftfreq.default, N),
    "aten::fft_rfftfreq": _call(aten.fft_rfftfreq.default, 4),
    "aten::eye": _call(aten.eye.default, N),
    "aten::scalar_tensor": _call(aten.scalar_tensor.default, 2.0),
    **{f"aten::{n}_like": _call(getattr(aten, f"{n}_like").default, X) for n in ("zeros", "ones", "empty")},
    "aten::full_like": _call(aten.full_like.default, X, 2.0),
    **{f"aten::new_{n}": _call(getattr(aten, f"new_{n}").default, X, [N]) for n in ("zeros", "ones", "empty")},
    "aten::new_full": _call(aten.new_full.default, X, [N], 2.0),
}
SIZES: dict[str, Use] = {
    "aten::sym_size": _call(aten.sym_size.int, X, 0),
    "aten::sym_stride": _call(aten.sym_stride.int, X, 0),
    "aten::sym_numel": _call(aten.sym_numel.default, X),
    "aten::sym_storage_offset": _call(aten.sym_storage_offset.default, X),
    "aten::item": lambda x: x.tracer.create_proxy("call_function", aten.item.default, (aten.max.default(x),), {}),
}
TWO_NUMBERS = ("add", "sub", "mul", "floordiv", "truediv", "mod", "pow", "eq", "ne", "lt", "le", "gt", "ge")
NUMBERS: dict[str, Use] = {
    **{f"operator.{n}": _call(getattr(operator, n), N, 2) for n in (*TWO_NUMBERS, "and_", "or_")},
    **{f"operator.{n}": _call(getattr(operator, n), N) for n in ("neg", "not_")},
    **{f"torch.{n}": _call(getattr(torch, n), N, 2) for n in ("sym_min", "sym_max")},
    **{f"torch.{n}": _call(getattr(torch, n), N) for n in ("sym_not", "sym_float", "sym_int")},
    "torch.sym_ite": _call(torch.sym_ite, True, N, 2),
    "torch.sym_sum": _call(torch.sym_sum, [N, N]),
    "torch._sym_sqrt": _call(torch._sym_sqrt, N),  # how a trace spells math.sqrt of a size
}


def _of_integers(op: Any, *more: Any) -> Use:
    """The op on integers made from the active tensor."""
    return lambda x: _call(op, aten._to_copy.default(aten.abs.default(x), dtype=torch.int64), *more)(x)


def _two_integers(op: Any, x: Any) -> Any:
    whole = aten._to_copy.default(aten.abs.default(x), dtype=torch.int64)
    return _call(op, whole, whole)(x)


def _positive(op: Any, x: Any) -> Any:
    return _call(op, aten.gt.Scalar(x, 0.0))(x)


SIDES, QUANTIFIERS = ("left", "right"), ("all", "any")
BITS: dict[str, Use] = {
    "aten::bitwise_not": _of_integers(aten.bitwise_not.default),
    **{f"aten::{n}": _of_integers(getattr(aten, n).Scalar, 3) for n in ("bitwise_and", "bitwise_or")},
    **{f"aten::{n}": _of_integers(getattr(aten, n).Scalar, 3) for n in ("__and__", "__or__")},
    "aten::bincount": _of_integers(aten.bincount.default),
    **{f"aten::{n}": _of_integers(getattr(aten, n).Scalar, 3) for n in ("bitwise_xor", "__xor__")},
    **{f"aten::{n}": _of_integers(getattr(aten, n).Scalar, 3) for n in ("__lshift__", "__rshift__")},
    **{f"aten::bitwise_{n}_shift": _of_integers(getattr(aten, f"bitwise_{n}_shift").Tensor_Scalar, 3) for n in SIDES},
    "aten::one_hot": _of_integers(aten.one_hot.default, 4),
    **{f"aten::{n}": lambda x, n=n: _two_integers(getattr(aten, n).default, x) for n in ("gcd", "lcm")},
    **{f"aten::_is_{n}_true": lambda x, n=n: _positive(getattr(aten, f"_is_{n}_true").default, x) for n in QUANTIFIERS},
}
CALLS: dict[str, Use] = {
    **{**COMPARISONS, **MORE_COMPARISONS, **STEPS, **FRESH, **SIZES, **NUMBERS, **BITS},
    **SEVERAL,
}
