"""What a notebook shows of an explained generation: each token with its strongest sources, the prompt, the ledger."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from torch import Tensor

from dlb_core.findings import summed
from dlb_core.viz.notebook import TOKENS, books, framed, heading, rows, section
from dlb_core.viz.text import ColouredText, escaped

if TYPE_CHECKING:
    from dlb_core.generation.result import GenerationExplanation

SHOWN, SOURCES = 20, 3  # tokens, and sources of each


def generation_card(found: GenerationExplanation) -> str:
    """The first sequence, by the ids of its tokens; `to_html` reads them with a tokenizer."""
    parts = [heading("", found.mode, found.options)]
    sequences = len(found.sequences)
    notes = [f"sequence 1 of {sequences}"] if sequences > 1 else []
    written = int(found.generated[0].sum()) if sequences else 0
    notes.append(f"{found.prompt_length} tokens of a prompt, {written} written; tokens by their ids")
    parts.append(f"<p>{'; '.join(notes)}</p>")
    if sequences and found.relevance is not None and found.steps:
        parts += [_tokens(found, found.relevance[0]), _prompt(found, found.relevance[0])]
    if found.ledgers:
        detail = f"of {len(found.ledgers)} tokens" + (f" in {sequences} sequences" if sequences > 1 else "")
        parts.append(books("ledger", summed(found.ledgers), detail))
    return framed(parts)


def _tokens(found: GenerationExplanation, relevance: Tensor) -> str:
    """A line for each explained token: its id, how probable it was, where its units came from."""
    ids = found.sequences[0].tolist()
    cells = []
    for step, units in list(zip(found.steps, relevance.detach().cpu().double(), strict=True))[:SHOWN]:
        whole, prompt = float(units.sum()), float(units[: found.prompt_length].sum())
        best = units.abs().topk(min(SOURCES, len(units))).indices.tolist()
        told = ", ".join(f"{ids[i]} at {i} ({float(units[i]):+.3g})" for i in best if units[i])
        sure = "" if found.scores is None else f"{100 * math.exp(float(found.scores[0, step])):.2f} %"
        share = f"{100 * prompt / whole:.2f} %" if whole else "-"
        cells.append([str(step + 1), str(ids[found.prompt_length + step]), sure, share, escaped(told)])
    more = len(found.steps) - len(cells)
    rest = f"<p>and {more} more</p>" if more else ""
    columns = ("token", "id", "probability", "from the prompt", "strongest sources")
    return section("tokens", rows(columns, cells, told=True) + rest)


def _prompt(found: GenerationExplanation, relevance: Tensor) -> str:
    """The prompt by what it gave to all explained tokens together."""
    units = relevance.detach().cpu().double().sum(0)[: found.prompt_length].tolist()
    ids = map(str, found.sequences[0, : found.prompt_length].tolist())
    return section("prompt", ColouredText(tuple(ids), tuple(units)).first(TOKENS).html())
