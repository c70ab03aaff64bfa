"""Arguments for the moves."""

from __future__ import annotations

import operator
from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten


def _with(*shape: int, **more: Any) -> Any:
    return lambda t: {"self": t.distinct(*shape), **more}


def _viewable(*shape: int, **more: Any) -> Any:
    return lambda t: {"self": t.distinct(*shape).contiguous(), **more}


def _listed(*shapes: tuple[int, ...], **more: Any) -> Any:
    return lambda t: {"tensors": [t.distinct(*shape) for shape in shapes], **more}


def _chosen(t: Tensors) -> Arguments:
    return {"condition": t.mask(4, 1, 3), "self": t.distinct(2, 3), "other": t.distinct(4, 2, 1)}


def _filled(t: Tensors) -> Arguments:
    return {"self": t.distinct(2, 3, 4), "mask": t.mask(3, 1), "value": -5.0}


def _gathered(t: Tensors) -> Arguments:
    return {"self": t.distinct(3, 4), "dim": -1, "index": t.ids(4, 2, 6)}


def _beside(*shape: int, other: tuple[int, ...]) -> Any:
    return lambda t: {"self": t.distinct(*shape), "other": t.distinct(*other)}


def _scalar_side(name: str) -> Any:
    other = "self" if name == "other" else "other"
    return lambda t: {"condition": t.mask(2, 3), name: -5.0, other: t.distinct(2, 3)}


def _filled_by_tensor(t: Tensors) -> Arguments:
    return {"self": t.distinct(2, 3, 4), "mask": t.mask(3, 1), "value": t.distinct()}


POOL = {"kernel_size": [3, 2], "stride": [2, 2], "padding": [1, 1], "dilation": [1, 2], "ceil_mode": True}
SAME = [aten.clone, aten.alias, aten.detach, aten.lift_fresh_copy, aten.contiguous]
AS_BEFORE = {"device": torch.device("cpu"), "dtype": torch.float64}

