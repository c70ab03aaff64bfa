"""Decoding by transformers, on the user's model, with the random state of the caller left as it was."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

#: Any of these asks for sampling; without one decoding is greedy, whatever a model's own configuration says.
SAMPLING = frozenset({"temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"})
OURS = ("return_dict_in_generate", "output_scores", "use_cache")

OnToken = Callable[[Tensor], Any]


@dataclass(frozen=True)
class Decoded:
    """What transformers decoded.

    sequences: prompt and continuation, [S, L]; of an encoder-decoder the decoder's. scores: by step the scores that the
    token was chosen by, [S, V] each; None unless asked. chosen: the log-probability of every token that was generated,
    [S, G]; None unless asked. ends: the ids that end a text.
    """

    sequences: Tensor
    prompt_length: int
    scores: tuple[Tensor, ...] | None = None
    chosen: Tensor | None = None
    ends: tuple[int, ...] = ()


def decode(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    *,
    scores: bool,
    on_token: OnToken | None,
    generator: torch.Generator | None,
    arguments: Mapping[str, Any],
) -> Decoded:
    """What `model.generate` gives for these arguments; see `DLBAutoSampler.generate`."""
    settled = _settled(arguments)
    if on_token is not None:
        settled["stopping_criteria"] = [*(settled.get("stopping_criteria") or ()), _Watcher(on_token)]
    with torch.no_grad(), _randomness(generator, input_ids.device):
        found = model.generate(
            input_ids,
            attention_mask=attention_mask,
            return_dict_in_generate=True,
            output_scores=scores,
            **settled,
        )
    sequences = found.sequences
    prompt = _decoder_prompt(model, arguments) if model.config.is_encoder_decoder else input_ids.shape[1]
    ends = ends_of(model, arguments)
    if not scores:
        return Decoded(sequences, prompt, ends=ends)
    beams = getattr(found, "beam_indices", None)
    chosen = model.compute_transition_scores(sequences, found.scores, beams, normalize_logits=beams is None)
    return Decoded(sequences, prompt, _by_sequence(found.scores, beams), chosen, ends)


def _settled(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The caller's arguments, and greedy decoding where they do not say how to decode."""
    if taken := [name for name in OURS if name in arguments]:
        raise ValueError(f"{taken[0]}= is set by the sampler: ask with return_scores=, return_relevance= instead")
    temperature = arguments.get("temperature")
    if temperature is not None and not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: must be a positive finite number; leave it out for greedy")
    settled = dict(arguments)
    if settled.get("generation_config") is None:
        sampled = any(settled.get(name) is not None for name in SAMPLING)
        greedy = {"do_sample": sampled, "num_beams": 1, "num_return_sequences": 1}
        settled = {**greedy, **settled}
    return settled


def ends_of(model: Any, arguments: Mapping[str, Any]) -> tuple[int, ...]:
    """The ids that end a text."""
    config = arguments.get("generation_config") or model.generation_config
    ends = arguments.get("eos_token_id", config.eos_token_id)
    if isinstance(ends, Tensor):
        ends = ends.tolist()
    return () if ends is None else tuple(ends) if isinstance(ends, (list, tuple)) else (int(ends),)


def _decoder_prompt(model: Any, arguments: Mapping[str, Any]) -> int:
    """How many tokens an encoder-decoder's own text begins with: its start token, and what the caller gave."""
    given = arguments.get("decoder_input_ids")
    if given is None:
        return 1
    start = arguments.get("decoder_start_token_id", model.generation_config.decoder_start_token_id)
    begins = start is None or bool((given[:, 0] == start).all())
    return int(given.shape[1]) + (not begins)


def _by_sequence(scores: tuple[Tensor, ...], beams: Tensor | None) -> tuple[Tensor, ...]:
    """The scores of a step by returned sequence; of a beam that ended before, zeros."""
    if beams is None:
        return scores
    found = []
    for step, each in enumerate(scores[: beams.shape[1]]):
        rows = beams[:, step]
        found.append(torch.where(rows[:, None] < 0, 0, each[rows.clamp(min=0)]))
    return tuple(found)


class _Watcher:
    """A stopping criterion that never stops: it tells which tokens were chosen."""

    def __init__(self, on_token: OnToken) -> None:
        self._on_token = on_token

    def __call__(self, input_ids: Tensor, scores: Any, **kwargs: Any) -> Tensor:
        self._on_token(input_ids[:, -1].clone())
        return torch.zeros(input_ids.shape[0], dtype=torch.bool, device=input_ids.device)


@contextlib.contextmanager
def _randomness(generator: torch.Generator | None, device: torch.device) -> Iterator[None]:
    """Random numbers go on from the caller's (or the generator's) state, and the caller's is put back."""
    cuda = device.type == "cuda"
    with torch.random.fork_rng(devices=[device] if cuda else []):
        if generator is None:
            yield
            return
        put, get = (torch.cuda.set_rng_state, torch.cuda.get_rng_state) if cuda else (
            torch.set_rng_state, torch.get_rng_state
        )  # fmt: skip
        put(generator.get_state())
        try:
            yield
        finally:
            generator.set_state(get())
