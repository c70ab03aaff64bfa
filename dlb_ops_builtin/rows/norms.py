"""Normalisers: identity to what they normalise; statistics are constants, the shift is an addend."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, normalise


def _batch_norm_shift(call: Call) -> Tensor | None:
    """bias - mean * weight / sqrt(var + eps), one value per channel; the batch's own mean is a statistic."""
    if call.training:
        return _group_norm_shift(call)
    return _running_shift(call)


def _running_shift(call: Call) -> Tensor:
    scale = (call.running_var + call.eps).rsqrt()
    if call.weight is not None:
        scale = scale * call.weight
    shift: Tensor = -call.running_mean * scale
    if call.bias is not None:
        shift = shift + call.bias
    return _per_channel(shift, len(call.shape("input")))


def _group_norm_shift(call: Call) -> Tensor | None:
    return None if call.bias is None else _per_channel(call.bias, len(call.shape("input")))


def _instance_norm_shift(call: Call) -> Tensor | None:
    """With running statistics it is a batch norm; else only its bias is added."""
    return _group_norm_shift(call) if call.use_input_stats else _running_shift(call)


def _layer_scale(call: Call) -> Tensor:
    """weight / sqrt(var + eps) over the last dimensions."""
    dims = list(range(-len(call.normalized_shape), 0))
    return _weighted((call.input.var(dims, correction=0, keepdim=True) + call.eps).rsqrt(), call.weight)


def _rms_scale(call: Call) -> Tensor:
    """weight / sqrt(mean of squares + eps)"""
    x, dims = call.input, list(range(-len(call.normalized_shape), 0))
    eps = torch.finfo(x.dtype).eps if call.eps is None else call.eps
    return _weighted((x.square().mean(dims, keepdim=True) + eps).rsqrt(), call.weight)


def _group_scale(call: Call, groups: int) -> Tensor:
    """weight / sqrt(var + eps) over the channels of a group and all places."""
    x: Tensor = call.input
    grouped = x.reshape(x.shape[0], groups, -1)
    scale = (grouped.var(-1, correction=0, keepdim=True) + call.eps).rsqrt()
    spread = scale.expand(-1, -1, x.shape[1] // groups).reshape(x.shape[0], -1, *[1] * (x.dim() - 2))
    return _weighted(spread, None if call.weight is None else _per_channel(call.weight, x.dim()))


def _running_scale(call: Call) -> Tensor:
    """weight / sqrt(running var + eps)"""
    return _per_channel(_weighted((call.running_var + call.eps).rsqrt(), call.weight), len(call.shape("input")))


def _batch_norm_scale(call: Call) -> Tensor:
    if not call.training:
        return _running_scale(call)
    x: Tensor = call.input
    dims = [d for d in range(x.dim()) if d != 1]
    scale = (x.var(dims, correction=0, keepdim=True) + call.eps).rsqrt()
    return _weighted(scale, None if call.weight is None else _per_channel(call.weight, x.dim()))


def _instance_norm_scale(call: Call) -> Tensor:
    return _group_scale(call, call.shape("input")[1]) if call.use_input_stats else _running_scale(call)


def _weighted(scale: Tensor, weight: Tensor | None) -> Tensor:
    return scale if weight is None else scale * weight


def _per_channel(values: Tensor, dims: int) -> Tensor:
    return values.reshape(-1, *[1] * (dims - 2))


def _one(call: Call) -> Tensor:
    return torch.ones((), dtype=call.dtype, device=call.device)


ROWS: list[Row] = [
    normalise("aten::layer_norm", x="input", weight="weight", bias="bias", scale=_layer_scale),
    normalise("aten::rms_norm", x="input", weight="weight", scale=_rms_scale),
    normalise(
        "aten::group_norm",
        x="input",
        weight="weight",
        bias="bias",
        shift=_group_norm_shift,
        scale=lambda call: _group_scale(call, call.num_groups),
    ),
    normalise(
        "aten::batch_norm",
        x="input",
        weight="weight",
        bias="bias",
        shift=_batch_norm_shift,
        scale=_batch_norm_scale,
        reads=("weight", "bias", "running_mean", "running_var"),
    ),
    normalise(
        "aten::instance_norm",
        x="input",
        weight="weight",
        bias="bias",
        shift=_instance_norm_shift,
        scale=_instance_norm_scale,
        reads=("weight", "bias", "running_mean", "running_var"),
    ),
    normalise("aten::_weight_norm", x="v", weight="g"),
    # less its logsumexp: no function of one element, so it joins no region
    *(
        normalise(f"aten::{name}", x="self", scale=_one)
        for name in ("log_softmax", "_log_softmax", "special_log_softmax")
    ),
]
