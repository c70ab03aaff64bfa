"""What is worth telling of a pipeline's result, as plain data: labels, words, the tokens that were written."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from dlb_core.findings import Strong, as_data, as_records, ledgers
from dlb_core.kernel.ledger import Ledger
from dlb_core.pipeline import PipelineResult, Word, Words

UNREADABLE = "\ufffd"  # what a decoder writes for half a character


@dataclass(frozen=True)
class Written:
    """A token that was written: its place in the continuation, its text, how probable it was, and its words."""

    step: int
    text: str
    probability: float
    words: Words
    ledger: Ledger

    @property
    def prompt(self) -> tuple[Word, ...]:
        """The words of the prompt, with the units that they gave to this token."""
        return tuple(word for word in self.words if word.text_index == 0)

    def share(self, words: Iterable[Word]) -> float:
        """The share of some words in this token's units, in per cent."""
        return self.ledger.share(math.fsum(word.relevance for word in words))


def written(result: PipelineResult, tokenizer: Any) -> list[Written]:
    """The explained tokens of a generation, in order."""
    info = result["explanation"]
    (ids,), (spelled,) = info.tokens.tolist(), result["written"]
    return [
        Written(
            step=step,
            text=_text(tokenizer, ids[step], spelled[step]),
            probability=math.exp(float(info.scores[0, step])),
            words=words,
            ledger=ledger,
        )
        for step, words, ledger in zip(info.steps, result["words"][0], info.ledgers, strict=True)
    ]


def prompt_words(tokens: Sequence[Written]) -> Words:
    """The words of the prompt with what they gave to all tokens together."""
    each = zip(*(token.prompt for token in tokens), strict=True)
    return Words(tuple(replace(word[0], relevance=math.fsum(w.relevance for w in word)) for word in each))


def of_classes(result: PipelineResult, strong: Sequence[Strong]) -> dict[str, Any]:
    """The findings of a classification for `--json`; words of a text, elements of an image."""
    explanation = result["explanation"]
    found = {**_head(result), "mode": explanation.mode, "options": dict(explanation.options)}
    if "values" in result:
        found["prediction"] = {"values": result["values"]}
    else:
        (label,), (probabilities,) = result["labels"], result["probabilities"]
        found["prediction"] = {"label": label, "probabilities": probabilities}
    found |= {"explained": result["explained"][0], "target": explanation.target}
    found |= {name: as_data(ledger) for name, ledger in ledgers(explanation).items()}
    return found | ({"words": result["words"][0].records()} if "words" in result else {"strongest": as_records(strong)})


def of_text(result: PipelineResult, tokens: Sequence[Written]) -> dict[str, Any]:
    """The findings of a generation for `--json`, token by token."""
    info = result["explanation"]
    return {
        **_head(result),
        "mode": info.mode,
        "options": dict(info.options),
        "generated": result["generated"][0],
        "generated_ids": info.tokens[0].tolist(),
        "tokens": [
            {
                "step": token.step,
                "token": token.text,
                "probability": token.probability,
                "ledger": as_data(token.ledger),
                "words": token.words.records(),
            }
            for token in tokens
        ],
    }


def _head(result: PipelineResult) -> dict[str, Any]:
    text = {"text": result["texts"][0]} if "texts" in result else {}
    return {"model": result["model"], "task": result["task"], **text}


def _text(tokenizer: Any, token: int, spelled: str) -> str:
    """What a token stands for; where that is no whole character, as the vocabulary spells it."""
    text: str = tokenizer.decode([token])
    return spelled if UNREADABLE in text or not text else text
