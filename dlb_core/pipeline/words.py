"""Words: relevance of tokens added up to the words that a reader sees; what a tokenizer added stands apart."""

from __future__ import annotations

import bisect
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.table import Table
from dlb_core.viz.text import ColouredText

Span = tuple[int, int]

#: Scripts that put no space between words; a character is the least that can be told apart.
UNSPACED = (
    (0x0E00, 0x0EFF),  # Thai, Lao
    (0x1000, 0x109F),  # Myanmar
    (0x1780, 0x17FF),  # Khmer
    (0x3040, 0x30FF),  # kana
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x20000, 0x3FFFF),  # Han
)
ZERO_WIDTH_JOINER = "\u200d"
SKIN_TONES = range(0x1F3FB, 0x1F400)


@dataclass(frozen=True)
class Pieces:
    """What a tokenizer made of one sample: which part of which text each token stands for.

    texts: one, or two of a pair. tokens: the vocabulary's own spelling. places: of each token (text, start, stop) in
    characters, None where it stands for no text. special: which were added (padding is special, too).
    """

    texts: tuple[str, ...]
    tokens: tuple[str, ...]
    places: tuple[tuple[int, int, int] | None, ...]
    special: tuple[bool, ...]

    def words(self, relevance: Tensor) -> Words:
        """Relevance [tokens] by words; the sum is kept. Raises ValueError for another number of tokens."""
        if relevance.shape != (len(self.tokens),):
            raise ValueError(f"relevance has shape {list(relevance.shape)} for {len(self.tokens)} tokens")
        units = relevance.detach().double().cpu()
        groups, special = self._groups()
        words = tuple(self._word(positions, units) for positions in groups)
        return Words(words, tuple(self._word(positions, units) for positions in special))

    def shown(self) -> tuple[str, ...]:
        """Each token as a reader sees it: its characters with the white space before them, else its own spelling."""
        ends = [0] * len(self.texts)
        found = []
        for token, place, special in zip(self.tokens, self.places, self.special, strict=True):
            text = ""
            if place is not None and not special:
                number, start, stop = place
                text = self.texts[number][min(ends[number], start) : stop]
                ends[number] = stop
            found.append(text or token)
        return tuple(found)

    def and_then(self, text: str, tokens: Sequence[str], places: Sequence[Span], special: Sequence[bool]) -> Pieces:
        """These pieces followed by those of one more text, as a model writes it."""
        number = len(self.texts)
        return Pieces(
            (*self.texts, text),
            (*self.tokens, *tokens),
            (*self.places, *((number, start, stop) for start, stop in places)),
            (*self.special, *special),
        )

    def until(self, count: int) -> Pieces:
        """The first so many tokens."""
        return Pieces(self.texts, self.tokens[:count], self.places[:count], self.special[:count])

    def _groups(self) -> tuple[list[list[int]], list[list[int]]]:
        """Positions by word in reading order, and those of special tokens (equal ones side by side are one)."""
        words: dict[Any, list[int]] = {}
        special: list[list[int]] = []
        homes = self._homes()
        for i in range(len(self.tokens)):
            if not self.special[i]:
                words.setdefault(self._home(i, homes), []).append(i)
            elif i and self.special[i - 1] and self.tokens[i - 1] == self.tokens[i]:
                special[-1].append(i)
            else:
                special.append([i])
        return [*words.values()], special

    def _home(self, i: int, homes: dict[int, tuple[int, int]]) -> Any:
        """The word of a token. White space belongs to the word after it, else to the one before; a new line to none."""
        place = self.places[i]
        if i in homes or place is None:
            return homes.get(i, i)
        if "\n" in self.texts[place[0]][place[1] : place[2]]:
            return i
        for beside in (range(i + 1, len(self.tokens)), range(i - 1, -1, -1)):
            for j in beside:
                if self.special[j] or (other := self.places[j]) is None or other[0] != place[0]:
                    break
                if j in homes:
                    return homes[j]
        return i

    def _homes(self) -> dict[int, tuple[int, int]]:
        """Token -> (text, first segment of its word); segments that one token reaches over are one word."""
        segments = [segment(text) for text in self.texts]
        goes_on = [[False] * len(spans) for spans in segments]  # is a segment of the word of the one before?
        at: dict[int, tuple[int, int]] = {}
        for i, place in enumerate(self.places):
            if place is None or self.special[i]:
                continue
            text, start, stop = place[0], *_stripped(self.texts[place[0]], place[1], place[2])
            if start == stop:
                continue
            spans = segments[text]
            number = bisect.bisect_right(spans, start, key=lambda span: span[1])
            at[i] = (text, number)
            while number + 1 < len(spans) and spans[number + 1][0] < stop:
                number += 1
                goes_on[text][number] = True
        first: list[list[int]] = []
        for text, flags in enumerate(goes_on):
            first.append([])
            for number, on in enumerate(flags):
                first[text].append(first[text][-1] if on else number)
        return {i: (text, first[text][number]) for i, (text, number) in at.items()}

    def _word(self, positions: Sequence[int], units: Tensor) -> Word:
        relevance = float(units[torch.tensor([*positions])].sum())
        places = [place for i in positions if (place := self.places[i]) is not None]
        if self.special[positions[0]] or not places:
            return Word(self.tokens[positions[0]], relevance, tuple(positions))
        text, start, stop = places[0][0], min(p[1] for p in places), max(p[2] for p in places)
        inner = _stripped(self.texts[text], start, stop)
        start, stop = inner if inner[0] < inner[1] else (start, stop)
        return Word(self.texts[text][start:stop], relevance, tuple(positions), text, (start, stop))