CASES: list[Case] = [
    *(Case(op.default, _with(2, 3), ("self",)) for op in SAME),
    Case(aten._to_copy.default, _with(2, 3, dtype=torch.float64), ("self",)),
    Case(
        aten.native_dropout.default,
        lambda t: {"input": t.distinct(2, 3)},
        ("input",),
        program=lambda input: aten.native_dropout.default(input, 0.0, True)[0],
    ),
    Case(aten.dropout.default, lambda t: {"input": t.distinct(2, 3), "p": 0.5, "train": False}, ("input",)),
    Case(aten.to.dtype, _with(2, 3, dtype=torch.float64), ("self",)),
    Case(aten.to.dtype_layout, _with(2, 3, dtype=torch.float64), ("self",)),
    Case(aten.to.device, _with(2, 3, **AS_BEFORE), ("self",)),
    Case(aten.type_as.default, _beside(2, 3, other=(4,)), ("self",)),
    Case(aten.feature_dropout.default, lambda t: {"input": t.distinct(2, 3), "p": 0.5, "train": False}, ("input",)),
    Case(aten.expand_as.default, _beside(3, 1, other=(2, 3, 4)), ("self",)),
    Case(aten.broadcast_to.default, _with(3, 1, size=[2, 3, 4]), ("self",)),
    Case(aten.view_as.default, lambda t: {"self": t.distinct(2, 6).contiguous(), "other": t(3, 4)}, ("self",)),
    Case(aten.reshape_as.default, _beside(2, 6, other=(3, 4)), ("self",)),
    Case(aten.swapaxes.default, _with(2, 3, 4, axis0=-1, axis1=0), ("self",)),
    Case(aten.swapdims.default, _with(2, 3, 4, dim0=1, dim1=0), ("self",)),
    Case(aten.movedim.int, _with(2, 3, 4, source=0, destination=-1), ("self",)),
    Case(aten.movedim.intlist, _with(2, 3, 4, source=[0, 1], destination=[-1, 0]), ("self",)),
    Case(aten.numpy_T.default, _with(2, 3, 4), ("self",)),
    Case(aten.repeat.default, _with(2, 3, repeats=[2, 1, 3]), ("self",)),
    Case(aten.repeat_interleave.self_int, _with(2, 3, repeats=2, dim=-1), ("self",)),
    Case(aten.repeat_interleave.self_int, _with(2, 3, repeats=3), ("self",), "flat"),
    Case(aten.roll.default, _with(2, 5, shifts=[1, -2], dims=[0, -1]), ("self",)),
    Case(aten.roll.default, _with(2, 5, shifts=[3]), ("self",), "flat"),
    Case(aten.flip.default, _with(2, 3, 4, dims=[0, -1]), ("self",)),
    Case(aten.roll.default, _with(shifts=[1]), ("self",), "number"),
    Case(aten.flip.default, _with(dims=[0]), ("self",), "number"),
    Case(aten.pixel_shuffle.default, _with(2, 8, 3, 2, upscale_factor=2), ("self",)),
    Case(aten.pixel_unshuffle.default, _with(2, 2, 4, 6, downscale_factor=2), ("self",)),
    Case(aten.view.default, _viewable(2, 6, size=[3, -1, 2]), ("self",)),
    Case(aten._unsafe_view.default, _viewable(2, 6, size=[12]), ("self",)),
    Case(aten.reshape.default, _with(2, 6, shape=[4, 3]), ("self",)),
    Case(aten.flatten.using_ints, _with(2, 3, 2, start_dim=-2, end_dim=-1), ("self",)),
    Case(aten.unflatten.int, _with(2, 6, dim=-1, sizes=[2, -1]), ("self",)),
    Case(aten.squeeze.default, _with(1, 3, 1), ("self",)),
    Case(aten.squeeze.dim, _with(1, 3, 1, dim=-1), ("self",)),
    Case(aten.squeeze.dims, _with(1, 3, 1, dim=[0, -1]), ("self",)),
    Case(aten.unsqueeze.default, _with(2, 3, dim=-2), ("self",)),
    Case(aten.transpose.int, _with(2, 3, 4, dim0=-1, dim1=0), ("self",)),
    Case(aten.t.default, _with(2, 3), ("self",)),
    Case(aten.t.default, _with(3), ("self",), "vector"),
    Case(aten.permute.default, _with(2, 3, 4, dims=[-1, 0, 1]), ("self",)),
    Case(aten.expand.default, _with(1, 3, 1, size=[2, 4, -1, 5]), ("self",)),
    Case(aten.slice.Tensor, _with(2, 7, dim=-1, start=-6, end=-1, step=2), ("self",)),
    Case(aten.slice.Tensor, _with(5, 2, start=1), ("self",), "no end"),
    Case(aten.narrow.default, _with(2, 7, dim=-1, start=-6, length=3), ("self",)),
    Case(aten.select.int, _with(2, 3, 4, dim=-2, index=-1), ("self",)),
    Case(aten.cat.default, _listed((2, 3), (2, 0), (2, 1), dim=-1), ("tensors.0", "tensors.1", "tensors.2")),
    Case(aten.concat.default, _listed((2, 3), (2, 1), dim=-1), ("tensors.0", "tensors.1")),
    Case(aten.cat.default, _listed((2, 3), (2, 2), dim=1), ("tensors.1",)),
    Case(aten.cat.default, _listed((0,), (2, 3), dim=1), ("tensors.0", "tensors.1"), "empty beside anything"),
    Case(aten.stack.default, _listed((2, 3), (2, 3), dim=-1), ("tensors.0", "tensors.1")),
    Case(aten.stack.default, _listed((2, 3), (2, 3), dim=0), ("tensors.0",)),
    Case(aten.split.Tensor, _with(2, 5, split_size=2, dim=-1), ("self",)),
    Case(aten.split.sizes, _with(5, 2, split_size=[1, 4]), ("self",)),
    Case(aten.split_with_sizes.default, _with(2, 5, split_sizes=[2, 0, 3], dim=1), ("self",)),
    Case(aten.chunk.default, _with(5, 2, chunks=3, dim=-2), ("self",)),
    Case(aten.unbind.int, _with(2, 3, dim=-1), ("self",)),
    Case(operator.getitem, _with(2, 5), ("self",), program=lambda self: aten.split.Tensor(self, 2, 1)[-1]),
    *(Case(aten.where.self, _chosen, active) for active in (("self", "other"), ("self",), ("other",))),
    Case(aten.where.ScalarOther, _scalar_side("other"), ("self",)),
    Case(aten.where.ScalarSelf, _scalar_side("self"), ("other",)),
    Case(aten.masked_fill.Scalar, _filled, ("self",)),
    *(Case(aten.masked_fill.Tensor, _filled_by_tensor, active) for active in (("self", "value"), ("self",))),
    Case(aten.gather.default, _gathered, ("self",)),
]
