"""Pictures of generated text: what each token came from, token by token, or one token alone.

A trace is a `GenerationExplanation`, its ``relevance_trace`` (a list with an entry for each explained token), or the
result of a task that holds one.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlb_core.viz.view import AGAINST, FOR

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dlb_core.generation.result import GenerationExplanation

TRACE = "relevance_trace"
SOURCE, OWN = "input_ids", "decoder_input_ids"


@dataclass(frozen=True)
class Read:
    """A text that explained tokens came from: the text that was continued, or an encoder's.

    units: relevance by map, [N, length]; see `view.sides` for their names. labels: of the positions. seen: how many
    positions each explained token could look at. prompt: where the continuation begins (None: it is not part of it).
    """

    name: str
    units: Mapping[str, Tensor]
    labels: tuple[str, ...]
    seen: tuple[int, ...]
    prompt: int | None = None

    def part(self, start: int, stop: int) -> Read:
        """These positions alone."""
        units = {side: each[:, start:stop] for side, each in self.units.items()}
        seen = tuple(min(max(n - start, 0), stop - start) for n in self.seen)
        return Read(
            self.name, units, self.labels[start:stop], seen, None if self.prompt is None else self.prompt - start
        )


@dataclass(frozen=True)
class Written:
    """One generated text. tokens: those that are explained. steps: which of the continuation they are.

    texts: what they came from, of an encoder-decoder its source first. real: is it a token, or padding after the end?
    """

    tokens: tuple[str, ...]
    steps: tuple[int, ...]
    texts: tuple[Read, ...]
    real: tuple[bool, ...]
    mode: str = ""
    sample: int = 0
    samples: int = 1


def plot_generation(info: GenerationExplanation, tokenizer: Any = None, sample: int = 0) -> Figure:
    """What each token came from, as a matrix: generated tokens by the tokens before them; the future is blank.

    tokenizer: for their texts (default: their ids). sample: which sequence. Raises ImportError without matplotlib,
    ValueError where no relevance was asked for.
    """
    return _matrix(_of_info(info, tokenizer, sample))


def plot_token(info: GenerationExplanation, n: int, tokenizer: Any = None, sample: int = 0) -> Figure:
    """What one token came from: the text before it, coloured.

    n: which of the explained tokens, from 0. Otherwise as `plot_generation`.
    """
    return _token(_of_info(info, tokenizer, sample), n)


def visualize_tokenwise_relevance_map(
    trace: Any,
    input_ids: Any = None,
    tokenizer: Any = None,
    generated_ids: Any = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sample: int = 0,
) -> Figure:
    """What each generated token came from, as a matrix of tokens by tokens; it is also written to `path`.

    trace: of a generation; see above. input_ids: the prompt, [B, P] or [P] (of an encoder-decoder its source).
    generated_ids: prompt and continuation, as `generate` returns them, or the continuation alone. A trace that is a
    list needs both. tokenizer: for their texts (default: their ids). sample: which sequence. Raises ValueError for what
    is not there, or does not fit together.
    """
    return _written_to(path, _matrix(_read(trace, input_ids, tokenizer, generated_ids, sample)))


def visualize_input_heatmap_for_token(
    trace: Any,
    n: int,
    input_ids: Any = None,
    tokenizer: Any = None,
    generated_ids: Any = None,
    *,
    path: str | os.PathLike[str] | None = None,
    sample: int = 0,
) -> Figure:
    """What one generated token came from: the text before it, coloured; it is also written to `path`.

    n: which of the explained tokens, from 0. Otherwise as `visualize_tokenwise_relevance_map`.
    """
    return _written_to(path, _token(_read(trace, input_ids, tokenizer, generated_ids, sample), n))


def _matrix(written: Written) -> Figure:
    from dlb_core.viz.plots.generation import matrix_of

    return matrix_of(written)


def _token(written: Written, n: int) -> Figure:
    if not 0 <= n < len(written.tokens):
        raise ValueError(f"n={n}: choose from 0 .. {len(written.tokens) - 1}, the explained tokens")
    if not written.real[n]:
        raise ValueError(f"n={n}: the text of sample {written.sample} ended before; what follows is padding")
    from dlb_core.viz.plots.generation import one_token

    return one_token(written, n)


def _written_to(path: str | os.PathLike[str] | None, figure: Figure) -> Figure:
    if path is not None:
        figure.savefig(path)
    return figure


def _read(trace: Any, input_ids: Any, tokenizer: Any, generated_ids: Any, sample: int) -> Written:
    from dlb_core.generation.result import GenerationExplanation  # a model that is explained need not write

    if isinstance(trace, GenerationExplanation):
        _check_ids(trace, input_ids, generated_ids, sample)
        return _of_info(trace, tokenizer, sample)
    if isinstance(trace, Mapping):
        if isinstance(trace.get("explanation"), GenerationExplanation):
            return _read(trace["explanation"], input_ids, tokenizer, generated_ids, sample)
        if TRACE not in trace:
            raise ValueError("there is no relevance_trace: ask for it with return_relevance=True")
        trace = trace[TRACE]
    return _of_list(trace, input_ids, tokenizer, generated_ids, sample)


def _of_info(info: GenerationExplanation, tokenizer: Any, sample: int) -> Written:
    if info.relevance is None or not info.steps:
        raise ValueError("no token is explained: ask for it with return_relevance=True")
    _check_sample(sample, len(info.relevance))
    ids, start = info.sequences[sample], info.prompt_length
    labels = _labels(tokenizer, ids)
    own = _halves(info.relevance, info.total, sample)
    real = tuple(bool(info.generated[sample, step]) for step in info.steps)
    seen = tuple(start + step if here else 0 for step, here in zip(info.steps, real, strict=True))
    texts = [_without_padding(Read("generated text", own, labels, seen, start), tokenizer, ids)]
    if info.source_relevance is not None:
        source = _halves(info.source_relevance, info.source_total, sample)
        texts.insert(0, _source(source, None if info.source is None else info.source[sample], tokenizer))
    return Written(
        tuple(labels[start + step] for step in info.steps),
        info.steps,
        tuple(texts),
        real,
        info.mode,
        sample,
        len(info.relevance),
    )


def _halves(relevance: Tensor, total: Tensor | None, sample: int) -> dict[str, Tensor]:
    """The maps to draw of one sequence; see `view.sides`."""
    mine = relevance[sample].detach().cpu().double()
    if total is None:
        return {"": mine}
    both = total[sample].detach().cpu().double()
    return {FOR: (both + mine) / 2, AGAINST: (both - mine) / 2}


def _of_list(trace: Any, input_ids: Any, tokenizer: Any, generated_ids: Any, sample: int) -> Written:
    if not isinstance(trace, Sequence) or not all(
        isinstance(entry, Mapping) and "relevance" in entry for entry in trace
    ):
        raise ValueError("a trace is a GenerationExplanation, or the list that its 'relevance_trace' is")
    if not trace:
        raise ValueError("the trace is empty: no token is explained")
    if input_ids is None or generated_ids is None:
        raise ValueError("a list does not hold the text: give input_ids= and generated_ids=, or the explanation itself")
    parts = trace[0]["relevance"]
    samples, length = parts[OWN if OWN in parts else SOURCE].shape
    _check_sample(sample, samples)
    units = {name: torch.stack([entry["relevance"][name][sample] for entry in trace]) for name in parts}
    units = {name: each.detach().cpu().double() for name, each in units.items()}
    prompt, text = (
        _row(n, ids, samples, sample) for n, ids in (("input_ids", input_ids), ("generated_ids", generated_ids))
    )
    start = 1 if OWN in parts else len(prompt)  # a decoder's text begins with one token, unless it was given others
    if len(text) == length - start and OWN not in parts:
        text = torch.cat([prompt, text])
    elif len(text) < length and OWN in parts:
        start = length - len(text)
        text = torch.cat([text.new_full((start,), -1), text])
    if len(text) != length:
        raise ValueError(
            f"generated_ids: {len(text)} tokens, but the trace is about {length}, of which the prompt has {start}"
        )
    steps = tuple(int(entry["step"]) for entry in trace)
    for entry, step in zip(trace, steps, strict=True):
        if start + step >= length or int(entry["token"][sample]) != int(text[start + step]):
            raise ValueError(f"generated_ids: token {step} is another one than in the trace; is this the text of it?")
    labels = _labels(tokenizer, text)
    seen = tuple(start + step for step in steps)
    own = Read("generated text", {"": units[OWN if OWN in parts else SOURCE]}, labels, seen, start)
    texts = [_without_padding(own, tokenizer, text)]
    if OWN in parts:
        texts.insert(0, _source({"": units[SOURCE]}, prompt, tokenizer))
    tokens = tuple(labels[start + step] for step in steps)
    return Written(tokens, steps, tuple(texts), (True,) * len(steps), "", sample, samples)


def _source(units: Mapping[str, Tensor], ids: Tensor | None, tokenizer: Any) -> Read:
    """An encoder's text, which every token could look at."""
    count, length = next(iter(units.values())).shape
    if ids is not None and len(ids) != length:
        raise ValueError(f"input_ids: {len(ids)} tokens, but the trace is about {length} of the source")
    labels = tuple(map(str, range(length))) if ids is None else _labels(tokenizer, ids)
    read = Read("source", units, labels, (length,) * count)
    return read if ids is None else _without_padding(read, tokenizer, ids)


