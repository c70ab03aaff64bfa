"""The models that the tests explain: small or slim, random weights (the digits network is trained), eval mode.

Every bias, norm parameter and running statistic is random: a zero bias hides what a rule loses on it.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

import torch
import torchvision_stub
from torch import Tensor, nn

torchvision_stub.register()

from torchvision.models import resnet18, vgg11  # noqa: E402  (needs the schemas)
from transformers import (  # noqa: E402
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ViTConfig,
    ViTForImageClassification,
)

from dlb_core import DLBacktrace  # noqa: E402

DIGITS = Path(__file__).parent.parent / "examples" / "digits" / "model.py"
VOCABULARY = 60
SLIM = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}


class MLP(nn.Module):
    """Two dense layers with biases: [B, 6] -> [B, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = nn.Linear(6, 16), nn.Linear(16, 12), nn.Linear(12, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc3(self.fc2(self.fc1(x).relu()).tanh())


class Net(nn.Module):
    """Convolution, ReLU, adaptive pooling, dense: [B, 3, H, W] -> [B, 10]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu = nn.Conv2d(3, 16, 3, padding=1), nn.ReLU()
        self.pool, self.fc = nn.AdaptiveAvgPool2d(1), nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.relu(self.conv1(x))).flatten(1))


@dataclass(frozen=True)
class Case:
    """A model, its inputs by name, and what a test must know about it."""

    name: str
    build: Callable[[], nn.Module]
    inputs: Callable[[int, int], dict[str, Tensor]]
    length: int = 0  # tokens, for text
    kept: tuple[str, ...] = ()  # accounts that the default mode fills: values that stand alone
    explained: tuple[str, ...] = ("x",)

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The model, the same weights at every call."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return randomised(self.build()).to(dtype).eval()

    def example(
        self, batch: int = 2, length: int | None = None, dtype: torch.dtype = torch.float32
    ) -> dict[str, Tensor]:
        """Inputs by name: the same numbers at every call, the same rows first in a larger batch."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            found = self.inputs(batch, length or self.length)
        return {name: t.to(dtype) if t.is_floating_point() else t for name, t in found.items()}


def randomised(model: nn.Module) -> nn.Module:
    """Random biases, norm parameters, running statistics, embeddings that stand alone; also what begins as zero."""
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() < 2 or parameter.shape[0] == 1 or not parameter.any():
                parameter += 0.3 * torch.randn_like(parameter)
        for name, buffer in model.named_buffers():
            if name.endswith("running_mean"):
                buffer += 0.3 * torch.randn_like(buffer)
            elif name.endswith("running_var"):
                buffer *= torch.rand_like(buffer) + 0.5
    return model


def digits() -> nn.Module:
    """The trained network of the demo."""
    spec = importlib.util.spec_from_file_location("digits_model", DIGITS)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    model: nn.Module = module.load()
    return model


def vgg() -> nn.Module:
    """VGG-11 with dense layers of 64 instead of 4096: the same ops, a tenth of the weights."""
    model = vgg11(num_classes=10, init_weights=False)
    model.classifier[0] = nn.Linear(512 * 7 * 7, 64)
    model.classifier[3], model.classifier[6] = nn.Linear(64, 64), nn.Linear(64, 10)
    return model


def bert(attention: str) -> nn.Module:
    """Sequence classification."""
    config = BertConfig(vocab_size=VOCABULARY, max_position_embeddings=40, num_labels=3, **SLIM)
    config._attn_implementation = attention
    return BertForSequenceClassification(config)


def vit(attention: str) -> nn.Module:
    """Image classification with a class token."""
    config = ViTConfig(image_size=32, patch_size=8, num_labels=5, **SLIM)
    config._attn_implementation = attention
    return ViTForImageClassification(config)


def llama(attention: str) -> nn.Module:
    """The next token: rotary positions, RMS norms, two query heads to a key head."""
    config = LlamaConfig(vocab_size=VOCABULARY, num_key_value_heads=2, max_position_embeddings=64, **SLIM)
    config._attn_implementation = attention
    return LlamaForCausalLM(config)


def rows(*shape: int) -> Callable[[int, int], dict[str, Tensor]]:
    return lambda batch, length: {"x": torch.stack([torch.randn(shape) for _ in range(batch)])}


def text(batch: int, length: int) -> dict[str, Tensor]:
    """Ids and their mask; every second sample ends with two padded positions."""
    ids = torch.stack([torch.randint(1, VOCABULARY, (length,)) for _ in range(batch)])
    mask = torch.ones_like(ids)
    mask[1::2, -2:] = 0
    return {"input_ids": ids * mask, "attention_mask": mask}


def named(name: str, make: Callable[..., Any], *shape: int) -> Callable[[int, int], dict[str, Tensor]]:
    return lambda batch, length: {name: torch.stack([make(shape) for _ in range(batch)])}


def _cases() -> list[Case]:
    cases = [
        Case("mlp", MLP, rows(6)),
        Case("net", Net, rows(3, 12, 12)),
        Case("digits", digits, named("image", torch.rand, 1, 8, 8), explained=("image",)),
        Case("resnet18", partial(resnet18, num_classes=10), rows(3, 64, 64)),
        Case("vgg11", vgg, rows(3, 64, 64)),
    ]
    for attention in ("eager", "sdpa"):
        cases += [
            Case(f"bert-{attention}", partial(bert, attention), text, 7, explained=("input_ids",)),
            Case(
                f"vit-{attention}",
                partial(vit, attention),
                named("pixel_values", torch.randn, 3, 32, 32),
                kept=("constant:vit.embeddings.cls_token",),
                explained=("pixel_values",),
            ),
            Case(f"llama-{attention}", partial(llama, attention), text, 7, explained=("input_ids",)),
        ]
    return cases


CASES = {case.name: case for case in _cases()}


@cache
def traced(name: str, dtype: torch.dtype = torch.float32) -> DLBacktrace:
    """The explainer of a case as its example is, made once in a process: for tests that ask and change nothing."""
    case = CASES[name]
    return DLBacktrace(case.model(dtype), case.example(dtype=dtype))
