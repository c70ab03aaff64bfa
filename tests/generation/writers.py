"""Tiny random models that write text, and prompts for them."""

from __future__ import annotations

from typing import Any

import torch
import transformers
from torch import Tensor, nn

VOCABULARY = 64
PAD, BEGIN, END = 0, 1, 2
SLIM = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4}
ONE = {"num_hidden_layers": 1}  # where nothing depends on how many there are
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": PAD, "bos_token_id": BEGIN, "eos_token_id": END}
CONFIGS: dict[str, dict[str, Any]] = {
    "Llama": {**SLIM, "num_key_value_heads": 2},
    "GPT2": {"n_embd": 32, "n_layer": 1, "n_head": 4, "n_positions": 64},
    "Gemma2": {**SLIM, "num_key_value_heads": 2, "head_dim": 8, "sliding_window": 4},
    "Mistral": {**SLIM, **ONE, "num_key_value_heads": 2, "sliding_window": 4},
    "Cohere": {**SLIM, **ONE, "num_key_value_heads": 4},
    "Granite": {**SLIM, **ONE, "num_key_value_heads": 4, "logits_scaling": 3.0},
    "OPT": {**SLIM, **ONE, "ffn_dim": 48, "word_embed_proj_dim": 32, "max_position_embeddings": 64},
    "Olmoe": {**SLIM, "num_experts": 4, "num_experts_per_tok": 2},
    "T5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 1, "num_heads": 4, "decoder_start_token_id": PAD},
    "Bart": {
        "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
        "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 64,
        "decoder_start_token_id": END, "forced_eos_token_id": None,
    },
}  # fmt: skip
HEADS = {"GPT2": "LMHeadModel", "T5": "ForConditionalGeneration", "Bart": "ForConditionalGeneration"}


def writer(name: str, seed: int = 0, **more: Any) -> Any:
    """A model of that family in float64, its weights large enough that texts differ."""
    torch.manual_seed(seed)
    config = getattr(transformers, f"{name}Config")(**{**TOKENS, **CONFIGS[name], **more})
    model: nn.Module = getattr(transformers, f"{name}{HEADS.get(name, 'ForCausalLM')}")(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    if hasattr(config, "num_experts"):
        model.set_experts_implementation("eager")  # torch's grouped product takes no float64
    return model.double().eval()


def prompt(samples: int = 2, length: int = 5, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Ids and their mask; the first sample is shorter by two, padded on the left."""
    ids = torch.randint(3, VOCABULARY, (samples, length), generator=torch.Generator().manual_seed(seed))
    mask = torch.ones_like(ids)
    ids[0, :2], mask[0, :2] = PAD, 0
    return ids, mask
