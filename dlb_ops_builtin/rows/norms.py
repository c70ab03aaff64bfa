"""Normalisers: identity to what they normalise; statistics are constants, the shift is an addend."""

from __future__ import annotations

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


def _per_channel(values: Tensor, dims: int) -> Tensor:
    return values.reshape(-1, *[1] * (dims - 2))


ROWS: list[Row] = [
    normalise("aten::layer_norm", x="input", weight="weight", bias="bias"),
    normalise("aten::rms_norm", x="input", weight="weight"),
    normalise("aten::group_norm", x="input", weight="weight", bias="bias", shift=_group_norm_shift),
    normalise(
        "aten::batch_norm",
        x="input",
        weight="weight",
        bias="bias",
        shift=_batch_norm_shift,
        reads=("weight", "bias", "running_mean", "running_var"),
    ),
    normalise(
        "aten::instance_norm",
        x="input",
        weight="weight",
        bias="bias",
        shift=_instance_norm_shift,
        reads=("weight", "bias", "running_mean", "running_var"),
    ),
    normalise("aten::_weight_norm", x="v", weight="g"),
    # less its logsumexp: no function of one element, so it joins no region
    *(normalise(f"aten::{name}", x="self") for name in ("log_softmax", "_log_softmax", "special_log_softmax")),
]
