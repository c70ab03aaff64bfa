"""Coloured text: what a token holds does nothing, anywhere; numbers are there beside colours."""

from __future__ import annotations

import io
import re
from html.parser import HTMLParser

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from torch import Tensor, nn

from dlb_core import DLBacktrace, Explanation
from dlb_core.pipeline import Word, Words
from dlb_core.plain import JOINERS
from dlb_core.viz.colour import colour_of, colours, ink_on
from dlb_core.viz.text import NEW_LINE, ColouredText, coloured_text, page, shown

HOSTILE = ["<script>alert(1)</script>", "\x1b[31mred\x07", "\u202eevil\u2066", "' onload='x", "a\nb", "\ud800", "[red]"]
SGR = re.compile(r"\x1b\[[0-9;]*m")
units = st.floats(-1e6, 1e6) | st.sampled_from([0.0, float("nan"), float("inf"), -1e-300])
tokens = st.text(max_size=8) | st.sampled_from(HOSTILE)
texts = st.lists(st.tuples(tokens, st.none() | units), max_size=8)


class Read(HTMLParser):
    """The text of a fragment, its tags and attributes."""

    def __init__(self, fragment: str) -> None:
        super().__init__()
        self.text, self.tags, self.attributes = "", [], []
        self.feed(fragment)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs

    def handle_data(self, data: str) -> None:
        self.text += data