def _without_padding(read: Read, tokenizer: Any, ids: Tensor) -> Read:
    """Without the padding at both ends, as far as it has no relevance, and without what no token could see."""
    pad = getattr(tokenizer, "pad_token_id", None)
    empty = torch.stack([*read.units.values()]).abs().sum((0, 1)) == 0
    padding = [bool(none) and pad is not None and int(token) == pad for none, token in zip(empty, ids, strict=True)]
    start, stop = 0, max(read.seen)
    while start < stop - 1 and padding[start]:
        start += 1
    while read.prompt is None and stop > start + 1 and padding[stop - 1]:
        stop -= 1
    return read.part(start, stop)


def _labels(tokenizer: Any, ids: Tensor) -> tuple[str, ...]:
    """What to call the tokens: their texts, or their ids; "start" for one that is not known."""
    if tokenizer is None:
        return tuple("start" if token < 0 else str(token) for token in ids.tolist())
    from dlb_core.captions import token_texts

    known = ids[ids >= 0]
    return ("start",) * (len(ids) - len(known)) + tuple(token_texts(tokenizer, known[None])[0])


def _check_sample(sample: int, count: int) -> None:
    if not 0 <= sample < count:
        raise ValueError(f"sample={sample}: choose from 0 .. {count - 1}")


