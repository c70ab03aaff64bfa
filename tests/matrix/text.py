"""Text: encoders, encoder-decoders, decoders and state-space models of transformers, slim and with random weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from zoo import SLIM, VOCABULARY, text

from .entry import Entry, Size

LENGTH = 7
IDS = ("input_ids",)
BOTH = ("decoder_input_ids", "input_ids")
T5 = {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4, "relative_attention_num_buckets": 8}
BART = {
    "d_model": 32, "encoder_layers": 2, "decoder_layers": 2, "encoder_ffn_dim": 48, "decoder_ffn_dim": 48,
    "encoder_attention_heads": 4, "decoder_attention_heads": 4, "max_position_embeddings": 40,
}  # fmt: skip
GPT = {"n_embd": 32, "n_layer": 2, "n_head": 4}
MAMBA = {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 4}
GEMMA = {"head_dim": 8, "sliding_window": 5, "layer_types": ["sliding_attention", "full_attention"]}


def hf(name: str, head: str, *, settings: str = "", **config: Any) -> Callable[[], nn.Module]:
    """A class of transformers by its name, from a config with these values; `settings`: its config has another name."""

    def build() -> nn.Module:
        settled = getattr(transformers, f"{settings or name}Config")(vocab_size=VOCABULARY, pad_token_id=0, **config)
        model: nn.Module = getattr(transformers, f"{name}{head}")(settled)
        return model

    return build


def pair(batch: int, length: int) -> dict[str, Tensor]:
    """A source with its mask and a target text of a length of its own."""
    found = text(batch, length)
    found["decoder_input_ids"] = torch.stack([torch.randint(1, VOCABULARY, (length - 2,)) for _ in range(batch)])
    return found


def plain(batch: int, length: int) -> dict[str, Tensor]:
    """Ids alone."""
    return {"input_ids": torch.stack([torch.randint(1, VOCABULARY, (length,)) for _ in range(batch)])}


def _encoder(name: str, *, title: str = "", fast: bool = False, note: str = "", **config: Any) -> Entry:
    build = hf(name, "ForSequenceClassification", num_labels=3, **config)
    return Entry(title or name, build, text, LENGTH, explained=IDS, family="text", fast=fast, note=note)


def _decoder(
    name: str, *, head: str = "ForCausalLM", inputs: Any = text, title: str = "", tried: dict[str, Any] | None = None,
    **config: Any,
) -> Entry:  # fmt: skip
    build = hf(name, head, **config)
    return Entry(title or name, build, inputs, LENGTH, explained=IDS, family="text", **(tried or {}))


UNROLLED = {"calls": (Size(3, 0), Size(1, 0)), "note": "its scan is unrolled: fixed length"}
POSITIONS = {"max_position_embeddings": 40}

ENTRIES = [
    _encoder("Bert", **POSITIONS, **SLIM, fast=True),
    _encoder("Roberta", **POSITIONS, **SLIM),
    _encoder("DistilBert", dim=32, n_layers=2, n_heads=4, hidden_dim=48, **POSITIONS),
    _encoder("Albert", embedding_size=16, **POSITIONS, **SLIM),
    _encoder("Electra", embedding_size=16, **POSITIONS, **SLIM),
    _encoder("XLNet", d_model=32, n_layer=2, n_head=4, d_inner=48),
    _encoder(
        "DebertaV2", **POSITIONS, **SLIM, relative_attention=True, pos_att_type=["p2c", "c2p"], position_buckets=8
    ),
    Entry(
        "T5",
        hf("T5", "ForConditionalGeneration", decoder_start_token_id=0, **T5),
        pair,
        LENGTH,
        explained=BOTH,
        family="text",
        target=(1, 5),
    ),
    Entry(
        "Flan-T5",
        hf(
            "T5",
            "ForConditionalGeneration",
            decoder_start_token_id=0,
            feed_forward_proj="gated-gelu",
            tie_word_embeddings=False,
            **T5,
        ),
        pair,
        LENGTH,
        explained=BOTH,
        family="text",
        target=(1, 5),
    ),
    Entry(
        "Bart",
        hf("Bart", "ForConditionalGeneration", **BART),
        pair,
        LENGTH,
        explained=BOTH,
        family="text",
        target=(1, 5),
    ),
    _decoder("GPT2", head="LMHeadModel", n_positions=40, **GPT),
    _decoder("Llama", num_key_value_heads=2, **POSITIONS, **SLIM, tried={"fast": True}),
    _decoder("Qwen2", num_key_value_heads=2, **POSITIONS, **SLIM),
    _decoder("Qwen3", num_key_value_heads=2, head_dim=8, **POSITIONS, **SLIM),
    _decoder("Mistral", num_key_value_heads=2, sliding_window=5, **POSITIONS, **SLIM),
    _decoder("Gemma3", settings="Gemma3Text", num_key_value_heads=2, **GEMMA, **POSITIONS, **SLIM),
    _decoder("Phi3", num_key_value_heads=2, **POSITIONS, **SLIM),
    _decoder(
        "OPT",
        ffn_dim=48,
        word_embed_proj_dim=16,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        **POSITIONS,
    ),
    _decoder("Bloom", hidden_size=32, n_layer=2, n_head=4),
    _decoder("GPTNeoX", **POSITIONS, **SLIM),
    _decoder("Mamba", inputs=plain, tried=UNROLLED, **MAMBA),
    _decoder("Mamba2", inputs=plain, num_heads=8, head_dim=8, n_groups=2, chunk_size=4, **MAMBA),
]
