"""The card in a notebook: there for every explanation, small, without scripts, and nothing in it does anything."""

from __future__ import annotations

import dataclasses
import io
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from dlb_core import Contrast, DLBacktrace, Explanation
from dlb_core.findings import target_text
from dlb_core.generation import GenerationExplanation
from dlb_core.kernel.ledger import Ledger
from dlb_core.targets import Query
from dlb_core.viz.notebook import LARGEST
from dlb_core.viz.png import png
from viz.browser import errors, opened, requests

EVIL = "<img src=x onerror=alert(1)>\x1b[31m\u202e'\"</style><script>alert(2)</script>"
VOID = {"img", "br"}


class Check(HTMLParser):
    """Raises where a card is not well formed or holds what could run or load something."""

    def __init__(self, card: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.feed(card)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "iframe", "object", "link", "svg", "a", "form")
        for name, value in attrs:
            assert not name.startswith("on")
            assert "url(" not in (value or "")
            assert name not in ("src", "href") or (value or "").startswith("data:image/png;base64,")
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


class Both(nn.Module):
    """A picture and a row, as people give them."""

    def __init__(self) -> None:
        super().__init__()
        self.picture, self.row = nn.Conv2d(3, 4, 3), nn.Linear(5, 4)
        self.out = nn.Linear(4, 3)

    def forward(self, picture: Tensor, row: Tensor) -> Tensor:
        return self.out(torch.relu(self.picture(picture)).mean((2, 3)) + self.row(row))


class Texts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(50, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor) -> Tensor:
        return self.out(self.table(ids).tanh().mean(1))


def both(**options: Any) -> DLBacktrace:
    torch.manual_seed(0)
    return DLBacktrace(Both().eval(), (torch.rand(2, 3, 8, 8), torch.randn(2, 5)), **options)


@pytest.fixture(scope="module")
def pictures() -> DLBacktrace:
    return both()


@pytest.fixture(scope="module")
def words() -> DLBacktrace:
    torch.manual_seed(0)
    return DLBacktrace(Texts().eval(), torch.randint(50, (2, 7)))


@pytest.fixture(scope="module")
def found(pictures: DLBacktrace) -> Explanation:
    return pictures.explain(torch.rand(2, 3, 8, 8), torch.randn(2, 5), mode="epsilon")


def checked(explanation: Explanation) -> str:
    card = explanation._repr_html_()
    Check(card)
    assert len(card) < 200_000
    assert card.count("prediction") == 1
    assert "= seed" in card
    return card


