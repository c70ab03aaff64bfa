"""Softmax and attention: weights are gates, so what they weight receives."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Row, attention, softmax


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, call: Call) -> Tensor:
    return F.scaled_dot_product_attention(
        q, k, v, mask, 0.0, call.is_causal, scale=call.scale, enable_gqa=call.enable_gqa
    )


def _drops(bound: Mapping[str, Any]) -> str | None:
    """Training mode is refused before tracing; this is a `dropout_p` that does not look at the mode."""
    if bound["dropout_p"] == 0:
        return None
    return "it drops weights at random although the model is in eval mode: say dropout_p=p if self.training else 0.0"


ROWS: list[Row] = [
    softmax("aten::softmax.int", x="self"),
    softmax("aten::_softmax", x="self"),
    softmax("aten::special_softmax", x="self"),
    attention(
        "aten::scaled_dot_product_attention",
        q="query",
        k="key",
        v="value",
        mask="attn_mask",
        apply=_attend,
        scale=lambda call: call.scale,
        refuses=_drops,
    ),
]
