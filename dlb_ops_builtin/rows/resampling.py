"""Pooling by averages, running sums and interpolation: fixed weights that are not negative."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, linear

aten = torch.ops.aten


def _adaptive(dims: int) -> Row:
    pool = getattr(aten, f"adaptive_avg_pool{dims}d").default
    return linear(f"aten::adaptive_avg_pool{dims}d", x="self", apply=lambda x, w, call: pool(x, call.output_size))


def _average(dims: int) -> Row:
    pool = getattr(aten, f"avg_pool{dims}d").default

    def apply(x: Tensor, w: None, call: Call) -> Tensor:
        window = (call.kernel_size, call.stride, call.padding, call.ceil_mode, call.count_include_pad)
        y: Tensor = pool(x, *window) if dims == 1 else pool(x, *window, call.divisor_override)
        return y

    return linear(f"aten::avg_pool{dims}d", x="self", apply=apply)


def _between(name: str) -> Row:
    """Each output lies between its neighbours."""
    up = getattr(aten, name).vec

    def apply(x: Tensor, w: None, call: Call) -> Tensor:
        y: Tensor = up(x, call.output_size, call.align_corners, call.scale_factors)
        return y

    return linear(f"aten::{name}.vec", x="input", apply=apply)


def _running_sum(x: Tensor, w: None, call: Call) -> Tensor:
    return x.cumsum(call.dim)


def _running_sum_back(s: Tensor, w: None, call: Call) -> Tensor:
    return s.flip(call.dim).cumsum(call.dim).flip(call.dim)


ROWS: list[Row] = [
    *(_adaptive(dims) for dims in (1, 2, 3)),
    *(_average(dims) for dims in (1, 2, 3)),
    *(_between(name) for name in ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d")),
    linear("aten::cumsum", x="self", apply=_running_sum, transpose=_running_sum_back),
]
