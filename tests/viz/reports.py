"""Explanations that the tests of the report share, and how to read a page's data back."""

from __future__ import annotations

import base64
import json
import re
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Explanation
from dlb_core.generation.result import GenerationExplanation

HOSTILE = (
    "</script><script>window.hacked=1</script>",
    "<img src=x onerror='window.hacked=1'>",
    "\"><svg onload=window.hacked=1>'",
    "<!--<script>",
    "&lt;b&gt; &amp; \\u003c",
    "\u202eright to left",
    "\u0000null",
    "line\u2028separator",
    "\U0001f642 \u4e2d\u6587",
    "${window.hacked=1}`",
)


class Image(nn.Module):
    """A small network of images, with modules inside modules."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1))
        self.pool, self.head = nn.AdaptiveAvgPool2d(2), nn.Linear(16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.body(x)).flatten(1))


class Text(nn.Module):
    """A small network of tokens: a class by position, their mean, or the scores by position themselves."""

    def __init__(self, by_position: bool = False) -> None:
        super().__init__()
        self.embed, self.head, self.by_position = nn.Embedding(40, 8), nn.Linear(8, 3), by_position

    def forward(self, ids: Tensor) -> Tensor:
        scores = self.head(self.embed(ids).relu())
        return scores if self.by_position else scores.mean(1)


class Series(nn.Module):
    """A small network of a series [B, C, T]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv1d(3, 4, 3, padding=1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.conv(x).relu().mean(-1))


@cache
def _traced(kind: str) -> tuple[DLBacktrace, Tensor]:
    torch.manual_seed(0)
    models: dict[str, tuple[nn.Module, Tensor]] = {
        "image": (Image().eval(), torch.rand(2, 3, 12, 10)),
        "text": (Text().eval(), torch.randint(0, 40, (2, 10))),
        "table": (nn.Sequential(nn.Linear(130, 8), nn.ReLU(), nn.Linear(8, 1)).eval(), torch.randn(3, 130)),
        "series": (Series().eval(), torch.randn(2, 3, 40)),
    }
    model, x = models[kind]
    return DLBacktrace(model, x), x


@cache
def explained(kind: str, **options: Any) -> Explanation:
    """One of the explanations, captioned; options: those of `explain` that can be cached."""
    dlb, x = _traced(kind)
    if "targets" in options:
        options["targets"] = [*options["targets"]]
    explanation = dlb.explain(x, **{"mode": "epsilon", **options})
    names: dict[str, Any] = {
        "image": {"classes": ["cat", "dog", "car", "cup"]},
        "text": {"classes": ["bad", "good", "neither"], "tokens": [[f"word{i}" for i in range(10)], HOSTILE]},
        "table": {"features": [f"feature {i}" for i in range(130)]},
        "series": {"features": ["lead I", "lead II", "drift"]},
    }[kind]
    return explanation.captioned(model=f"small {kind} model", **names)


def generation(contrastive: bool = False) -> GenerationExplanation:
    """Two sequences of 5 + 3 tokens, all three explained; no model behind it."""
    torch.manual_seed(0)
    units = torch.randn(2, 3, 8).tril(4)
    ledger = explained("text").ledger
    return GenerationExplanation(
        sequences=torch.arange(16).reshape(2, 8),
        prompt_length=5,
        generated=torch.ones(2, 3, dtype=torch.bool),
        steps=(0, 1, 2),
        relevance=units,
        total=units.abs() * 2 if contrastive else None,
        ledgers=(ledger,) * 3,
        scores=-torch.rand(2, 3),
        mode="contrastive" if contrastive else "epsilon",
    )


class Tokenizer:
    """Reads ids as the hostile texts."""

    all_special_ids: tuple[int, ...] = ()

    def decode(self, ids: list[int], **options: Any) -> str:
        return "".join(self.convert_ids_to_tokens(ids))

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [HOSTILE[i % len(HOSTILE)] for i in ids]


def refused(constant: str) -> None:
    raise AssertionError(f"the page holds {constant}")


def data_of(page: str) -> dict[str, Any]:
    """The document in a page; fails on NaN and infinity."""
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, flags=re.S)
    assert found
    data: dict[str, Any] = json.loads(found.group(1), parse_constant=refused)
    return data


def array(entry: dict[str, Any]) -> np.ndarray[Any, Any]:
    """An array of the document."""
    kind, text = ("<f4", entry["f32"]) if "f32" in entry else ("u1", entry["u8"])
    return np.frombuffer(base64.b64decode(text), kind).reshape(entry["shape"])
