"""Explanations that the tests of the report share, and how to read a page's data back."""

from __future__ import annotations

import base64
import dataclasses
import json
import re
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Explanation
from dlb_core.experts import ExpertLayer, Ways
from dlb_core.generation.result import GenerationExplanation
from dlb_core.relevance import Relevance
from viz.explained import explained as made

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


@cache
def _image(mode: str, targets: tuple[int, ...] | None) -> Explanation:
    dlb, x = _traced()
    return dlb.explain(x, mode=mode, **({} if targets is None else {"targets": [*targets]}))


@cache
def _traced() -> tuple[DLBacktrace, Tensor]:
    torch.manual_seed(0)
    x = torch.rand(2, 3, 12, 10)
    return DLBacktrace(Image().eval(), x), x


@cache
def explained(kind: str, mode: str = "epsilon", targets: tuple[int, ...] | None = None) -> Explanation:
    """An image, text, table or series, captioned; a table of 130 features has no model behind it."""
    if kind == "image":
        return _image(mode, targets).captioned(model="small image model", classes=["cat", "dog", "car", "cup"])
    if kind == "text":
        tokens = [[f"word{i}" for i in range(7)], HOSTILE[:7], HOSTILE[-7:]]
        found = made("tokens", mode).captioned(tokens=tokens)
    elif kind == "series":
        found = made("series", mode).captioned(features=["lead I", "lead II"])
    else:
        torch.manual_seed(0)
        found = like(made("features", mode), "input", torch.randn(3, 130), torch.randn(3, 130))
        found = found.captioned(features=[f"feature {i}" for i in range(130)])
    return found.captioned(model=f"small {kind} model")


def like(explanation: Explanation, name: str, given: Tensor, units: Tensor) -> Explanation:
    """The same books with another input: what no model here would be fast enough for."""
    books = explanation.relevance.ledgers
    relevance = Relevance({name: units}, books, inputs=(name,), target=0, mode=explanation.mode)
    return Explanation(relevance, torch.rand(len(units), 4), given={name: given})


def routed() -> Explanation:
    """The text again, with two layers of five experts that no model has."""
    torch.manual_seed(0)
    explanation = explained("text")
    old = explanation.relevance
    ways = Ways("entry", (), (), ())
    layers = {
        f"layers.{i}.experts": ExpertLayer(
            f"layers.{i}.experts",
            by_token=torch.randn(3, 7, 5),
            weight=torch.ones(3, 7, 5),
            selected=torch.rand(3, 7, 5) > 0.5,
            probability=torch.ones(3, 7, 5) / 5,
            ways=ways,
            ledgers=old.ledgers,
        )
        for i in range(2)
    }
    relevance = Relevance(old.inputs, old.ledgers, inputs=("ids",), target=0, mode="epsilon", experts=layers)
    return dataclasses.replace(explanation, relevance=relevance)


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
