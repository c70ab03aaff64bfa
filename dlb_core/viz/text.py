"""Coloured text: tokens or words with their units, for a terminal, for a page and as plain text."""

from __future__ import annotations

import html
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

from rich.cells import cell_len
from rich.color import Color, ColorSystem

from dlb_core.choices import choose
from dlb_core.plain import JOINERS, plain
from dlb_core.table import aligned
from dlb_core.viz.colour import STOPS, colour_of, hexadecimal, ink_on
from dlb_core.viz.view import views

if TYPE_CHECKING:
    from rich.text import Text

    from dlb_core.explanation import Explanation

COLOURS = ("auto", "truecolor", "256")
WEAK = 0.02  # of the end of the scale: as good as white
WIDTH = 96  # of plain text, in columns
NEW_LINE = "\u21b5"  # shown where a token breaks the line


@dataclass(frozen=True)
class ColouredText:
    """Tokens in reading order with their units: red above zero, blue below.

    units: one for each token; None for text between tokens, which has none. title: a line above. limit: the end of the
    colour scale (default: the largest of the units). below: more of them, such as the other map of a contrastive mode.
    `str()` is plain text, `ansi()` is for a terminal (rich prints it, too), `html()` for a page.
    """

    tokens: tuple[str, ...]
    units: tuple[float | None, ...]
    title: str = ""
    limit: float | None = None
    below: tuple[ColouredText, ...] = ()

    def __post_init__(self) -> None:
        if len(self.tokens) != len(self.units):
            raise ValueError(f"{len(self.tokens)} tokens and {len(self.units)} units: give one for each")

    @property
    def scale(self) -> float:
        """Where the colours end, in units."""
        found = (abs(u) for u in self.units if u is not None and math.isfinite(u))
        return max(found, default=0.0) if self.limit is None else self.limit

    def __str__(self) -> str:
        """The tokens, each with its units below it."""
        rows = [(plain(t, keep=JOINERS).strip() or repr(t), u) for t, u in self._apart() if u is not None]
        told = aligned([u for _, u in rows], sign="+")
        lines, above, below = [plain(self.title)] if self.title else [], "", ""
        for (token, _), units in zip(rows, told, strict=True):
            width = max(cell_len(token), len(units)) + 2
            if above and len(below) + width > WIDTH:
                lines += [above.rstrip(), below.rstrip(), ""]
                above, below = "", ""
            above += token + " " * (width - cell_len(token))
            below += units.ljust(width)
        lines += [above.rstrip(), below.rstrip()]
        return "\n\n".join(["\n".join(lines), *map(str, self.below)])

    def inline(self) -> str:
        """The text as it reads, each token followed by its units: where there are no colours."""
        parts = [shown(t) + ("" if u is None else f"({u:+.3g})") for t, u in self._apart()]
        return "\n".join(
            [*([plain(self.title)] if self.title else []), "".join(parts), *(t.inline() for t in self.below)]
        )

    def __rich__(self) -> Text:
        from rich.text import Text  # only here: importing it draws a random number

        made = Text.assemble((f"{plain(self.title)}\n" if self.title else "", "dim"))
        for token, units in self._apart():
            paint = self._paint(units)
            made.append(shown(token), " on ".join(map(hexadecimal, paint)) if paint else "")
        for other in self.below:
            made.append("\n").append_text(other.__rich__())
        return made

    def ansi(self, colours: Literal["auto", "truecolor", "256"] = "auto") -> str:
        """The text with escape sequences of a terminal: "truecolor", "256" colours, or what COLORTERM says ("auto")."""
        choose("colours", colours, COLOURS)
        if colours == "auto":
            colours = "truecolor" if os.environ.get("COLORTERM") in ("truecolor", "24bit") else "256"
        system = ColorSystem.TRUECOLOR if colours == "truecolor" else ColorSystem.EIGHT_BIT
        parts = [f"\x1b[2m{plain(self.title)}\x1b[0m\n"] if self.title else []
        for token, units in self._apart():
            paint = self._paint(units)
            if paint is None:
                parts.append(shown(token))
                continue
            below = Color.parse(hexadecimal(paint[1])).downgrade(system)  # what the terminal has of this colour
            ink = Color.parse(hexadecimal(ink_on(below.get_truecolor()))).downgrade(system)
            start = ";".join((*ink.get_ansi_codes(), *below.get_ansi_codes(foreground=False)))
            parts.append("\n".join(f"\x1b[{start}m{line}\x1b[0m" if line else "" for line in shown(token).split("\n")))
        return "".join(parts) + "".join(f"\n{other.ansi(colours)}" for other in self.below)

    def html(self) -> str:
        """A fragment of HTML that needs no style sheet: each token escaped, its units where the mouse rests on it.

        A screen reader says the units, too. White space is kept, a new line is marked; a strip below says what the
        colours mean.
        """
        whole = (self, *self.below)
        signed = any(u is not None and u < 0 for each in whole for u in each.units)
        bar = scale_bar(self.scale, signed=signed) if self.scale else ""
        return f"<div>{''.join(each._passage() for each in whole)}{bar}</div>"

    def _repr_html_(self) -> str:
        return self.html()

    def first(self, count: int) -> ColouredText:
        """The first so many tokens on the same scale; the text says how many more there are, and their units."""
        below = tuple(other.first(count) for other in self.below)
        if len(self.tokens) <= count:
            return replace(self, below=below)
        rest = math.fsum(u for u in self.units[count:] if u is not None)
        more = f" ... {len(self.tokens) - count} more tokens: {rest:+.3g}"
        tokens, units = (*self.tokens[:count], more), (*self.units[:count], None)
        return replace(self, tokens=tokens, units=units, limit=self.scale, below=below)

    def _apart(self) -> list[tuple[str, float | None]]:
        """Tokens and units; a space between tokens that bring none of their own."""
        pairs = list(zip(self.tokens, self.units, strict=True))
        if any(u is None or t != t.strip(" ") for t, u in pairs):
            return pairs
        return [part for pair in pairs for part in ((" ", None), pair)][1:]

    def _part(self, units: float | None) -> float:
        """Where units lie on the scale, from -1 to 1; 0 for what is as good as white."""
        if units is None or not math.isfinite(units) or not self.scale:
            return 0.0
        part = max(-1.0, min(1.0, units / self.scale))
        return part if abs(part) >= WEAK else 0.0

    def _paint(self, units: float | None) -> tuple[Sequence[int], Sequence[int]] | None:
        """The ink and the colour below it; None for what is as good as white."""
        part = self._part(units)
        colour = colour_of(part, 1.0)
        return (ink_on(colour), colour) if part else None

    def _passage(self) -> str:
        title = f'<div style="font-size:.85em;opacity:.75">{escaped(self.title)}</div>' if self.title else ""
        style = "white-space:pre-wrap;overflow-wrap:anywhere;line-height:1.9;margin:.2em 0 .6em"
        spans = "".join(self._span(token, units) for token, units in self._apart())
        return f'{title}<div dir="auto" style="{style}">{spans}</div>'

    def _span(self, token: str, units: float | None) -> str:
        text = escaped(shown(token))
        if units is None:
            return text
        paint = self._paint(units)
        style = "" if paint is None else f";background:{hexadecimal(paint[1])};color:{hexadecimal(paint[0])}"
        told = f"{units:+.4g}"
        label = escaped(f"{token.strip() or repr(token)} {told}")
        return (
            f'<span role="img" aria-label="{label}" title="{told}" '
            f'style="padding:.15em .1em;border-radius:.2em;unicode-bidi:isolate{style}">{text}</span>'
        )


