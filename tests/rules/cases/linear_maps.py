"""Arguments for the linear and bilinear rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten


SAME = {"padding": "same", "dilation": [1], "groups": 2}


def _dense(t: Tensors) -> Arguments:
    return {"input": t(2, 3, 4), "weight": t(5, 4), "bias": t(5)}


def _dense_without_bias(t: Tensors) -> Arguments:
    return {"input": t(4), "weight": t(5, 4)}


def _conv1d(t: Tensors) -> Arguments:
    window = {"stride": [2], "padding": [1], "dilation": [2], "groups": 2}
    return {"input": t(2, 4, 9), "weight": t(6, 2, 3), "bias": t(6), **window}


def _conv2d(t: Tensors) -> Arguments:
    window = {"stride": [1, 2], "padding": [2, 1], "dilation": [2, 1], "groups": 2}
    return {"input": t(2, 4, 5, 6), "weight": t(4, 2, 3, 2), "bias": t(4), **window}


def _conv2d_alone(t: Tensors) -> Arguments:
    return {"input": t(2, 5, 5), "weight": t(3, 2, 3, 3), "bias": t(3), "padding": [1]}


def _conv3d(t: Tensors) -> Arguments:
    return {"input": t(1, 2, 3, 4, 4), "weight": t(3, 2, 2, 2, 3), "bias": t(3), "stride": [2], "padding": [1, 0, 1]}


def _matrices(t: Tensors) -> Arguments:
    return {"self": t(3, 4), "mat2": t(4, 2)}


def _batches(t: Tensors) -> Arguments:
    return {"self": t(2, 3, 4), "mat2": t(2, 4, 2)}


def _heads(t: Tensors) -> Arguments:
    return {"self": t(2, 1, 3, 4), "other": t(3, 4, 2)}


def _vectors(t: Tensors) -> Arguments:
    return {"self": t(4), "other": t(4)}


def _averages(t: Tensors) -> Arguments:
    window = {"kernel_size": [3, 2], "stride": [2, 1], "padding": [1, 1], "ceil_mode": True}
    return {"self": t(2, 3, 6, 5), **window, "count_include_pad": False}


def _transposed1d(t: Tensors) -> Arguments:
    window = {"stride": [3], "padding": [1], "output_padding": [1], "groups": 2, "dilation": [2]}
    return {"input": t(2, 4, 5), "weight": t(4, 3, 3), "bias": t(6), **window}


def _transposed2d(t: Tensors) -> Arguments:
    window = {"stride": [2, 1], "padding": [0, 1], "output_padding": [1, 0], "groups": 2}
    return {"input": t(2, 4, 3, 4), "weight": t(4, 2, 2, 3), "bias": t(4), **window}


def _transposed2d_alone(t: Tensors) -> Arguments:
    return {"input": t(2, 3, 4), "weight": t(2, 3, 2, 2), "bias": t(3), "stride": [2]}


def _transposed3d(t: Tensors) -> Arguments:
    return {"input": t(1, 2, 2, 3, 3), "weight": t(2, 3, 2, 2, 2), "bias": t(3), "stride": [2, 1, 2]}


def _same(dims: int) -> Callable[[Tensors], Arguments]:
    """An even kernel: "same" pads one side more."""
    return lambda t: {"input": t(2, 4, *[5] * dims), "weight": t(4, 2, *[2] * dims), "bias": t(4), **SAME}


def _plus(a: str, b: str, *batch: int, bias: tuple[int, ...], **factors: float) -> Callable[[Tensors], Arguments]:
    return lambda t: {"self": t(*bias), a: t(*batch, 3, 4), b: t(*batch, 4, 2), **factors}


def _pair(first: tuple[int, ...], second: tuple[int, ...], name: str) -> Callable[[Tensors], Arguments]:
    return lambda t: {"self": t(*first), name: t(*second)}


def _contracted(t: Tensors) -> Arguments:
    return {"self": t(2, 3, 4), "other": t(4, 2, 3), "dims_self": [0, 2], "dims_other": [1, 0]}


def _added(bias: tuple[int, ...], a: tuple[Any, ...], b: tuple[Any, ...], **factors: float) -> Any:
    return lambda t: {"self": t(*bias), a[0]: t(*a[1:]), b[0]: t(*b[1:]), **factors}


def _both_and_each(op: object, arguments: object, a: str, b: str) -> list[Case]:
    return [Case(op, arguments, active) for active in ((a, b), (a,), (b,))]


def _sums(equation: str, *shapes: tuple[int, ...]) -> Any:
    return lambda t: {"equation": equation, "tensors": [t(*shape) for shape in shapes]}


CASES: list[Case] = [
    Case(aten.einsum.default, _sums("bij,bjk->bik", (2, 3, 4), (2, 4, 2)), ("tensors.0", "tensors.1")),
    Case(aten.einsum.default, _sums("...ij,kj", (2, 3, 4), (2, 4)), ("tensors.0",)),
    Case(aten.einsum.default, _sums("ij,bj->bi", (3, 4), (2, 4)), ("tensors.1",)),
    Case(aten.einsum.default, _sums("ii->i", (3, 3)), ("tensors.0",), "diagonal"),
    Case(aten.linear.default, _dense, ("input",)),
    Case(aten.linear.default, _dense, ("input", "weight", "bias")),
    Case(aten.linear.default, _dense, ("input", "bias")),
    Case(aten.linear.default, _dense, ("weight",)),
    Case(aten.linear.default, _dense_without_bias, ("input",), "no bias"),
    Case(aten.conv1d.default, _conv1d, ("input",)),
    Case(aten.conv1d.default, _conv1d, ("input", "weight"), "made weights"),
    Case(aten.conv2d.default, _conv2d, ("input",)),
    Case(aten.conv2d.default, _conv2d, ("input", "bias"), "made biases"),
    Case(aten.conv2d.default, _conv2d_alone, ("input",), "no batch"),
    Case(aten.conv3d.default, _conv3d, ("input",)),
    *_both_and_each(aten.matmul.default, _heads, "self", "other"),
    *_both_and_each(aten.matmul.default, _vectors, "self", "other"),
    *_both_and_each(aten.mm.default, _matrices, "self", "mat2"),
    *_both_and_each(aten.bmm.default, _batches, "self", "mat2"),
    Case(aten.mean.dim, lambda t: {"self": t(2, 3, 4), "dim": [0, -1], "keepdim": True}, ("self",)),
    Case(aten.mean.default, lambda t: {"self": t(2, 3)}, ("self",)),
    Case(aten.sum.dim_IntList, lambda t: {"self": t(2, 3, 4), "dim": [-2], "keepdim": False}, ("self",)),
    Case(aten.sum.dim_IntList, lambda t: {"self": t(2, 3), "dim": None}, ("self",), "all"),
    Case(aten.sum.default, lambda t: {"self": t(2, 3)}, ("self",)),
    Case(aten.adaptive_avg_pool2d.default, lambda t: {"self": t(2, 3, 5, 7), "output_size": [2, 3]}, ("self",)),
    Case(aten.avg_pool2d.default, _averages, ("self",)),
    Case(aten.avg_pool2d.default, lambda t: {"self": t(3, 4, 4), "kernel_size": [2], "divisor_override": 3}, ("self",)),
    Case(aten.conv_transpose1d.default, _transposed1d, ("input",)),
    Case(aten.conv_transpose2d.input, _transposed2d, ("input",)),
    Case(aten.conv_transpose2d.input, _transposed2d, ("input", "weight"), "made weights"),
    Case(aten.conv_transpose2d.input, _transposed2d_alone, ("input",), "no batch"),
    Case(aten.conv_transpose3d.input, _transposed3d, ("input",)),
    Case(aten.conv1d.padding, _same(1), ("input",)),
    Case(aten.conv2d.padding, _same(2), ("input",)),
    Case(aten.conv3d.padding, _same(3), ("input",)),
    Case(aten.conv2d.padding, lambda t: {"input": t(2, 5, 5), "weight": t(3, 2, 2, 2)}, ("input",), "no batch"),
    *(
        Case(aten.addmm.default, _plus("mat1", "mat2", bias=bias, beta=-2.0, alpha=0.5), active, str(bias))
        for bias in ((2,), (3, 1))
        for active in (("mat1",), ("mat2",), ("mat1", "mat2"), ("mat1", "mat2", "self"), ("mat1", "self"))
    ),
    *(
        Case(aten.baddbmm.default, _plus("batch1", "batch2", 2, bias=(2, 3, 2), beta=0.5, alpha=-2.0), active)
        for active in (("batch1",), ("batch1", "batch2", "self"))
    ),
    *_both_and_each(aten.mv.default, lambda t: {"self": t(3, 4), "vec": t(4)}, "self", "vec"),
    *(
        case
        for op, first, second, name in (
            (aten.dot.default, (4,), (4,), "tensor"),
            (aten.vdot.default, (4,), (4,), "other"),
            (aten.inner.default, (2, 4), (3, 4), "other"),
            (aten.outer.default, (3,), (4,), "vec2"),
            (aten.ger.default, (3,), (4,), "vec2"),
        )
        for case in _both_and_each(op, _pair(first, second, name), "self", name)
    ),
    *_both_and_each(aten.tensordot.default, _contracted, "self", "other"),
    *(
        Case(op, _added(bias, a, b, beta=0.5, alpha=-2.0), active)
        for op, bias, a, b in (
            (aten.addmv.default, (3,), ("mat", 3, 4), ("vec", 4)),
            (aten.addr.default, (3, 4), ("vec1", 3), ("vec2", 4)),
            (aten.addbmm.default, (3, 2), ("batch1", 2, 3, 4), ("batch2", 2, 4, 2)),
        )
        for active in ((a[0],), (a[0], b[0], "self"))
    ),
    Case(aten.trace.default, lambda t: {"self": t(3, 4)}, ("self",)),
    Case(aten.nansum.default, lambda t: {"self": t(2, 3, 4), "dim": [1], "keepdim": True}, ("self",)),
    Case(aten.nanmean.default, lambda t: {"self": t(2, 3), "dim": None}, ("self",)),
    Case(aten.trapezoid.dx, lambda t: {"y": t(2, 4), "dx": 0.5}, ("y",)),
    Case(aten.cumulative_trapezoid.dx, lambda t: {"y": t(4, 2), "dim": 0}, ("y",)),
    Case(aten.adaptive_avg_pool1d.default, lambda t: {"self": t(2, 3, 7), "output_size": [3]}, ("self",)),
    Case(aten.adaptive_avg_pool3d.default, lambda t: {"self": t(1, 2, 3, 5, 4), "output_size": [2, 3, 1]}, ("self",)),
    Case(aten.avg_pool1d.default, lambda t: {"self": t(2, 3, 7), "kernel_size": [3], "padding": [1]}, ("self",)),
    Case(aten.avg_pool3d.default, lambda t: {"self": t(1, 2, 3, 4, 4), "kernel_size": [2], "stride": [1]}, ("self",)),
    Case(aten.cumsum.default, lambda t: {"self": t(2, 3, 4), "dim": -2}, ("self",)),
    Case(aten.cumsum.default, lambda t: {"self": t(), "dim": 0}, ("self",), "number"),
]
