"""What the ops of routed experts are."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlb_core.rules import Call, Row, linear
from dlb_ops_moe.op import expert_linear


def _apply(x: Tensor, weight: Any, call: Call) -> Tensor:
    out: Tensor = expert_linear(x, call.index, weight, None, call.transposed)
    return out


def _transpose(s: Tensor, weight: Any, call: Call) -> Tensor:
    out: Tensor = expert_linear(s, call.index, weight, None, not call.transposed)
    return out


ROWS: list[Row] = [
    linear(
        "dlb_moe::expert_linear",
        x="x",
        weight="weight",
        bias="bias",
        apply=_apply,
        transpose=_transpose,
        reads=("index",),
    ),
]