def coloured_text(
    explanation: Explanation, name: str | None = None, *, sample: int = 0, target: int = 0
) -> ColouredText:
    """The tokens of an input of one sample; of a contrastive mode for the target, and below it against it.

    name: which input (default: the only one that has tokens). Raises ValueError for an input without tokens.
    """
    there = [view for view in views(explanation, sample=sample, target=target) if view.kind == "tokens"]
    names = [*dict.fromkeys(view.name for view in there)]
    if name is None and len(names) > 1:
        raise ValueError(f"there are several inputs with tokens: name one of {', '.join(names)}")
    if (name or "") not in names and (name is not None or not names):
        what = "no input has tokens" if name is None else f"input {name!r} has no tokens"
        known = f"choose from {', '.join(names)}" if names else "kinds={name: 'tokens'} of captioned says which has"
        raise ValueError(f"{what}: {known}")
    found = [view for view in there if view.name == (name or names[0])]
    limit = max((float(view.units.abs().max()) for view in found if view.units.numel()), default=0.0)
    each = [ColouredText(view.labels, tuple(view.units.tolist()), view.side, limit) for view in found]
    return replace(each[0], below=tuple(each[1:]))


def shown(token: str) -> str:
    """A token as it may be shown: what steers a terminal is spelled out, a new line marked and kept."""
    return plain(token.replace("\r\n", "\n"), keep=f"{JOINERS}\n").replace("\n", f"{NEW_LINE}\n")


def escaped(text: str) -> str:
    """Text for a page: neither markup nor marks of direction do anything."""
    return html.escape(plain(text, keep=f"{JOINERS}\n\u00a0\u3000"))


def page(texts: Iterable[ColouredText], title: str) -> str:
    """A page of coloured texts, light or dark as the reader has it; nothing is loaded."""
    head = "<!doctype html><html><meta charset='utf-8'><meta name='color-scheme' content='light dark'>"
    style = "font:16px/1.5 system-ui,sans-serif;margin:2em auto;padding:0 1em;max-width:60em"
    body = "\n<hr style='border:0;margin:1.2em 0'>".join(text.html() for text in texts)
    return f"{head}<title>{escaped(title)}</title><body style='{style}'>\n{body}\n</body></html>\n"


def scale_bar(limit: float, *, signed: bool = True) -> str:
    """What the colours say, as a strip with its ends in units."""
    stops = STOPS if signed else STOPS[len(STOPS) // 2 :]
    colours = ",".join(map(hexadecimal, stops))
    low = f"{-limit:.3g}" if signed else "0"
    strip = f"display:inline-block;width:8em;height:.7em;border-radius:.2em;background:linear-gradient(90deg,{colours})"
    return (
        f'<div style="font-size:.85em"><span style="opacity:.75">{low}</span> '
        f'<span aria-hidden="true" style="{strip}"></span> <span style="opacity:.75">{limit:+.3g}</span></div>'
    )
