"""Texts as a model's inputs, with what each token stands for; and the pieces of what a model wrote."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlb_core.pipeline.words import Pieces, Span

UNREADABLE = "\ufffd"  # what a decoder writes for half a character


@dataclass(frozen=True)
class Encoded:
    """tensors: the model's inputs by name. pieces: what each token of a sample stands for."""

    tensors: dict[str, Tensor]
    pieces: tuple[Pieces, ...]


def encode(
    tokenizer: Any,
    texts: Sequence[str],
    pairs: Sequence[str] | None = None,
    *,
    takes: Sequence[str] | None = None,
    side: str | None = None,
    max_length: int | None = None,
    most: int | None = None,
) -> Encoded:
    """Tokenizes texts (with `pairs`: text i with pair i).

    takes: the inputs that the model has (None: all that the tokenizer makes). side: where padding goes, if not where
    the tokenizer has it. max_length: cut off what is longer. most: how many tokens the model can read; a text that is
    longer is refused (ValueError) unless `max_length` says that the rest may be left out.
    """
    for text in (*texts, *(pairs or ())):
        if not isinstance(text, str):
            raise ValueError(f"a text must be a str, got {type(text).__name__}")
    if not texts:
        raise ValueError("there is no text")
    if pairs is not None and len(pairs) != len(texts):
        raise ValueError(f"{len(texts)} texts and {len(pairs)} to pair them with: give one for each")
    padding = {"padding": True} if len(texts) > 1 else {}
    if padding and tokenizer.pad_token is None:
        raise ValueError("the tokenizer has no padding token, which several texts need: give one text at a time")
    fast = bool(tokenizer.is_fast)
    made = tokenizer(
        [*texts],
        None if pairs is None else [*pairs],
        return_tensors="pt",
        return_special_tokens_mask=True,
        return_offsets_mapping=fast,
        truncation=max_length is not None,
        max_length=max_length,
        verbose=False,  # what is too long is said below
        **padding,
        **({} if side is None else {"padding_side": side}),
    )
    length = int(made["input_ids"].shape[1])
    if length == 0:
        raise ValueError("a text without any token: there is nothing to explain")
    if most is not None and length > most:
        raise ValueError(
            f"{length} tokens, and the model reads {most}: shorten the text, or give max_length={most} to leave out "
            "the rest"
        )
    of_text = ((text,) if pairs is None else (text, pairs[i]) for i, text in enumerate(texts))
    pieces = tuple(_pieces(tokenizer, made, i, parts, fast) for i, parts in enumerate(of_text))
    tensors = {n: t for n, t in made.items() if n not in ("special_tokens_mask", "offset_mapping")}
    return Encoded({n: t for n, t in tensors.items() if takes is None or n in takes}, pieces)


def _pieces(tokenizer: Any, made: Any, sample: int, texts: tuple[str, ...], fast: bool) -> Pieces:
    tokens = tuple(map(str, tokenizer.convert_ids_to_tokens(made["input_ids"][sample].tolist())))
    special = [bool(mark) for mark in made["special_tokens_mask"][sample]]
    if "attention_mask" in made:  # not every tokenizer marks padding as special
        special = [
            mark or not seen for mark, seen in zip(special, made["attention_mask"][sample].tolist(), strict=True)
        ]
    if not fast:  # it does not say what its tokens stand for: each stands for itself
        return Pieces(texts, tokens, (None,) * len(tokens), tuple(special))
    numbers = made.sequence_ids(sample)
    spans = made["offset_mapping"][sample].tolist()
    places = tuple(
        None if number is None or mark else (number, start, stop)
        for number, mark, (start, stop) in zip(numbers, special, spans, strict=True)
    )
    return Pieces(texts, tokens, places, tuple(special))


def written(tokenizer: Any, ids: Sequence[int]) -> tuple[str, list[str], list[Span], list[bool]]:
    """What a model wrote: the text, its tokens, the characters that each added, and which are special.

    A character that takes several tokens belongs to all of them.
    """
    special = [token in tokenizer.all_special_ids for token in ids]
    text = ""
    starts: list[int] = []
    for end in range(1, len(ids) + 1):
        starts.append(max([len(text), *starts[-1:]]))
        text = _decode(tokenizer, ids[:end]).rstrip(UNREADABLE)
    whole = _decode(tokenizer, ids)
    stops = [*starts, len(whole)][1:]
    spans = [(min(a, len(whole)), min(b, len(whole))) for a, b in zip(starts, stops, strict=True)]
    for i in range(len(spans) - 2, -1, -1):  # the first bytes of a character: it is where the last one makes it whole
        if spans[i][0] == spans[i][1] and not special[i]:
            spans[i] = (spans[i][0], max(spans[i][1], _first_of(spans[i + 1])))
    tokens = [str(token) for token in tokenizer.convert_ids_to_tokens([*ids])]
    return whole, tokens, spans, special


def _first_of(span: Span) -> int:
    return min(span[0] + 1, span[1])


def _decode(tokenizer: Any, ids: Sequence[int]) -> str:
    text: str = tokenizer.decode([*ids], skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text
