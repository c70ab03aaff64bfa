"""Fused attention layers and the forms that attention takes on a device, written with the parts they fuse."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Row, compound


def _keep(mask: Tensor | None, mask_type: int | None) -> Tensor | None:
    """True where attention may look; the fused ops say where it may not. Type 1: keys of each sample, [B, S]."""
    if mask is None:
        return None
    return (mask[:, None, None, :] if mask_type == 1 else mask).logical_not()


def _multi_head_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    num_head: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    mask: Tensor | None = None,
    need_weights: bool = True,
    average_attn_weights: bool = True,
    mask_type: int | None = None,
) -> tuple[Tensor, Tensor | None]:
    q, k, v = (
        F.linear(x, w, b).unflatten(-1, (num_head, -1)).transpose(1, 2)
        for x, w, b in zip((query, key, value), qkv_weight.chunk(3), qkv_bias.chunk(3), strict=True)
    )
    keep = _keep(mask, mask_type)
    if need_weights:
        scores = torch.matmul(q, k.transpose(-2, -1)) / q.shape[-1] ** 0.5
        weights = (scores if keep is None else scores.masked_fill(keep.logical_not(), -torch.inf)).softmax(-1)
        heads = torch.matmul(weights, v)
        seen = weights.mean(1) if average_attn_weights else weights
    else:
        heads, seen = F.scaled_dot_product_attention(q, k, v, keep), None
    return F.linear(heads.transpose(1, 2).flatten(2), proj_weight, proj_bias), seen


def _encoder_layer(
    src: Tensor,
    embed_dim: int,
    num_heads: int,
    qkv_weight: Tensor,
    qkv_bias: Tensor,
    proj_weight: Tensor,
    proj_bias: Tensor,
    use_gelu: bool,
    norm_first: bool,
    eps: float,
    norm_weight_1: Tensor,
    norm_bias_1: Tensor,
    norm_weight_2: Tensor,
    norm_bias_2: Tensor,
    ffn_weight_1: Tensor,
    ffn_bias_1: Tensor,
    ffn_weight_2: Tensor,
    ffn_bias_2: Tensor,
    mask: Tensor | None = None,
    mask_type: int | None = None,
) -> Tensor:
    """nn.TransformerEncoderLayer in eval mode, norms first or last."""

    def attend(x: Tensor) -> Tensor:
        projected = (num_heads, qkv_weight, qkv_bias, proj_weight, proj_bias)
        return _multi_head_attention(x, x, x, *projected, mask, need_weights=False, mask_type=mask_type)[0]

    def feed(x: Tensor) -> Tensor:
        inner = F.linear(x, ffn_weight_1, ffn_bias_1)
        return F.linear(F.gelu(inner) if use_gelu else inner.relu(), ffn_weight_2, ffn_bias_2)

    def first(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_1, norm_bias_1, eps)

    def second(x: Tensor) -> Tensor:
        return F.layer_norm(x, (embed_dim,), norm_weight_2, norm_bias_2, eps)

    if norm_first:
        x = src + attend(first(src))
        return x + feed(second(x))
    x = first(src + attend(src))
    return second(x + feed(x))


def _attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> tuple[Tensor, None]:
    """The output; nobody who evaluates reads the second one (the logarithm of the sums, or the weights)."""
    more: dict[str, Any] = {"scale": scale, "enable_gqa": enable_gqa}
    return F.scaled_dot_product_attention(query, key, value, attn_mask, 0.0, is_causal, **more), None


ROWS: list[Row] = [
    compound("aten::_transformer_encoder_layer_fwd", written=_encoder_layer),
    compound("aten::_native_multi_head_attention", written=_multi_head_attention),
    compound("aten::_scaled_dot_product_flash_attention_for_cpu", written=_attention),
    compound("aten::_scaled_dot_product_attention_math", written=_attention),
]
