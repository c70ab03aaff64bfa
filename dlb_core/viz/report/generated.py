"""What the report of a generation shows, as one document of plain data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dlb_core.viz.colour import STOPS
from dlb_core.viz.report.arrays import floats, plain
from dlb_core.viz.report.books import Source, written_books
from dlb_core.viz.report.document import BOOKS, LEAST, MOST, SAMPLES, SCRIPTS, option_text
from dlb_core.viz.view import AGAINST, FOR

if TYPE_CHECKING:
    from dlb_core.generation.result import GenerationExplanation

DIFFERENCE = "for the token, less against it"


def generated_document(generation: GenerationExplanation, tokenizer: Any = None) -> dict[str, Any]:
    """Everything that the page shows; JSON can hold it. Raises ValueError where no token was explained."""
    if generation.relevance is None or not generation.steps:
        raise ValueError("no token was explained: generate with return_relevance=True")
    maps = _sides(generation, "relevance", "total")
    sources = _sides(generation, "source_relevance", "source_total")
    side = "" if generation.total is None else DIFFERENCE
    found = [Source(ledger, side, generation.experts, n) for n, ledger in enumerate(generation.ledgers)]
    books, left_out = written_books(found, BOOKS)
    room = max(MOST - SCRIPTS - len(json.dumps(books)), LEAST)
    samples, explained = _fitting([*maps.values(), *sources.values()], room)
    texts = [_texts(generation.sequences[sample], tokenizer) for sample in range(samples)]
    read = generation.source
    length = generation.prompt_length
    steps = generation.steps[:explained]
    return {
        "kind": "generation",
        "model": "",
        "stops": STOPS,
        "samples": [f"sequence {sample}" for sample in range(samples)],
        "targets": [f"{step}: {texts[0][length + step]}" for step in steps],
        "columns": [
            {
                "mode": generation.mode,
                "options": [[n, option_text(v)] for n, v in generation.options.items() if v is not None],
                "books": [[each] for each in books[:explained]],
                "views": [],
            }
        ],
        "predictions": [],
        "generation": {
            "prompt": length,
            "steps": list(steps),
            "sequences": [
                {
                    "tokens": text,
                    "generated": [bool(each) for each in generation.generated[sample].tolist()],
                    "scores": _scores(generation.scores, sample),
                    "maps": _maps(maps, sample, explained),
                    "source": None if read is None else _texts(read[sample], tokenizer),
                    "sources": _maps(sources, sample, explained),
                }
                for sample, text in enumerate(texts)
            ],
        },
        "notes": [*_notes(generation, samples, explained), *left_out],
    }


def _sides(generation: GenerationExplanation, name: str, total: str) -> dict[str, Tensor]:
    """The maps [S, N, length] by what they are called: one without a name, or those for and against each token."""
    units, whole = getattr(generation, name), getattr(generation, total)
    if units is None:
        return {}
    if whole is None:
        return {"": units}
    return {FOR: (whole + units) / 2, AGAINST: (whole - units) / 2}


def _fitting(maps: list[Tensor], most: int) -> tuple[int, int]:
    """How many sequences and explained tokens the page has room for."""
    sequences, explained = maps[0].shape[:2]
    row = sum(4 * 4 * units.shape[2] // 3 for units in maps) or 1  # of one token of one sequence
    samples = max(1, min(sequences, SAMPLES, most // (row * explained)))
    return samples, max(1, min(explained, most // (row * samples)))


def _texts(ids: Tensor, tokenizer: Any) -> list[str]:
    row = [int(i) for i in ids.tolist()]
    if tokenizer is None:
        return [str(i) for i in row]
    from dlb_core.pipeline.encoding import written

    text, tokens, spans, _ = written(tokenizer, row)
    return [text[start:stop] or token for token, (start, stop) in zip(tokens, spans, strict=True)]


def _scores(scores: Tensor | None, sample: int) -> list[Any] | None:
    return None if scores is None else [plain(score) for score in scores[sample].double().tolist()]


def _maps(maps: dict[str, Tensor], sample: int, explained: int) -> list[dict[str, Any]]:
    return [{"side": side, "units": floats(units[sample, :explained])} for side, units in maps.items()]


def _notes(generation: GenerationExplanation, samples: int, explained: int) -> list[str]:
    notes = []
    if samples < len(generation.sequences):
        notes.append(
            f"The first {samples} of {len(generation.sequences)} sequences are shown; the ledgers are those of all."
        )
    if explained < len(generation.steps):
        notes.append(f"The first {explained} of {len(generation.steps)} explained tokens are shown.")
    return notes
