"""Generated text: a matrix of tokens by tokens, or the text before one token in colour."""

from __future__ import annotations

import torch
from torch import Tensor

from dlb_core.viz.generation import Read, Written
from dlb_core.viz.plots.digits import total
from dlb_core.viz.plots.matrix import Matrix
from dlb_core.viz.plots.picture import Block, Picture, compose
from dlb_core.viz.plots.scale import Scale
from dlb_core.viz.plots.tokens import HALF, WIDTH, Tokens
from dlb_core.viz.plots.words import shown_token

NUMBERED = 400  # cells with numbers in them


def matrix_of(written: Written) -> Picture:
    """Generated tokens from above, what they came from from left to right; two maps below each other."""
    real = [n for n, here in enumerate(written.real) if here]
    if not real:
        raise ValueError(f"sample {written.sample}: no explained token is a part of this text")
    scale = Scale.of(*(units[real] for text in written.texts for units in text.units.values()))
    sides = [*written.texts[0].units]
    rows: list[list[Block]] = [
        [_map(written, text, side, real, scale, bar=text is written.texts[-1]) for text in written.texts]
        for side in sides
    ]
    return compose(_heading(written, "What each token came from"), rows)


def _map(written: Written, text: Read, side: str, real: list[int], scale: Scale, *, bar: bool) -> Matrix:
    units = text.units[side][real].clone()
    for row, n in zip(units, real, strict=True):
        row[text.seen[n] :] = torch.nan
    digits = scale.digits
    texts = [[digits.text(n) for n in row] for row in units.tolist()] if units.numel() <= NUMBERED else None
    what = ", ".join(filter(None, [text.name, side]))
    after = [] if text.prompt is None or not 0 < text.prompt < len(text.labels) else [text.prompt - 1]
    return Matrix(
        f"{text.name} {side}".strip(),
        what,
        units,
        [_name(written.tokens[n]) for n in real],
        [_name(label) for label in text.labels],
        scale,
        texts,
        notes=[total(float(row.nansum())) for row in units],
        after=after,
        bar=bar,
        cell=(0.44, 0.26),
    )


def one_token(written: Written, n: int) -> Picture:
    """The text before token `n`, that token framed; an encoder's text beside it."""
    sides = [*written.texts[0].units]
    units = {side: [text.units[side][n, : text.seen[n]] for text in written.texts] for side in sides}
    scale = Scale.of(*(each for parts in units.values() for each in parts))
    width = WIDTH if len(written.texts) == 1 else HALF
    rows: list[list[Block]] = [
        [_text(written, text, n, side, each, scale, width) for text, each in zip(written.texts, parts, strict=True)]
        for side, parts in units.items()
    ]
    what = f"Token {written.steps[n]}: {shown_token(written.tokens[n])}"
    return compose(_heading(written, what), rows)


def _text(written: Written, text: Read, n: int, side: str, units: Tensor, scale: Scale, width: float) -> Tokens:
    title = ", ".join(filter(None, [text.name, side, f"sum {total(float(units.nansum()))}"]))
    name = f"{text.name} {side}".strip()
    labels = text.labels[: text.seen[n]]
    if text.prompt is None:
        return Tokens(name, title, labels, units, scale, width)
    own = frozenset([text.prompt] if 0 < text.prompt < len(labels) + 1 else [])
    with_it = torch.cat([units, units.new_tensor([torch.nan])])
    texts = [*labels, written.tokens[n]]
    return Tokens(name, title, texts, with_it, scale, width, frozenset([len(labels)]), own)


def _heading(written: Written, what: str) -> list[str]:
    where = f"sample {written.sample} of {written.samples}" if written.samples > 1 else ""
    second = " · ".join(filter(None, [f"mode {written.mode}" if written.mode else "", where]))
    return [what, second] if second else [what]


def _name(token: str) -> str:
    """A token at the edge of a matrix, where the space before it says nothing."""
    return shown_token(token.strip(" ") or token)
