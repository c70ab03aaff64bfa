"""The outputs of a model: which of them is explained, and what is known about it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.kernel.program import Program
from dlb_core.targets import Context, Targets


@dataclass(frozen=True)
class Says:
    """What a model says about its outputs: does it write the next token, and how many classes does it know."""

    causal: bool = False
    labels: int | None = None


def what_it_says(model: Any) -> Says:
    """Read off transformers' conventions; of other models nothing is known."""
    generates = getattr(model, "can_generate", None)
    causal = type(model).__name__.endswith(("ForCausalLM", "LMHeadModel")) or (callable(generates) and generates())
    labels = getattr(getattr(model, "config", None), "num_labels", None)
    return Says(causal=bool(causal), labels=labels if isinstance(labels, int) else None)


def choose_output(program: Program, wanted: str | int | None) -> int:
    """The index of an output by name or index (None: the first); ValueError that lists the floating ones."""
    outputs, names = program.outputs, program.output_names
    floating = [
        i
        for i, node in enumerate(outputs)
        if isinstance(node, fx.Node) and isinstance(v := node.meta.get("val"), Tensor) and v.is_floating_point()
    ]
    choices = ", ".join(f"{i}{f' ({names[i]})' if names[i] else ''}" for i in floating)
    if wanted is None and floating:
        return floating[0]
    if isinstance(wanted, int) and wanted in floating:
        return wanted
    if isinstance(wanted, str) and wanted in names and names.index(wanted) in floating:
        return names.index(wanted)
    raise ValueError(f"output={wanted!r}: the model's floating outputs are {choices or 'none'}")


def asked_outputs(target: Any, targets: Targets | None) -> tuple[str | int, ...] | None:
    """The outputs that targets of the form {output: target} name, in order; None where targets name none.

    Raises ValueError where some of several name their output and others do not.
    """
    asked = [] if callable(targets) else [target] if targets is None else [*targets]
    naming = [t for t in asked if isinstance(t, Mapping)]
    if not naming:
        return None
    if len(naming) != len(asked):
        raise ValueError("targets=[...] mixes {output: target} with targets that name no output: name it in all")
    names = tuple(dict.fromkeys(name for t in naming for name in t))
    if not names:
        raise ValueError("target={} is empty: give {output: target}")
    return names


def each_target(targets: Targets | None, change: Callable[[Any], Any]) -> Targets | None:
    """A list of targets, or the function that makes it, with every target changed."""
    if targets is None:
        return None
    if callable(targets):
        make = targets
        return lambda output: [change(target) for target in make(output)]
    return [change(target) for target in targets]


def context_of(
    value: Tensor,
    index: int | None,
    *,
    says: Says,
    names: Sequence[str],
    outputs: Sequence[Any],
    masks: Sequence[Any],
    probability: bool,
) -> Context:
    """What is known about a value that is explained: the output at `index`, or an inner one (None).

    names, outputs: those of all outputs. masks: the inputs that say where samples end.
    """
    boxes = index is not None and _is_box(names[index]) and _has_queries(value) and value.shape[-1] == 4
    scores = None
    if boxes:
        scores = _beside(value, names, outputs, _is_score)
    elif index is not None and _is_score(names[index]) and _has_queries(value):
        found = _beside(value, names, outputs, _is_box)
        scores = value if found is not None and found.shape[-1] == 4 else None
    return Context(
        causal=says.causal,
        last=_last(value, masks),
        probability=probability,
        scores=None if scores is None else scores.detach(),
        boxes=boxes,
        labels=says.labels,
    )


def mask_names(names: Sequence[str]) -> tuple[str, ...]:
    """The inputs that say where the samples of the output end: the decoder's own where there is a decoder."""
    if any(name in ("decoder_input_ids", "decoder_inputs_embeds") for name in names):
        return tuple(name for name in names if name == "decoder_attention_mask")
    return tuple(name for name in names if name == "attention_mask")


def _last(value: Tensor, masks: Sequence[Any]) -> Tensor | None:
    """Per sample the last position that is no padding, left or right; None without a mask of the value's positions."""
    for mask in masks:
        if isinstance(mask, Tensor) and value.dim() == 3 and mask.shape == value.shape[:2]:
            return (torch.arange(mask.shape[1], device=mask.device) * (mask != 0)).argmax(1)
    return None


def _has_queries(value: Any) -> bool:
    return isinstance(value, Tensor) and value.dim() == 3 and value.is_floating_point()


def _is_box(name: str) -> bool:
    return "box" in name.rpartition(".")[2].lower()


def _is_score(name: str) -> bool:
    return any(word in name.rpartition(".")[2].lower() for word in ("logit", "score", "class", "cls"))


def _beside(value: Tensor, names: Sequence[str], outputs: Sequence[Any], fits: Any) -> Tensor | None:
    """The first output for the same queries whose name fits."""
    for name, other in zip(names, outputs, strict=True):
        if fits(name) and _has_queries(other) and other.shape[:2] == value.shape[:2]:
            assert isinstance(other, Tensor)
            return other
    return None
