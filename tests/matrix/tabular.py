"""Tables, and torch's own transformer modules."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from zoo import rows

from .entry import Entry

LENGTH = 6
CATEGORIES = (4, 7, 3)


class Tabular(nn.Module):
    """Embedded categories beside standardised numbers, dense layers with BatchNorm1d: -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.tables = nn.ModuleList(nn.Embedding(n, 4) for n in CATEGORIES)
        self.norm = nn.BatchNorm1d(5)
        self.layers = nn.Sequential(
            nn.Linear(17, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Dropout(0.2),
            nn.Linear(16, 12, bias=False), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3),
        )  # fmt: skip

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        words = [table(categories[:, i]) for i, table in enumerate(self.tables)]
        return self.layers(torch.cat([*words, self.norm(numbers)], 1))


class TabTransformer(nn.Module):
    """Categories attend to each other, then join the numbers: -> [B]."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(CATEGORIES), 16)
        self.register_buffer("offsets", torch.tensor([0, *CATEGORIES[:-1]]).cumsum(0))
        self.column = nn.Parameter(torch.randn(1, len(CATEGORIES), 16))
        self.encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(16, 4, 24, batch_first=True), 2)
        self.norm = nn.LayerNorm(5)
        self.head = nn.Sequential(nn.Linear(53, 24), nn.SELU(), nn.Linear(24, 1))

    def forward(self, categories: Tensor, numbers: Tensor) -> Tensor:
        words = self.encoder(self.table(categories + self.offsets) + self.column)
        return self.head(torch.cat([words.flatten(1), self.norm(numbers)], 1)).squeeze(-1)


class Padded(nn.Module):
    """A transformer encoder that is told where samples end; mean over the rest: -> [B, 3]."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 24, batch_first=True, **options)
        self.encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=not options.get("norm_first"))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        y = self.encoder(x, src_key_padding_mask=padding).masked_fill(padding.unsqueeze(-1), 0)
        return self.head(y.sum(1) / (~padding).sum(1, keepdim=True))


class Translator(nn.Module):
    """nn.Transformer, whole, causal in its target, told so or left to find out: -> [B, T, 3]."""

    def __init__(self, told: bool) -> None:
        super().__init__()
        self.told = True if told else None
        self.body = nn.Transformer(16, 4, 2, 2, 24, batch_first=True)
        self.head = nn.Linear(16, 3)

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        mask = nn.Transformer.generate_square_subsequent_mask(target.shape[1], dtype=target.dtype)
        return self.head(self.body(source, target, tgt_mask=mask, tgt_is_causal=self.told))


class Attend(nn.Module):
    """nn.MultiheadAttention on three inputs, with or without the weights as a second output: -> [B, T, E]."""

    def __init__(self, need_weights: bool, **options: Any) -> None:
        super().__init__()
        self.need_weights = need_weights
        self.attention = nn.MultiheadAttention(16, 4, batch_first=True, **options)

    def forward(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
        return self.attention(query, key, value, need_weights=self.need_weights)[0]


def columns(batch: int, length: int) -> dict[str, Tensor]:
    ids = [torch.stack([torch.randint(0, n, ()) for n in CATEGORIES]) for _ in range(batch)]
    return {"categories": torch.stack(ids), "numbers": rows(5)(batch, length)["x"]}


def sequence(batch: int, length: int) -> dict[str, Tensor]:
    """Every second sample ends with two padded positions."""
    padding = torch.zeros(batch, length, dtype=torch.bool)
    padding[1::2, -2:] = True
    return {"x": rows(length, 16)(batch, length)["x"], "padding": padding}


def two(batch: int, length: int) -> dict[str, Tensor]:
    names = {"source": length, "target": length - 1}
    return {name: rows(size, 16)(batch, length)["x"] for name, size in names.items()}


def three(batch: int, length: int) -> dict[str, Tensor]:
    names = {"query": length, "key": length - 1, "value": length - 1}
    return {name: rows(size, 16)(batch, length)["x"] for name, size in names.items()}


def _entry(name: str, build: Callable[[], nn.Module], inputs: Any, *explained: str, **more: Any) -> Entry:
    return Entry(name, build, inputs, LENGTH, explained=explained, family="tabular", **more)


def _attention(name: str, build: Callable[[], nn.Module], **more: Any) -> Entry:
    """The weights are gates: all relevance is the values'."""
    free = {"query": (1,), "key": (1,), "value": (1,)}
    return _entry(f"nn.MultiheadAttention{name}", build, three, "value", target=(1, 2), dynamic=free, **more)


ENTRIES = [
    _entry("MLP with BatchNorm1d and embeddings", Tabular, columns, "categories", "numbers", fast=True),
    _entry("TabTransformer", TabTransformer, columns, "categories", "numbers"),
    _entry("nn.TransformerEncoder, padded", Padded, sequence, "x", dynamic={"x": (1,), "padding": (1,)}, fast=True),
    _entry(
        "nn.TransformerEncoder, norm first, gelu",
        lambda: Padded(norm_first=True, activation="gelu"),
        sequence,
        "x",
        dynamic={"x": (1,), "padding": (1,)},
    ),
    _entry(
        "nn.Transformer",
        lambda: Translator(True),
        two,
        "source",
        "target",
        dynamic={"source": (1,), "target": (1,)},
        target=(1, 2),
    ),
    _entry(
        "nn.Transformer, left to find its causal mask",
        lambda: Translator(False),
        two,
        "source",
        "target",
        target=(1, 2),
        tracer="tape",
    ),
    _attention("", lambda: Attend(False)),
    _attention(" with its weights", lambda: Attend(True)),
    _attention(
        " with bias_kv and zero_attn",
        lambda: Attend(False, add_bias_kv=True, add_zero_attn=True),
        kept=("constant:attention.bias_v",),
    ),
    _attention(" without bias", lambda: Attend(True, bias=False)),
]
