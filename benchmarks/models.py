"""The models that are measured: real shapes, random weights."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import torchvision_stub

torchvision_stub.register()


def resnet18() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from torchvision.models import resnet18

    return resnet18(), (torch.randn(4, 3, 224, 224),)


def bert_base() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import BertConfig, BertForSequenceClassification

    ids = torch.randint(0, 30522, (2, 128))
    return BertForSequenceClassification(BertConfig()), (ids, torch.ones_like(ids))


def llama(
    hidden: int = 512, layers: int = 8, tokens: int = 128, samples: int = 1
) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """LLaMA's proportions: heads of 64, half as many for keys, 2.6875 times as wide between."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        hidden_size=hidden,
        num_hidden_layers=layers,
        num_attention_heads=hidden // 64,
        num_key_value_heads=hidden // 128,
        intermediate_size=int(2.6875 * hidden),
        vocab_size=8000,
        use_cache=False,
    )
    ids = torch.randint(0, 8000, (samples, tokens))
    return LlamaForCausalLM(config), (ids, torch.ones_like(ids))


def llama_512x8() -> tuple[nn.Module, tuple[Tensor, ...]]:
    return llama(samples=2)


def olmoe_256x16() -> tuple[nn.Module, tuple[Tensor, ...]]:
    from transformers import OlmoeConfig, OlmoeForCausalLM

    config = OlmoeConfig(
        hidden_size=256,
        intermediate_size=128,
        num_hidden_layers=16,
        num_attention_heads=4,
        num_key_value_heads=4,
        num_experts=64,
        num_experts_per_tok=8,
        vocab_size=1000,
        pad_token_id=0,
        eos_token_id=0,
        use_cache=False,
    )
    ids = torch.randint(1, 1000, (1, 128))
    return OlmoeForCausalLM(config), (ids, torch.ones_like(ids))


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[Tensor, ...]]]] = {
    "ResNet-18, 224 px, batch 4": resnet18,
    "BERT 768 x 12, 128 tokens, batch 2": bert_base,
    "LLaMA-shaped 512 x 8, 128 tokens, batch 2": llama_512x8,
}