Change = Callable[[Explanation], Explanation]
CHANGES: dict[str, Change] = {
    "as it is": lambda e: e,
    "without inputs": lambda e: dataclasses.replace(e, given={}),
    "evil names": lambda e: e.captioned(
        classes=[EVIL, "b", "c"], features={"row": [EVIL, *"bcde"]}, model=EVIL, kinds={"picture": "values"}
    ),
    "its own picture": lambda e: e.captioned(images={"picture": torch.rand(2, 1, 8, 8)}),
    "series": lambda e: e.captioned(kinds={"picture": "values", "row": "features"}),
    "evil options": lambda e: dataclasses.replace(e, options={EVIL: EVIL}),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_picture_and_a_row(found: Explanation, change: Change, tmp_path: Path) -> None:
    changed = change(found)
    card = checked(changed)
    assert "<script" not in card
    assert "onerror=" not in card.replace("&lt;img src=x onerror=", "")
    assert "sample 1 of 2" in card
    if EVIL not in changed.options:
        changed.save(tmp_path / "e")
        assert checked(Explanation.load(tmp_path / "e")) == card


def test_shares_are_those_of_the_ledger(found: Explanation) -> None:
    card = checked(found)
    shares = [float(part) for part in re.findall(r"<td>([-\d.]+) %</td><td>", card[card.index("ledger") :])]
    assert shares[-1] == 100
    assert sum(shares[:-1]) == pytest.approx(100)


@pytest.mark.parametrize(
    "asked",
    [
        {"mode": "contrastive"},
        {"targets": [0, 1, 2]},
        {"target": Contrast(1, against=0), "seed": "logit"},
        {"target": torch.ones(2, 3)},
        {"target": [2, 0], "mode": "gamma"},
        {"targets": [0, 1], "mode": "contrastive"},
        {"mode": "epsilon", "seed": "probability"},
    ],
    ids=["contrastive", "three targets", "a contrast", "weights", "by sample", "two contrastive", "probability"],
)
def test_every_way_to_ask(pictures: DLBacktrace, asked: dict[str, Any]) -> None:
    explanation = pictures.explain(torch.rand(2, 3, 8, 8), torch.randn(2, 5), **asked)
    card = checked(explanation.captioned(classes=["cat", "dog", "fox"]))
    assert ("ledger against it" in card) == (asked.get("mode") == "contrastive")
    assert ("target 1 of" in card) == ("targets" in asked)


@pytest.mark.parametrize("check", ["off", "ends"])
def test_without_books_by_node(check: str) -> None:
    checked(both(check=check).explain(torch.rand(2, 3, 8, 8), torch.randn(2, 5)))


def test_tokens_by_ids_by_text_and_as_embeddings(words: DLBacktrace) -> None:
    explanation = words.explain(torch.arange(14).reshape(2, 7))
    assert ">13</span>" not in checked(explanation)  # of the second sample
    assert ">6</span>" in checked(explanation)
    named = explanation.captioned(tokens=[[EVIL, *"abcdef"], [*"abcdefg"]])
    card = checked(named)
    assert "&lt;img src=x" in card
    assert "\\x1b[31m\\u202e" in card


def test_an_empty_batch_and_long_ones(words: DLBacktrace) -> None:
    long = checked(words.explain(torch.randint(50, (1, 3000))))
    assert "2750 more tokens" in long
    empty = dataclasses.replace(words.explain(torch.arange(14).reshape(2, 7)), output=torch.zeros(0, 3))
    assert "an empty batch" in empty._repr_html_()
    noise = torch.rand(1, 3, 300, 200), torch.randn(1, 5)
    card = checked(DLBacktrace(Both().eval(), noise).explain(*noise, mode="contrastive"))
    assert card.count("<img") == 3
    assert len(card) < LARGEST


@pytest.mark.parametrize(
    ("shape", "kind"),
    [((2, 12), "features"), ((2, 2, 6), "series"), ((2, 4, 5, 5), "image"), ((1, 2, 2, 3, 3), "values"), ((3,), "")],
    ids=str,
)
def test_inputs_of_every_shape(shape: tuple[int, ...], kind: str) -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.reshape(x.shape[0], -1).tanh().sum(1)

    x = torch.randn(shape)
    card = checked(DLBacktrace(Sum().eval(), x).explain(x, mode="epsilon"))
    assert kind in card
    assert "output [1]: values" in card


def test_values_that_are_no_numbers(found: Explanation) -> None:
    for relevance in found.inputs.values():
        assert relevance.is_floating_point()
    broken = dataclasses.replace(found, given={n: torch.full_like(t, torch.nan) for n, t in found.given.items()})
    checked(dataclasses.replace(broken, output=torch.full((2, 3), torch.nan)))
    checked(dataclasses.replace(found, output=torch.tensor(3.0)))


def test_a_generation() -> None:
    """By the ids of its tokens, whatever was asked for."""
    none = GenerationExplanation(torch.tensor([[1, 2, 3, 4]]), 2, torch.ones(1, 2, dtype=torch.bool))
    Check(none._repr_html_())
    ledger = Ledger(100.0, {"input_ids": 90.0}, {EVIL: 10.0}, 1.0, 1.0, 1.0, 1e-5)
    units = torch.tensor([[[60.0, 40.0, 0.0, 0.0], [10.0, -20.0, 110.0, 0.0]]])
    found = dataclasses.replace(none, steps=(0, 1), relevance=units, ledgers=(ledger, ledger), mode=EVIL)
    card = found._repr_html_()
    Check(card)
    assert "<td>-10.00 %</td><td>3 at 2 (+110), 2 at 1 (-20), 1 at 0 (+10)</td>" in card
    assert "1 +70" in card  # the first token of the prompt, in both
    assert "<td>180.00</td><td>90.00 %</td>" in card
    Check(dataclasses.replace(found, scores=torch.full((1, 2), -1.0))._repr_html_())


def test_targets_in_words() -> None:
    name = ["cat", "dog", "fox"].__getitem__
    said = {
        target_text(None): "the whole output",
        target_text(1, name): "dog",
        target_text((4, 1), name): "4, dog",
        target_text(Contrast(1), name): "dog against the rest",
        target_text(Contrast([0, 2], against=1), name): "cat + fox against dog",
        target_text({"logits": 2}, name): "logits: fox",
        target_text(torch.zeros(2, 3)): "weights [2, 3]",
        target_text(Query(3, 1)): str(Query(3, 1)),
    }
    assert [*said] == [*said.values()]


@pytest.mark.parametrize("size", [(1, 1), (5, 7), (64, 33)], ids=str)
def test_png_by_hand_is_read_by_pillow(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert (np.asarray(Image.open(io.BytesIO(png(pixels)))) == pixels).all()


def test_in_a_browser(browser: Any, found: Explanation, words: DLBacktrace, tmp_path: Path) -> None:
    """It renders, asks for nothing, and no name runs."""
    text = words.explain(torch.arange(14).reshape(2, 7), mode="epsilon")
    evil = text.captioned(tokens=[[EVIL, *"abcdef"], [*"abcdefg"]], classes=[EVIL, "b", "c"], model=EVIL)
    page = tmp_path / "cards.html"
    page.write_text(f"<!doctype html><meta charset=utf-8>{found._repr_html_()}{evil._repr_html_()}", "utf-8")
    opened(browser, page)
    assert browser.execute_script("return document.querySelectorAll('.dlb-card').length") == 2
    images = "return [...document.images].map(image => image.naturalWidth)"
    assert browser.execute_script(images) == [8, 8]
    shown = "return document.querySelectorAll('.dlb-card')[1].innerText"
    assert "<img src=x onerror=alert(1)>" in browser.execute_script(shown)
    assert errors(browser) == []
    assert requests(browser) == []