def _row(name: str, ids: Any, samples: int, sample: int) -> Tensor:
    """Ids of one sequence; a prompt may have been continued several times."""
    found = torch.as_tensor(ids).detach().cpu()
    if found.dim() not in (1, 2) or found.is_floating_point():
        raise ValueError(f"{name}: expected ids of tokens, [B, T] or [T], got {list(found.shape)} {found.dtype}")
    if found.dim() == 1:
        return found
    if not len(found) or samples % len(found):
        raise ValueError(f"{name}: {len(found)} rows for {samples} sequences")
    return found[sample // (samples // len(found))]


def _check_ids(info: GenerationExplanation, input_ids: Any, generated_ids: Any, sample: int) -> None:
    """The explanation has its own ids; what is given beside must be the same."""
    _check_sample(sample, len(info.sequences))
    text, start = info.sequences[sample].cpu(), info.prompt_length
    prompt = text[:start] if info.source is None else info.source[sample].cpu()
    for name, ids, known in (
        ("input_ids", input_ids, [prompt]),
        ("generated_ids", generated_ids, [text, text[start:]]),
    ):
        if ids is not None:
            row = _row(name, ids, len(info.sequences), sample)
            if not any(torch.equal(row, each) for each in known):
                raise ValueError(f"{name}: these are other tokens than those of the trace")
