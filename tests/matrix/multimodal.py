"""Text with images, and sound."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import transformers
from torch import Tensor, nn
from zoo import SLIM, VOCABULARY, text

from .entry import Entry, Size

LENGTH = 7
VISION = {"image_size": 16, "patch_size": 8, **SLIM}
WORDS = {"vocab_size": VOCABULARY, "max_position_embeddings": 40, **SLIM}


def captioned(batch: int, length: int) -> dict[str, Tensor]:
    """An image for each text."""
    found = text(batch, length)
    found["pixel_values"] = torch.stack([torch.randn(3, 16, 16) for _ in range(batch)])
    return found


def diagonal(scores: Tensor) -> Tensor:
    """Each image with its own text."""
    return torch.eye(len(scores), dtype=scores.dtype)


def clip() -> nn.Module:
    words = {**WORDS, "eos_token_id": VOCABULARY - 1, "bos_token_id": 1, "pad_token_id": 0}
    return transformers.CLIPModel(transformers.CLIPConfig(text_config=words, vision_config=VISION, projection_dim=16))


def siglip() -> nn.Module:
    return transformers.SiglipModel(transformers.SiglipConfig(text_config=WORDS, vision_config=VISION))


def wav2vec2() -> nn.Module:
    return transformers.Wav2Vec2ForSequenceClassification(
        transformers.Wav2Vec2Config(
            vocab_size=VOCABULARY, conv_dim=(16, 16, 16), conv_stride=(5, 2, 2), conv_kernel=(10, 3, 2),
            num_feat_extract_layers=3, num_conv_pos_embeddings=8, num_conv_pos_embedding_groups=4, num_labels=3,
            classifier_proj_size=16, **SLIM,
        )
    )  # fmt: skip


def whisper() -> nn.Module:
    return transformers.WhisperForConditionalGeneration(
        transformers.WhisperConfig(
            vocab_size=VOCABULARY, num_mel_bins=8, d_model=32, encoder_layers=2, decoder_layers=2,
            encoder_attention_heads=4, decoder_attention_heads=4, encoder_ffn_dim=48, decoder_ffn_dim=48,
            max_source_positions=20, max_target_positions=40, pad_token_id=0, bos_token_id=1, eos_token_id=2,
            decoder_start_token_id=1,
        )
    )  # fmt: skip


def sound(batch: int, length: int) -> dict[str, Tensor]:
    return {"input_values": torch.stack([torch.randn(length) for _ in range(batch)])}


def spoken(batch: int, length: int) -> dict[str, Tensor]:
    """Forty frames, and the words so far."""
    ids = torch.stack([torch.randint(1, VOCABULARY, (length,)) for _ in range(batch)])
    return {"input_features": torch.stack([torch.randn(8, 40) for _ in range(batch)]), "decoder_input_ids": ids}


def _entry(name: str, build: Callable[[], nn.Module], inputs: Any, length: int, *explained: str, **more: Any) -> Entry:
    return Entry(name, build, inputs, length, explained=explained, family="multimodal", **more)


ENTRIES = [
    _entry(
        "CLIP",
        clip,
        captioned,
        LENGTH,
        "input_ids",
        "pixel_values",
        target=diagonal,
        kept=("constant:vision_model.embeddings.class_embedding",),
    ),
    _entry("SigLIP", siglip, captioned, LENGTH, "input_ids", "pixel_values", target=diagonal),
    _entry(
        "Wav2Vec2",
        wav2vec2,
        sound,
        400,
        "input_values",
        dynamic={"input_values": (1,)},
        calls=(Size(3, 40), Size(1, 1)),
    ),
    _entry("Whisper", whisper, spoken, LENGTH, "input_features", "decoder_input_ids", target=(1, 5)),
]
