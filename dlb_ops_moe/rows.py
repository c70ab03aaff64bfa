"""What the ops of routed experts are: linear maps, of which every row of x has one of its own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, fake_tensors, linear
from dlb_ops_moe.op import expert_linear, expert_outer


def _apply(x: Tensor, weight: Any, call: Call) -> Tensor:
    """y[r] = w[index[r]] x[r]."""
    y: Tensor = expert_linear(x, call.index, weight, None, call.transposed)
    return y


def _transpose(s: Tensor, weight: Any, call: Call) -> Tensor:
    """x[r] = w[index[r]]^T s[r]."""
    back: Tensor = expert_linear(s, call.index, weight, None, not call.transposed)
    return back


def _transpose_weight(s: Tensor, x: Any, call: Call) -> Tensor:
    """w[e] = the sum of s[r] x[r]^T over the rows of expert e."""
    back: Tensor = expert_outer(*((x, s) if call.transposed else (s, x)), call.index, call.shape("weight")[0])
    return back


def _bias_at(bias: Tensor, call: Call) -> Tensor:
    """The bias of each row's expert. By index_select: its transpose adds up in the same order every time."""
    return bias.index_select(0, call.index.reshape(-1)).reshape(*call.index.shape, bias.shape[-1])


def _grouped(op: str, x: str, weight: str, **more: Any) -> Row:
    """Rows that lie by expert, `offs[e]` where those of expert e end; rows beyond the last are nobody's."""

    def experts(call: Call) -> tuple[Tensor, Tensor, int]:
        """The expert of every row, which rows have one, and how many experts there are."""
        count, rows = call.shape(weight)[0], torch.arange(call.shape(x)[0], device=call.device)
        index = torch.searchsorted(call.offs.to(rows.dtype), rows, right=True)
        return index.clamp(max=count - 1), (index < count).unsqueeze(-1), count

    def apply(x: Tensor, w: Any, call: Call) -> Tensor:
        index, mine, _ = experts(call)
        return torch.where(mine, expert_linear(x, index, w, None, True), 0)

    def transpose(s: Tensor, w: Any, call: Call) -> Tensor:
        index, mine, _ = experts(call)
        return torch.where(mine, expert_linear(s, index, w, None, False), 0)

    def transpose_weight(s: Tensor, x: Any, call: Call) -> Tensor:
        index, mine, count = experts(call)
        back: Tensor = expert_outer(x, torch.where(mine, s, 0), index, count)
        return back

    maps: dict[str, Any] = {"apply": apply, "transpose": transpose, "transpose_weight": transpose_weight}
    return linear(op, x=x, weight=weight, reads=("offs",), **maps, **more)


def _no_rows_by_expert(arguments: Mapping[str, Any]) -> str | None:
    """Of the forms that torch has, the one that experts are written with."""
    (x,), (weight,) = (fake_tensors(arguments[name]) for name in ("self", "mat2"))
    if x.dim() == 2 and weight.dim() == 3 and arguments.get("offs") is not None:
        return None if arguments.get("bias") is None else "torch itself does not add a bias here"
    forms = f"{x.dim()}-d by {weight.dim()}-d"
    return f"only rows by expert have a rule: self 2-d, mat2 3-d, with offs; this is {forms}"


def _grouped_mm(
    self: Tensor, mat2: Tensor, offs: Tensor, bias: Tensor | None = None, out_dtype: torch.dtype | None = None
) -> Tensor:
    """Torch's own, which leaves what it finds in memory in rows that are nobody's; here they are zero."""
    out = torch._grouped_mm(self, mat2, offs=offs, bias=bias, out_dtype=out_dtype)
    rows = torch.arange(out.shape[0], device=out.device).unsqueeze(-1)
    return out.masked_fill_(rows >= offs[-1], 0)


ROWS: list[Row] = [
    linear(
        "dlb_moe::expert_linear",
        x="x",
        weight="weight",
        bias="bias",
        apply=_apply,
        transpose=_transpose,
        transpose_weight=_transpose_weight,
        bias_at=_bias_at,
        reads=("index",),
    ),
    _grouped(
        "aten::_grouped_mm",
        "self",
        "mat2",
        forward=_grouped_mm,
        refuses=_no_rows_by_expert,
        dtypes=(torch.float32, torch.bfloat16, torch.float16),  # those that torch multiplies
    ),
    _grouped("transformers::grouped_mm_fallback", "input", "weight"),
]
