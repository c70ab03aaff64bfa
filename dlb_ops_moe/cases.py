"""Arguments for the rows of this pack, whose ids and offsets nobody could guess: `dlb check moe`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch

from dlb_core.testing import Arguments, Case, Tensors
from dlb_ops_moe.op import expert_linear


def _routed(t: Tensors, *, bias: bool = True, transposed: bool = False) -> Arguments:
    """Two of four experts for each of three tokens: one token has the same twice, one expert has none."""
    index = torch.tensor([[2, 0], [1, 1], [0, 1]], device=t.device)
    weight = t(4, 3, 2) if transposed else t(4, 2, 3)
    biases = {"bias": t(4, 2)} if bias else {}
    return {"x": t(3, 2, 3), "index": index, "weight": weight, **biases, "transposed": transposed}


def _one(t: Tensors) -> Arguments:
    return {"x": t(1, 3), "index": torch.tensor([1], device=t.device), "weight": t(2, 2, 3)}


def _grouped(x: str, weight: str, rows: int, *ends: int) -> Callable[[Tensors], Arguments]:
    """Rows by expert; their widths are whole 16 bytes, also of half precision, without which torch's kernel refuses."""

    def arguments(t: Tensors) -> Arguments:
        offs = torch.tensor(ends, dtype=torch.int32, device=t.device)
        return {x: t(rows, 8), weight: t(len(ends), 8, 8), "offs": offs}

    return arguments


def _grouped_cases(op: Any, x: str, weight: str) -> list[Case]:
    return [
        Case(op, _grouped(x, weight, 5, 2, 2, 5), (x,), "an expert without rows"),
        Case(op, _grouped(x, weight, 3, 1, 3), (x, weight), "made weights"),
        Case(op, _grouped(x, weight, 3, 1, 3), (weight,), "only weights made"),
    ]


def cases() -> list[Case]:
    """Those of every op that is there: transformers' own only where it is installed."""
    ours = torch.ops.dlb_moe.expert_linear.default
    assert expert_linear is not None  # defines it
    found = [
        Case(ours, _one, ("x",), "one row"),
        Case(ours, _routed, ("x",), batch=("x", "index")),
        Case(ours, lambda t: _routed(t, transposed=True), ("x",), "transposed", batch=("x", "index")),
        Case(ours, lambda t: _routed(t, bias=False), ("x",), "no bias", batch=("x", "index")),
        Case(ours, _routed, ("x", "bias"), "made biases"),
        Case(ours, _routed, ("x", "weight", "bias"), "all made"),
        Case(ours, lambda t: _routed(t, transposed=True), ("x", "weight"), "made weights, transposed"),
        Case(ours, _routed, ("weight",), "only weights made"),
    ]
    found += _grouped_cases(torch.ops.aten._grouped_mm.default, "self", "mat2")
    with contextlib.suppress(ImportError):
        import transformers.integrations.moe  # noqa: F401 - defines its op

        op = torch.ops.transformers.grouped_mm_fallback.default
        found += _grouped_cases(op, "input", "weight")
        # torch's own leaves in such rows what it finds in memory, so that one is not the same twice
        found.append(Case(op, _grouped("input", "weight", 5, 1, 3), ("input",), "rows without an expert"))
    return found
