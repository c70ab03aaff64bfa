"""Text on a picture: every character is shown as it is, or as something visible that the fonts have."""

from __future__ import annotations

import unicodedata
from functools import cache, lru_cache

from matplotlib.backends.backend_agg import RendererAgg
from matplotlib.font_manager import FontProperties, findfont, fontManager, get_font
from matplotlib.textpath import text_to_path

FAMILY = "DejaVu Sans"  # comes with matplotlib
#: where they are installed, for characters that it lacks
MORE_FAMILIES = (
    "Noto Sans",
    "Noto Sans CJK SC",
    "Noto Sans CJK JP",
    "Noto Sans SC",
    "Noto Sans JP",
    "Noto Sans KR",
    "Source Han Sans SC",
    "WenQuanYi Micro Hei",
    "WenQuanYi Zen Hei",
    "Droid Sans Fallback",
    "PingFang SC",
    "Hiragino Sans",
    "Apple SD Gothic Neo",
    "Microsoft YaHei",
    "SimHei",
    "Yu Gothic",
    "Malgun Gothic",
    "Arial Unicode MS",
    "Noto Sans Arabic",
    "Noto Sans Devanagari",
    "Noto Sans Bengali",
    "Noto Sans Tamil",
    "Noto Sans Thai",
    "Nirmala UI",
    "Leelawadee UI",
    "Noto Emoji",
    "Noto Sans Symbols",
    "Noto Sans Symbols 2",
    "Segoe UI Symbol",
)
USUAL = (100, 120)  # pixels an inch: glyphs are set at whole ones, which makes text wider
LACKING = "\N{WHITE SQUARE}"  # no font has it
ELLIPSIS = "\N{HORIZONTAL ELLIPSIS}"
VISIBLE = {
    "\n": "\N{RETURN SYMBOL}",
    "\r": "\\r",
    "\t": "\N{RIGHTWARDS ARROW TO BAR}",
    "\0": "\\0",
    "\N{LINE SEPARATOR}": "\N{RETURN SYMBOL}",
    "\N{PARAGRAPH SEPARATOR}": "\N{RETURN SYMBOL}",
}


def shown(text: str) -> str:
    """The text with control characters made visible, and a square for what no font has."""
    return "".join(map(_shown, text))


def shown_token(text: str) -> str:
    """The same for a token, which may be nothing but spaces."""
    if not text:
        return '""'
    return shown(text) if text.strip(" ") else "\N{OPEN BOX}" * len(text)


def font(text: str, size: float) -> FontProperties:
    """The font of a text, and those that help out; `text` as `shown` gives it."""
    return _properties(tuple(dict.fromkeys([FAMILY, *(_family(each) or FAMILY for each in text)])), size)


@lru_cache(maxsize=8192)
def width_of(text: str, size: float) -> float:
    """The width of a text in inches: as an outline, or where that is more, in whole pixels."""
    words = shown(text)
    outline = text_to_path.get_text_width_height_descent(words, font(words, size), False)[0] / 72
    pixels = (_pixels(dpi).get_text_width_height_descent(words, font(words, size), False)[0] / dpi for dpi in USUAL)
    return float(max(outline, *pixels))


def fit(text: str, width: float, size: float) -> str:
    """The text, or as much of its beginning and end as goes into `width` inches."""
    if width_of(text, size) <= width:
        return text
    low, high = 0, len(text) - 1  # so many characters fit; more than so many do not
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if width_of(_middle_cut(text, middle), size) <= width else (low, middle - 1)
    return _middle_cut(text, low)


def _middle_cut(text: str, kept: int) -> str:
    tail = kept // 3
    return text[: kept - tail] + ELLIPSIS + text[len(text) - tail :]


@cache
def _pixels(dpi: int) -> RendererAgg:
    return RendererAgg(1, 1, dpi)


@cache
def _shown(character: str) -> str:
    if character in VISIBLE:
        return VISIBLE[character]
    if unicodedata.category(character)[0] == "C":  # control, format (bidi overrides among them), surrogates, unassigned
        return character.encode("unicode_escape").decode()
    return character if _family(character) else LACKING


@cache
def _family(character: str) -> str | None:
    """The first family that has the character."""
    return next((family for family in _families() if ord(character) in _characters(family)), None)


@cache
def _families() -> tuple[str, ...]:
    installed = set(fontManager.get_font_names())
    return (FAMILY, *(family for family in MORE_FAMILIES if family in installed))


@cache
def _characters(family: str) -> frozenset[int]:
    face = get_font(findfont(FontProperties(family=[family])))
    return frozenset(face.get_charmap()) if face.scalable else frozenset()


@cache
def _properties(families: tuple[str, ...], size: float) -> FontProperties:
    return FontProperties(
        family=[*families], size=size, style="normal", variant="normal", weight="normal", stretch="normal"
    )