class Ids(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table, self.out = nn.Embedding(20, 6), nn.Linear(6, 3)

    def forward(self, ids: Tensor, x: Tensor) -> Tensor:
        return self.out((self.table(ids) * x).tanh().mean(1))


@pytest.fixture(scope="module")
def dlb() -> DLBacktrace:
    torch.manual_seed(0)
    return DLBacktrace(Ids().eval(), (torch.arange(8).reshape(2, 4), torch.randn(2, 4, 6)))


@pytest.fixture(scope="module")
def contrastive(dlb: DLBacktrace) -> Explanation:
    found = dlb.explain(torch.arange(8).reshape(2, 4), torch.randn(2, 4, 6), mode="contrastive")
    return found.captioned(tokens={"ids": [["It", " is", " so", " good"], ["no", " way", "!", "\n"]]})


@settings(max_examples=60)
@given(texts, st.text(max_size=5) | st.sampled_from(HOSTILE))
def test_no_token_steers_a_terminal_or_a_page(parts: list[tuple[str, float | None]], title: str) -> None:
    text = ColouredText(tuple(t for t, _ in parts), tuple(u for _, u in parts), title)
    for colours_ in ("truecolor", "256"):
        left = SGR.sub("", text.ansi(colours_))
        assert all(c.isprintable() or c in f"\n{JOINERS}" for c in left)
    for told in (str(text), text.inline(), text.__rich__().plain):
        assert all(c.isprintable() or c in f"\n{JOINERS}" for c in told)
    read = Read(page([text], title))
    assert {*read.tags} <= {"html", "meta", "title", "body", "div", "span"}
    allowed = {"style", "title", "role", "aria-label", "aria-hidden", "dir", "charset", "name", "content"}
    assert {name for name, _ in read.attributes} <= allowed
    assert not any("url(" in (value or "") for name, value in read.attributes if name == "style")


@settings(max_examples=40)
@given(st.lists(st.tuples(st.text(), st.none() | st.floats(-9, 9)), min_size=1, max_size=6))
def test_a_page_keeps_the_text(parts: list[tuple[str, float | None]]) -> None:
    text = ColouredText((" ", *(t for t, _ in parts)), (None, *(u for _, u in parts)))
    read = Read(text.html())
    assert read.text.startswith(" " + "".join(shown(t) for t, _ in parts))
    assert "white-space:pre-wrap" in text.html()


def test_a_token_says_its_units_to_eyes_mouse_and_reader() -> None:
    text = ColouredText(("good", " bad", " so"), (8.0, -4.0, 0.0))
    read = Read(text.html())
    assert [value for name, value in read.attributes if name == "title"] == ["+8", "-4", "+0"]
    assert [v for n, v in read.attributes if n == "aria-label"] == ["good +8", "bad -4", "so +0"]
    assert "background:#820019;color:#ffffff" in text.html()  # the ends of the scale
    assert "background:#4382c3;color:#000000" in text.html()
    assert ">-8</span>" in text.html()
    assert ">+8</span>" in text.html()
    assert str(text).splitlines() == ["good    bad     so", "+8.000  -4.000  +0.000"]


def test_plain_text_lines_up_and_is_not_wide() -> None:
    some = ["This", " 東京", " naïve", " \n", " 👍", "x" * 30] * 6
    lines = str(ColouredText(tuple(some), tuple(float(i) for i in range(36)), "title")).splitlines()
    assert lines[0] == "title"
    assert max(map(cell_len, lines)) <= 96
    rows = [line for line in lines[1:] if line]
    for above, below in zip(rows[::2], rows[1::2], strict=True):
        starts = [m.start() for m in re.finditer(r"\S+", below)]
        cut = [above_cells(above, start) for start in starts]
        assert all(piece and not piece[0].isspace() for piece in cut)


def above_cells(line: str, start: int) -> str:
    """The text from a column of the terminal on."""
    return next(line[i:] for i in range(len(line) + 1) if cell_len(line[:i]) >= start)


def test_words_without_spaces_are_set_apart_and_pieces_are_not() -> None:
    assert ColouredText(("a", "b,\n", "c"), (1.0, 2.0, 3.0)).__rich__().plain == f"a b,{NEW_LINE}\n c"
    assert ColouredText(("a", " b", "c"), (1.0, 2.0, 3.0)).__rich__().plain == "a bc"


def test_on_a_terminal_words_have_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    text = ColouredText(("good", ", ", "bad\x1b"), (8.0, None, -4.0))
    assert SGR.sub("", text.ansi("truecolor")) == "good, bad\\x1b"
    assert "48;2;130;0;25mgood" in text.ansi("truecolor")
    assert "48;2;67;130;195mbad" in text.ansi("truecolor")
    assert re.search(r"48;5;\d+mgood", text.ansi("256"))
    monkeypatch.setenv("COLORTERM", "truecolor")
    assert text.ansi() == text.ansi("truecolor")
    monkeypatch.delenv("COLORTERM")
    assert text.ansi() == text.ansi("256")
    with pytest.raises(ValueError, match="choose one of 'auto', 'truecolor', '256'"):
        text.ansi("16")  # type: ignore[arg-type]
    screen = io.StringIO()
    Console(file=screen, force_terminal=True, color_system="truecolor", no_color=False).print(text)
    assert "48;2;130;0;25mgood" in screen.getvalue()


@settings(max_examples=60)
@given(st.floats(-1, 1))
def test_ink_is_read_on_every_colour(part: float) -> None:
    def luminance(colour: tuple[int, int, int]) -> float:
        linear = [c / 12.92 if (c := v / 255) <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for v in colour]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    colour = colour_of(part, 1.0)
    assert [*colour] == colours(torch.tensor([[part]], dtype=torch.float64), 1.0)[0, 0].tolist()
    low, high = sorted((luminance(colour), luminance(ink_on(colour))))
    assert (high + 0.05) / (low + 0.05) >= 4.5


def test_of_an_explanation(contrastive: Explanation) -> None:
    text = contrastive.text()
    assert text.tokens == ("It", " is", " so", " good")
    assert text.title == "for the target"
    (against,) = text.below
    assert [*text.units] == contrastive.positive["ids"][0].tolist()
    assert [*against.units] == contrastive.negative["ids"][0].tolist()
    assert text.limit == against.limit == max(*text.units, *against.units)  # one scale for both
    assert contrastive.text(sample=1).tokens[-1] == "\n"
    assert str(text).count("against it") == text.html().count("against it") == 1


def test_what_is_not_there(contrastive: Explanation, dlb: DLBacktrace) -> None:
    with pytest.raises(ValueError, match="choose from ids"):
        contrastive.text("x")
    with pytest.raises(ValueError, match="sample=2"):
        contrastive.text(sample=2)
    two = contrastive.captioned(kinds={"x": "tokens"})
    with pytest.raises(ValueError, match="several inputs with tokens: name one of ids, x"):
        coloured_text(two)
    assert len(two.text("x").tokens) == 4
    net = DLBacktrace(nn.Linear(3, 2).eval(), torch.randn(1, 3))
    with pytest.raises(ValueError, match="no input has tokens"):
        net.explain(torch.randn(1, 3)).text()
    with pytest.raises(ValueError, match="2 tokens and 1 units"):
        ColouredText(("a", "b"), (1.0,))


def test_the_first_tokens_say_what_is_left_out() -> None:
    text = ColouredText(("a", " b", " c"), (1.0, 2.0, 8.0)).first(2)
    assert (text.tokens, text.scale) == (("a", " b", " ... 1 more tokens: +8"), 8.0)
    assert ColouredText(("a",), (1.0,)).first(1).tokens == ("a",)


def test_words_stand_in_their_text() -> None:
    words = Words(
        (Word("good", 8.0, (1,), 0, (0, 4)), Word("bad", -4.0, (2,), 0, (6, 9)), Word("so", 1.0, (3,), 1, (1, 3))),
        (Word("[CLS]", 90.0, (0,)),),
    )
    text = words.coloured("label", ("good, bad", " so"))
    assert text.tokens == ("good", ", ", "bad", "\n ", "so")
    assert text.units == (8.0, None, -4.0, None, 1.0)
    assert text.inline() == f"label\ngood(+8), bad(-4){NEW_LINE}\n so(+1)\nspecial tokens\n[CLS](+90)"
    assert text.scale == 8.0  # what a tokenizer adds does not make words pale
    assert words.coloured().tokens == ("good", " ", "bad", " ", "so")
