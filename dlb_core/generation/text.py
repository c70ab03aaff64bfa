"""A decoded text laid out for one forward pass: the inputs that the model takes, and where each token was decided."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.generation.decoding import Decoded


@dataclass(frozen=True)
class Text:
    """Prompt and continuation as one call of the model.

    inputs: the keyword arguments of its forward. ids: the name of the input that holds `sequences`; source: the one
    that holds an encoder's text. sequences: [S, L]. generated: which tokens are part of the continuation, bool [S, G];
    what follows an end-of-text token is padding.
    """

    inputs: dict[str, Tensor]
    ids: str
    source: str | None
    sequences: Tensor
    prompt_length: int
    generated: Tensor

    @property
    def names(self) -> tuple[str, ...]:
        """The inputs that are explained: tokens, no positions."""
        return (self.ids,) if self.source is None else (self.source, self.ids)

    def steps(self, wanted: Any) -> tuple[int, ...]:
        """Which generated tokens are meant: "all", the first so many, or a list of them, from 0."""
        count = self.generated.shape[1]
        if wanted == "all":
            return tuple(range(count))
        if isinstance(wanted, int) and not isinstance(wanted, bool):
            if wanted < 1:
                raise ValueError(f"explain_tokens={wanted}: give 'all', how many of the first, or a list of steps")
            return tuple(range(min(wanted, count)))
        if isinstance(wanted, str) or not isinstance(wanted, Sequence) or not wanted:
            raise ValueError(f"explain_tokens={wanted!r}: give 'all', how many of the first, or a list of steps")
        for step in wanted:
            if isinstance(step, bool) or not isinstance(step, int) or not -count <= step < count:
                raise ValueError(f"explain_tokens names step {step!r}: choose from 0 .. {count - 1}")
        return tuple(step % count for step in wanted)

    def decided(self, step: int) -> int:
        """The position whose output chose the token of a step."""
        return self.prompt_length + step - 1


def lay_out(model: Any, decoded: Decoded, *, prompt: Tensor, mask: Tensor, more: Mapping[str, Any]) -> Text:
    """The inputs of one pass over decoded sequences, as the model's own `prepare_inputs_for_generation` makes them.

    prompt, mask: what was decoded from, [B, P]; B divides the number of sequences. more: further tensors by argument.
    """
    sequences, prompt_length = decoded.sequences, decoded.prompt_length
    times = sequences.shape[0] // prompt.shape[0]
    mask = mask.repeat_interleave(times, 0)
    takes = inspect.signature(model.forward).parameters
    carried = {
        name: value.repeat_interleave(times, 0)
        for name, value in more.items()
        if isinstance(value, Tensor) and name in takes and value.dim() and value.shape[0] == prompt.shape[0]
    }
    encoder = bool(model.config.is_encoder_decoder)
    if encoder:
        carried.pop("decoder_input_ids", None)
    else:
        grown = mask.new_ones(sequences.shape[0], sequences.shape[1] - prompt_length)
        mask = torch.cat([mask, grown], 1)
        if "position_ids" in takes and "position_ids" not in carried:
            carried["position_ids"] = (mask.long().cumsum(1) - 1).masked_fill(mask == 0, 0)
    prepared = model.prepare_inputs_for_generation(
        sequences, attention_mask=mask, past_key_values=None, use_cache=False, **carried
    )
    inputs = {name: value for name, value in prepared.items() if isinstance(value, Tensor) and name in takes}
    if encoder:
        inputs["input_ids"] = prompt.repeat_interleave(times, 0)
    ids, source = ("decoder_input_ids", "input_ids") if encoder else ("input_ids", None)
    written = _written(sequences[:, prompt_length:], decoded.ends)
    return Text(inputs, ids, source, sequences, prompt_length, written)


def example_of(model: Any, tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], tuple[str, ...]]:
    """What to trace a writer with, so that explaining what it writes needs no other trace: inputs, and whose relevance.

    tensors: a prompt's ``input_ids`` and ``attention_mask``, and what else the model takes.
    """
    prompt = text = tensors["input_ids"]
    if model.config.is_encoder_decoder:
        text = torch.full((prompt.shape[0], 2), model.generation_config.decoder_start_token_id, device=prompt.device)
    mask = tensors.get("attention_mask", torch.ones_like(prompt))
    more = {name: tensor for name, tensor in tensors.items() if name not in ("input_ids", "attention_mask")}
    found = lay_out(model, Decoded(text, text.shape[1]), prompt=prompt, mask=mask, more=more)
    return found.inputs, found.names


def _written(continuation: Tensor, ends: Sequence[int]) -> Tensor:
    """Which tokens of a continuation were written: all up to the first end of text, that one included."""
    ended = torch.isin(continuation, torch.tensor([*ends], dtype=continuation.dtype, device=continuation.device)).long()
    return ended.cumsum(1) - ended == 0
