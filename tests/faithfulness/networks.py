"""The architectures: every nonlinearity a module of its own, since some of the tools compared see only modules."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Add(nn.Module):
    """A sum as a module, for tools that give rules to modules."""

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return a + b


def _conv(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))


class ResidualCNN(nn.Module):
    """The network of examples/digits with its weights' names, written in modules: BatchNorm, a residual block."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = _conv(1, 16)
        self.residual = nn.Sequential(_conv(16, 16), nn.ReLU(), _conv(16, 16))
        self.widen = _conv(16, 32)
        self.classify = nn.Linear(32 * 2 * 2, 10)
        self.add = Add()
        self.relus = nn.ModuleList(nn.ReLU() for _ in range(3))
        self.max_pool, self.avg_pool = nn.MaxPool2d(2), nn.AvgPool2d(2)

    def forward(self, image: Tensor) -> Tensor:
        x = self.relus[0](self.stem(image))
        x = self.relus[1](self.add(x, self.residual(x)))
        x = self.relus[2](self.widen(self.max_pool(x)))
        return self.classify(self.avg_pool(x).flatten(1))


def plain_cnn() -> nn.Module:
    """Three convolutions with biases, no BatchNorm, and a dense head: VGG in small."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1), nn.ReLU(),
        nn.Conv2d(16, 16, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Flatten(), nn.Linear(128, 64), nn.ReLU(), nn.Linear(64, 10),
    )  # fmt: skip


def mlp(features: int, classes: int) -> nn.Module:
    """Two hidden layers."""
    return nn.Sequential(
        nn.Linear(features, 64), nn.ReLU(), nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, classes)
    )  # fmt: skip


class RowLSTM(nn.Module):
    """Reads an image row by row, as a sequence of eight steps, and decides after the last."""

    def __init__(self) -> None:
        super().__init__()
        self.lstm = nn.LSTM(8, 48, batch_first=True)
        self.classify = nn.Linear(48, 10)

    def forward(self, rows: Tensor) -> Tensor:
        return self.classify(self.lstm(rows)[0][:, -1])


class Attention(nn.Module):
    """Multi-head self-attention by torch's fused function; rotary positions where asked."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(width, 3 * width, bias=bias), nn.Linear(width, width, bias=bias)
        self.heads, self.causal = heads, causal

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = self.qkv(x).reshape(batch, length, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        if self.causal:
            q, k = rotate(q), rotate(k)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        return self.out(mixed.transpose(1, 2).reshape(batch, length, width))


def rotate(x: Tensor) -> Tensor:
    """Rotary position embedding of [B, H, T, D]."""
    half = x.shape[-1] // 2
    speed = 10000.0 ** (-torch.arange(half) / half)
    angle = torch.arange(x.shape[-2])[:, None] * speed
    a, b = x[..., :half], x[..., half:]
    return torch.cat((a * angle.cos() - b * angle.sin(), a * angle.sin() + b * angle.cos()), -1)


class EncoderBlock(nn.Module):
    """Pre-norm attention and GELU layer."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads)
        self.feed = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        return x + self.feed(self.norm2(x))


class ViT(nn.Module):
    """A vision transformer on 8 x 8 images: patches of 2 x 2, a class token, three blocks."""

    def __init__(self, width: int = 48, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.patch = nn.Conv2d(1, width, 2, stride=2)
        self.token = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(1, 17, width) * 0.02)
        self.blocks = nn.Sequential(*(EncoderBlock(width, heads) for _ in range(depth)))
        self.norm, self.classify = nn.LayerNorm(width), nn.Linear(width, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.patch(image).flatten(2).transpose(1, 2)
        x = torch.cat((self.token.expand(x.shape[0], -1, -1), x), 1) + self.position
        return self.classify(self.norm(self.blocks(x))[:, 0])


class DecoderBlock(nn.Module):
    """LLaMA's block: RMSNorm, rotary causal attention, a gated feed-forward layer, no biases."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.RMSNorm(width, eps=1e-6), nn.RMSNorm(width, eps=1e-6)
        self.attention = Attention(width, heads, causal=True, bias=False)
        self.gate, self.up, self.down = (
            nn.Linear(a, b, bias=False) for a, b in ((width, 3 * width), (width, 3 * width), (3 * width, width))
        )
        self.silu = nn.SiLU()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        h = self.norm2(x)
        return x + self.down(self.silu(self.gate(h)) * self.up(h))


class CharacterForCausalLM(nn.Module):
    """A character-level LLaMA: takes embeddings [B, T, D] (see `embed`), returns the next character's logits [B, V]."""

    def __init__(self, vocabulary: int, width: int = 64, heads: int = 4, depth: int = 3) -> None:
        super().__init__()
        self.embed = nn.Embedding(vocabulary, width)
        self.blocks = nn.Sequential(*(DecoderBlock(width, heads) for _ in range(depth)))
        self.norm, self.head = nn.RMSNorm(width, eps=1e-6), nn.Linear(width, vocabulary, bias=False)

    def everywhere(self, embedded: Tensor) -> Tensor:
        """The logits at every position, to train with."""
        return self.head(self.norm(self.blocks(embedded)))

    def forward(self, embedded: Tensor) -> Tensor:
        return self.head(self.norm(self.blocks(embedded)[:, -1]))


class Similarity(nn.Module):
    """The cosine of a sentence's embedding (BERT, mean over its tokens) and a given one, as an output [B, 1]."""

    def __init__(self, bert: nn.Module) -> None:
        super().__init__()
        self.bert = bert

    def encode(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """Sentence embeddings [B, D] from word embeddings [B, T, D] and their attention mask [B, T]."""
        hidden = self.bert(inputs_embeds=embedded, attention_mask=mask).last_hidden_state
        weight = mask[..., None].to(hidden.dtype)
        return (hidden * weight).sum(1) / weight.sum(1)

    def forward(self, embedded: Tensor, mask: Tensor, other: Tensor) -> Tensor:
        return F.cosine_similarity(self.encode(embedded, mask), other)[:, None]
