"""`GenerationExplanation`: what was generated, and what each token came from."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dlb_core.experts import ExpertLayer, from_saved, to_save
from dlb_core.explanation_files import ledger_in, ledger_out
from dlb_core.kernel.ledger import Ledger
from dlb_core.saved import Format

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FILES = Format("dlb-generation", 1, "generation.json", "explained generation")
_TENSORS = ("sequences", "generated", "relevance", "source_relevance", "scores", "total", "source_total", "source")


@dataclass(frozen=True)
class GenerationExplanation(Mapping[str, Any]):
    """What was generated, and what each explained token came from.

    sequences: prompt and continuation, [S, L] (of an encoder-decoder the decoder's). prompt_length: P, so token n of
    the continuation is ``sequences[:, P + n]``. generated: which tokens were written, bool [S, G]; the others are
    padding. steps: the N tokens that are explained. relevance: units by sequence, explained token and position,
    [S, N, L]; zero where the future is, and on padding. source_relevance: the same on an encoder's text, [S, N, source
    length]. ledgers: one for each explained token, summed over the sequences. scores: log-probabilities of the tokens
    as they were chosen, [S, G]. step_scores: what each token was chosen by, [S, V] a step. layers: by a layer's path,
    units by position, [S, N, L]. outputs: what a layer returned where the token was decided, [S, N, width]. experts: by
    layer of experts; see `ExpertLayer`, with the explained tokens as its targets. total: of a contrastive mode, the sum
    of its two maps. source: an encoder's text, ids [S, source length].

    As a mapping it has ``scores_trace``, ``relevance_trace`` and ``layerwise_output_trace``, lists with one entry for
    each (explained) token, as far as they were asked for.
    """

    sequences: Tensor
    prompt_length: int
    generated: Tensor
    steps: tuple[int, ...] = ()
    relevance: Tensor | None = None
    source_relevance: Tensor | None = None
    ledgers: tuple[Ledger, ...] = ()
    scores: Tensor | None = None
    step_scores: tuple[Tensor, ...] = ()
    layers: Mapping[str, Tensor] = field(default_factory=dict)
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    experts: Mapping[str, ExpertLayer] = field(default_factory=dict)
    total: Tensor | None = None
    source_total: Tensor | None = None
    source: Tensor | None = None
    mode: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def tokens(self) -> Tensor:
        """The continuation, [S, G]."""
        return self.sequences[:, self.prompt_length :]

    @property
    def positive(self) -> Tensor:
        """Contrastive: what speaks for each token, [S, N, L], >= 0."""
        return self._half(1)

    @property
    def negative(self) -> Tensor:
        """Contrastive: what speaks against each token, [S, N, L], >= 0."""
        return self._half(-1)

    def _half(self, sign: int) -> Tensor:
        if self.total is None or self.relevance is None:
            raise AttributeError(f"mode {self.mode!r} has one map; mode='contrastive' has .positive and .negative")
        return (self.total + sign * self.relevance) / 2

    def __getitem__(self, name: str) -> Any:
        if name == "scores_trace" and self.step_scores:
            return list(self.step_scores)
        if name == "relevance_trace" and self.relevance is not None:
            return [self._entry(n) for n in range(len(self.steps))]
        if name == "layerwise_output_trace" and self.outputs:
            return [{path: value[:, n] for path, value in self.outputs.items()} for n in range(len(self.steps))]
        raise KeyError(f"{name!r}: there is {', '.join(self) or 'nothing'}; ask with return_scores=, ...")

    def __iter__(self) -> Iterator[str]:
        if self.step_scores:
            yield "scores_trace"
        if self.relevance is not None:
            yield "relevance_trace"
        if self.outputs:
            yield "layerwise_output_trace"

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _entry(self, n: int) -> dict[str, Any]:
        """One explained token: its step, its ids [S], relevance by input, and by expert."""
        assert self.relevance is not None
        step = self.steps[n]
        source = {} if self.source_relevance is None else {"input_ids": self.source_relevance[:, n]}
        mine = "input_ids" if self.source_relevance is None else "decoder_input_ids"
        entry: dict[str, Any] = {
            "step": step,
            "token": self.tokens[:, step],
            "relevance": {**source, mine: self.relevance[:, n]},
            "ledger": self.ledgers[n],
        }
        if self.experts:
            entry["expert_relevance"] = {name: layer.relevance[n] for name, layer in self.experts.items()}
        return entry

    def plot(self, tokenizer: Any = None, sample: int = 0) -> Figure:
        """What each token came from, as a matrix of tokens by tokens; the future is blank.

        tokenizer: for the texts of the tokens (default: their ids). sample: which sequence. Raises ImportError without
        matplotlib, ValueError where no relevance was asked for.
        """
        from dlb_core.viz.generation import plot_generation

        return plot_generation(self, tokenizer, sample)

    def plot_token(self, n: int, tokenizer: Any = None, sample: int = 0) -> Figure:
        """What the explained token `n` (from 0) came from: the text before it, coloured. Otherwise as `plot`."""
        from dlb_core.viz.generation import plot_token

        return plot_token(self, n, tokenizer, sample)

    def __repr__(self) -> str:
        sequences, length = self.sequences.shape
        return (
            f"GenerationExplanation({sequences} sequences of {length}, prompt {self.prompt_length}, "
            f"{len(self.steps)} explained, mode={self.mode!r})"
        )

    def to_html(self, path: str | os.PathLike[str], tokenizer: Any = None) -> Path:
        """Writes a report: one file that opens from disk and loads nothing; a click on a token shows what it came from.

        tokenizer: reads the tokens; without one they are shown by their ids. Returns the path; raises ValueError where
        no token was explained.
        """
        from dlb_core.viz.report import write_generation_report

        return write_generation_report(self, path, tokenizer)

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``generation.json`` and ``tensors.safetensors`` into a new folder, all of it or nothing.

        An earlier one in that folder is replaced; a folder with other things in it is refused (`FileExistsError`).
        """
        flat = {name: value for name in _TENSORS if isinstance(value := getattr(self, name), Tensor)}
        flat |= {f"step_scores/{i}": value for i, value in enumerate(self.step_scores)}
        for kind in ("layers", "outputs"):
            flat |= {f"{kind}/{path}": value for path, value in getattr(self, kind).items()}
        experts, more = to_save(self.experts, "experts")
        plain = (str, int, float, bool, type(None))
        head = {
            "prompt_length": self.prompt_length,
            "steps": list(self.steps),
            "step_scores": len(self.step_scores),
            "layers": list(self.layers),
            "outputs": list(self.outputs),
            "experts": experts,
            "ledgers": [ledger_out(ledger) for ledger in self.ledgers],
            "mode": self.mode,
            "options": {name: value for name, value in self.options.items() if isinstance(value, plain)},
        }
        return FILES.save(folder, head, flat | more)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> GenerationExplanation:
        """Reads a saved one; nothing in the files is executed. Raises `ExplanationFileError`."""
        head, tensors = FILES.load(folder)
        try:
            ledgers = tuple(ledger_in(entry) for entry in head["ledgers"])
            return cls(
                **{name: tensors[name] for name in _TENSORS if name in tensors},
                prompt_length=head["prompt_length"],
                steps=tuple(head["steps"]),
                ledgers=ledgers,
                step_scores=tuple(tensors[f"step_scores/{i}"] for i in range(head["step_scores"])),
                layers={path: tensors[f"layers/{path}"] for path in head["layers"]},
                outputs={path: tensors[f"outputs/{path}"] for path in head["outputs"]},
                experts=from_saved(head["experts"], "experts", tensors, ledgers, True),
                mode=head["mode"],
                options=head["options"],
            )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FILES.incomplete(folder, error) from None

    def _repr_html_(self) -> str:
        """What a notebook shows: the tokens and what they came from."""
        from dlb_core.viz.notebook_generation import generation_card

        return generation_card(self)
