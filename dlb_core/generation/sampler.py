"""`DLBAutoSampler`: generate with the user's model, and explain the tokens that it chose."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from dlb_core.backtrace import DLBacktrace
from dlb_core.choices import choose
from dlb_core.explanation import Explanation
from dlb_core.generation.decoding import Decoded, OnToken, decode, ends_of
from dlb_core.generation.result import GenerationExplanation
from dlb_core.generation.text import Text, lay_out
from dlb_core.generation.tokens import Tokens
from dlb_core.kernel.composites import AnyMode, BoundComposite, Composite
from dlb_core.kernel.modes import BoundMode, Mode
from dlb_core.kernel.program import Program
from dlb_core.progress import progress

LAYER = re.compile(r"(?:[^.\d]+\.)*[^.\d]+\.\d+")  # a numbered module, and no other above it


class DLBAutoSampler:
    """Generates text as transformers does, and tells what each token came from.

    dlb: a `DLBacktrace` of a model that generates. tokenizer: anything with ``pad_token_id`` and ``decode``; not needed
    for token ids alone. The model is traced once more when relevance is first asked for, unless `dlb` has the inputs
    that its own generation prepares, and explains its token ids alone.
    """

    def __init__(self, dlb: DLBacktrace, tokenizer: Any = None) -> None:
        if not callable(getattr(dlb.model, "generate", None)):
            raise ValueError(
                f"{type(dlb.model).__name__} has no generate(): give a DLBacktrace of a transformers model that writes "
                "text (a ...ForCausalLM or ...ForConditionalGeneration)"
            )
        self.dlb = dlb
        self._model: Any = dlb.model
        self.tokenizer = tokenizer
        self._traced: dict[tuple[str, ...], DLBacktrace] = {}

    def generate(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        return_scores: bool = False,
        return_relevance: bool = False,
        return_layerwise_output: bool = False,
        explain_tokens: str | int | Sequence[int] = "all",
        dlb_tokens_count: int | None = None,
        mode: str | Mode | Composite = "default",
        seed: str = "multiplier",
        multiplier: float = 100.0,
        scaler: float = 1.0,
        bias: str | None = None,
        mode_options: Mapping[str, Any] | None = None,
        chunk: int | None = None,
        on_token: OnToken | None = None,
        generator: torch.Generator | None = None,
        **generate_kwargs: Any,
    ) -> Any:
        """Token ids [S, L] as `model.generate` returns them; with a ``return_...`` asked for, ``(ids, explanation)``.

        input_ids, attention_mask: the prompt, [B, P], padded on the left if at all. All further arguments go to
        `model.generate`; decoding is greedy unless one of them asks for sampling (temperature, top_k, top_p, ...) or
        beams. Random numbers go on from the caller's state, or from `generator`, and the caller's state is left alone.

        return_scores: what each token was chosen by. return_relevance: the relevance of each token; the units of a seed
        are on the token that was chosen, as `seed`, `multiplier` and `scaler` say. return_layerwise_output: what each
        layer returned where the token was decided, and relevance by layer. explain_tokens: "all", the first so many
        (also called `dlb_tokens_count`), or a list of steps from 0. mode, bias, mode_options: as in `explain`. chunk:
        how many tokens go back at once at most, which bounds memory. on_token: called with the ids [S] of every new
        token.

        One forward pass over prompt and continuation explains all tokens; in a causal model this is what each has on
        its own prefix. Raises ValueError for what does not fit.
        """
        if dlb_tokens_count is not None:
            if explain_tokens != "all":
                raise ValueError("dlb_tokens_count is another name of explain_tokens: give one of them")
            explain_tokens = dlb_tokens_count
        explains = return_relevance or return_layerwise_output
        bound = self._bound(mode, bias, mode_options) if explains else None
        mask = self._mask(input_ids, attention_mask)
        decoded = decode(
            self._model,
            input_ids,
            mask,
            scores=return_scores,
            on_token=on_token,
            generator=generator,
            arguments=self._padded(generate_kwargs),
        )
        if not explains and not return_scores:
            return decoded.sequences
        text = lay_out(self._model, decoded, prompt=input_ids, mask=mask, more=generate_kwargs)
        units = {"seed": seed, "multiplier": multiplier, "scaler": scaler, "chunk": chunk}
        found = self._explanation(text, bound, explain_tokens, units, layers=return_layerwise_output)
        info = dataclasses.replace(found, scores=decoded.chosen, step_scores=decoded.scores or ())
        return decoded.sequences, info

    def explain(
        self,
        sequences: Tensor,
        prompt_length: int,
        attention_mask: Tensor | None = None,
        *,
        source: Tensor | None = None,
        explain_tokens: str | int | Sequence[int] = "all",
        layers: bool = False,
        mode: str | Mode | Composite = "default",
        seed: str = "multiplier",
        multiplier: float = 100.0,
        scaler: float = 1.0,
        bias: str | None = None,
        mode_options: Mapping[str, Any] | None = None,
        chunk: int | None = None,
    ) -> GenerationExplanation:
        """What each token of a text came from, whoever wrote it: ``sequences`` [S, L] from `prompt_length` on.

        attention_mask: of the prompt, [S, P] (of an encoder-decoder: of its `source`, the encoder's ids [S, length]).
        Other arguments: see `generate`.
        """
        bound = self._bound(mode, bias, mode_options)
        text = self._given(sequences, prompt_length, attention_mask, source)
        units = {"seed": seed, "multiplier": multiplier, "scaler": scaler, "chunk": chunk}
        return self._explanation(text, bound, explain_tokens, units, layers=layers)

    def explain_answer(
        self,
        sequences: Tensor,
        prompt_length: int,
        attention_mask: Tensor | None = None,
        *,
        source: Tensor | None = None,
        span: tuple[int, int] | None = None,
        of: str = "logit",
        **explain: Any,
    ) -> Explanation:
        """What a whole answer came from, in one pass: the sum of its tokens' logits or log-probabilities.

        span: of the continuation, (start, stop) in steps; default all of it. of: "logit" or "log-probability", whose
        relevance starts at the logits by its gradient. explain: further arguments of `DLBacktrace.explain`.
        """
        choose("of", of, ("logit", "log-probability"))
        text = self._given(sequences, prompt_length, attention_mask, source)
        start, stop = (0, text.generated.shape[1]) if span is None else span
        steps = text.steps([*range(start, stop)])
        where = torch.tensor([text.decided(step) for step in steps])
        ids = text.sequences[:, [text.prompt_length + step for step in steps]]
        real = text.generated[:, [*steps]]

        def answer(logits: Tensor) -> Tensor:
            scores = logits[:, where].log_softmax(-1) if of == "log-probability" else logits[:, where]
            return (scores.gather(-1, ids.unsqueeze(-1).to(logits.device)).squeeze(-1) * real.to(logits.device)).sum(1)

        return self._dlb_for(text).explain(text.inputs, target=answer, seed="logit", **explain)

    def _explanation(
        self,
        text: Text,
        mode: AnyMode | None,
        wanted: str | int | Sequence[int],
        units: Mapping[str, Any],
        *,
        layers: bool,
    ) -> GenerationExplanation:
        base = GenerationExplanation(text.sequences, text.prompt_length, text.generated)
        if mode is None or not text.generated.shape[1]:
            return base
        steps = text.steps(wanted)
        engine = self._dlb_for(text)._engine_of((), text.inputs)
        paths = _layers(engine.program, self._model) if layers else {}
        tokens = Tokens(engine, text, mode, list(paths))
        with progress(len(steps), "explaining tokens") as told:
            found = tokens.relevance(steps, told=told, **units)
        by_sequence = {name: r.transpose(0, 1) for name, r in found.inputs.items()}
        total = {} if found.total is None else {name: r.transpose(0, 1) for name, r in found.total.inputs.items()}
        source = text.source or ""
        return dataclasses.replace(
            base,
            steps=steps,
            relevance=by_sequence[text.ids],
            source_relevance=by_sequence.get(source),
            source=text.inputs.get(source),
            ledgers=found.ledgers,
            layers={path: r.transpose(0, 1) for path, r in found.layers.items()},
            outputs={path: tokens.outputs(path, steps).transpose(0, 1) for path, mine in paths.items() if mine},
            experts=found.experts,
            total=total.get(text.ids),
            source_total=total.get(source),
            mode=mode.name,
            options=dict(mode.options),
        )

    def _bound(self, mode: str | Mode | Composite, bias: str | None, options: Mapping[str, Any] | None) -> AnyMode:
        bound = self.dlb._mode(mode, bias, dict(options or {}))
        if not isinstance(bound, (BoundMode, BoundComposite)):
            raise ValueError(f"mode={mode!r} runs at several points: explain one token of the text with `explain`")
        return bound

    def _dlb_for(self, text: Text) -> DLBacktrace:
        """A trace for the inputs that the model prepares, of which only token ids are explained."""
        engine = self.dlb._engine
        if {*self.dlb.input_names} == {*text.inputs} and {*engine.explained} == {*text.names}:
            return self.dlb
        key = (*sorted(text.inputs), "|", *text.names)
        if key not in self._traced:
            self._traced[key] = self.dlb.retraced(dict(text.inputs), explain_inputs=text.names)
        return self._traced[key]

    def _given(self, sequences: Tensor, prompt_length: int, mask: Tensor | None, source: Tensor | None) -> Text:
        encoder = bool(self._model.config.is_encoder_decoder)
        if encoder == (source is None):
            raise ValueError("source= is the text of an encoder: give it for an encoder-decoder, and only there")
        if not 0 < prompt_length < sequences.shape[1]:
            raise ValueError(f"prompt_length={prompt_length}: choose from 1 .. {sequences.shape[1] - 1}")
        prompt = sequences[:, :prompt_length] if source is None else source
        decoded = Decoded(sequences, prompt_length, ends=ends_of(self._model, {}))
        return lay_out(self._model, decoded, prompt=prompt, mask=self._mask(prompt, mask), more={})

    def _mask(self, input_ids: Tensor, mask: Tensor | None) -> Tensor:
        """Which tokens of the prompt are no padding, as transformers infers it where nobody says."""
        given: Any = input_ids
        if not isinstance(given, Tensor) or input_ids.dim() != 2 or input_ids.is_floating_point():
            raise ValueError(
                "input_ids must be a tensor of token ids [batch, length]: tokenizer(..., return_tensors='pt')"
            )
        if mask is not None:
            if mask.shape != input_ids.shape:
                raise ValueError(f"attention_mask has shape {list(mask.shape)}, input_ids {list(input_ids.shape)}")
            return mask
        pad, ones = self._pad(), torch.ones_like(input_ids)
        return ones if pad is None or pad in ends_of(self._model, {}) else (input_ids != pad).to(ones)

    def _pad(self) -> int | None:
        own: int | None = self._model.generation_config.pad_token_id
        return own if own is not None else getattr(self.tokenizer, "pad_token_id", None)

    def _padded(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        pad = self._pad()
        return dict(arguments) if pad is None else {"pad_token_id": pad, **arguments}


def _layers(program: Program, model: Any) -> dict[str, bool]:
    """The paths of the layers that a text goes through one after the other: is it the text that is written?"""
    get = getattr(model, "get_encoder", None)
    encoder = get() if model.config.is_encoder_decoder and callable(get) else None
    inside = [f"{path}." for path, module in model.named_modules() if module is encoder and encoder is not None]
    return {
        path: not any(path.startswith(prefix) for prefix in inside) for path in program.modules if LAYER.fullmatch(path)
    }