@dataclass(frozen=True)
class Word:
    """A word with its units (signed). tokens: positions. text_index, span: which characters of which text."""

    text: str
    relevance: float
    tokens: tuple[int, ...]
    text_index: int | None = None
    span: Span | None = None


@dataclass(frozen=True)
class Words(Sequence[Word]):
    """The words of a sample in reading order; `special` holds what the tokenizer added. Together: all relevance."""

    words: tuple[Word, ...]
    special: tuple[Word, ...] = ()

    def __getitem__(self, index: Any) -> Any:
        return self.words[index]

    def __len__(self) -> int:
        return len(self.words)

    def __iter__(self) -> Iterator[Word]:
        return iter(self.words)

    @property
    def total(self) -> float:
        """All units, those of special tokens too."""
        return sum(word.relevance for word in (*self.words, *self.special))

    def strongest(self, top: int = 5) -> tuple[Word, ...]:
        """The words with the most units for or against, the largest first."""
        return tuple(sorted(self.words, key=lambda word: -abs(word.relevance))[:top])

    def coloured(self, title: str = "", texts: Sequence[str] = ()) -> ColouredText:
        """The words as coloured text, special tokens below it. texts: what they are of, to show what lies between."""
        tokens: list[str] = []
        units: list[float | None] = []
        limit = max((abs(word.relevance) for word in self.words), default=0.0)
        last, end = 0, 0
        for word in self.words:
            gap = " " if tokens else ""
            if texts and word.span is not None and word.text_index is not None:
                if word.text_index != last:
                    gap, last, end = "\n" if tokens else "", word.text_index, 0
                gap, end = ("" if gap == " " else gap) + texts[last][end : word.span[0]], word.span[1]
            if gap:
                tokens.append(gap)
                units.append(None)
            tokens.append(word.text)
            units.append(word.relevance)
        apart = ColouredText(
            tuple(word.text for word in self.special),
            tuple(word.relevance for word in self.special),
            "special tokens",
            limit,
        )
        return ColouredText(tuple(tokens), tuple(units), title, limit, (apart,) if self.special else ())

    def records(self) -> list[dict[str, Any]]:
        """One dictionary per word and special token, as the files hold it."""
        found = []
        for special, group in ((False, self.words), (True, self.special)):
            for word in group:
                found.append(
                    {
                        "text": word.text,
                        "relevance": word.relevance,
                        "tokens": [*word.tokens],
                        "text_index": word.text_index,
                        "span": None if word.span is None else [*word.span],
                        "special": special,
                    }
                )
        return found

    def table(self) -> Table:
        """Words with their units, then the special tokens, then the sum."""
        rows: list[tuple[Any, ...]] = [(word.text, word.relevance, "") for word in self.words]
        rows += [(word.text, word.relevance, "special") for word in self.special]
        return Table(("word", "relevance", ""), [*rows, ("= sum", self.total, "")], title="relevance by words")

    def __str__(self) -> str:
        return str(self.table())


def _stripped(text: str, start: int, stop: int) -> Span:
    """A span without white space at its ends; of white space alone nothing is left."""
    piece = text[start:stop]
    left = len(piece) - len(piece.lstrip())
    return (start + left, stop - (len(piece) - len(piece.rstrip()))) if left < len(piece) else (start, start)


def segment(text: str) -> list[Span]:
    """Where the words, numbers, signs of a text are: its characters without white space, each in one span.

    Letters, digits and their marks hold together, so do an apostrophe between letters, a point or comma between
    digits, and what a zero-width joiner joins; of scripts without spaces every character stands alone.
    """
    spans: list[Span] = []
    before = ""  # the kind of the last character: what may go on with it
    for i, char in enumerate(text):
        kind = _kind(char)
        if kind == "joins":
            goes_on = bool(spans) and spans[-1][1] == i
            kind = before if goes_on and char != ZERO_WIDTH_JOINER else kind
        elif kind == "sign" and before in ("letter", "digit") and _inside(text, i, before):
            goes_on, kind = True, before
        else:
            goes_on = before == "joins" or (kind in ("letter", "digit") and before in ("letter", "digit"))
            goes_on = goes_on and bool(spans) and spans[-1][1] == i
        if kind != "space":
            if goes_on:
                spans[-1] = (spans[-1][0], i + 1)
            else:
                spans.append((i, i + 1))
        before = kind
    return spans


def _kind(char: str) -> str:
    if char.isspace():
        return "space"
    category, point = unicodedata.category(char), ord(char)
    if category[0] == "M" or category == "Cf" or point in SKIN_TONES:
        return "joins"
    if any(low <= point <= high for low, high in UNSPACED):
        return "alone"
    if category[0] == "L" or char == "_":
        return "letter"
    return "digit" if category[0] == "N" else "sign"


def _inside(text: str, i: int, before: str) -> bool:
    """Is the sign at i within a word (don't) or a number (3.14)?"""
    after = _kind(text[i + 1]) if i + 1 < len(text) else ""
    return after == before and text[i] in ("'\u2019" if before == "letter" else ".,")
