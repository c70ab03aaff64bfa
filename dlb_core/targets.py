"""Targets and seeds: which outputs are explained, and how many units of relevance each of them starts with."""

from __future__ import annotations

import dataclasses
import math
import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, SupportsIndex

import numpy as np
import torch
from torch import Tensor

from dlb_core.choices import MODEL_TYPES, SEEDS, TASKS, choose


@dataclass(frozen=True)
class Request:
    """What the caller asked about; see `seed`."""

    task: str = "auto"
    target: Any = None
    seed: str = "multiplier"
    multiplier: float = 100.0
    scaler: float = 1.0
    thresholding: float = 0.5
    model_type: str | None = None

    def at(self, target: Any) -> Request:
        """The same request for another target."""
        return dataclasses.replace(self, target=target)

    def __post_init__(self) -> None:
        choose("task", self.task, TASKS)
        choose("seed", self.seed, SEEDS)
        choose("model_type", self.model_type, MODEL_TYPES)
        for name in ("multiplier", "scaler"):
            value = getattr(self, name)
            if not math.isfinite(value) or value == 0:
                raise ValueError(f"{name}={value!r}: must be a finite number other than 0")
        if self.seed != "multiplier" and self.multiplier != 100.0:
            raise ValueError(
                f"seed={self.seed!r} takes the units from the output; use scaler= to scale them, not multiplier="
            )
        if not 0 <= self.thresholding <= 1:
            raise ValueError(f"thresholding={self.thresholding!r}: must be between 0 and 1")


@dataclass(frozen=True)
class Context:
    """What is known about the explained output: is the model causal, where do samples end, is it a probability."""

    causal: bool = False
    last: Tensor | None = None  # per sample, the last position that is no padding
    probability: bool = False


@dataclass(frozen=True)
class Seed:
    """Relevance at the output (its shape), and the target in words and as data."""

    relevance: Tensor
    target: Any
    task: str


def make_seed(output: Tensor, request: Request, context: Context, dtype: torch.dtype) -> Seed:
    """The seed for one target; each sample of the batch carries the same number of units.

    output: the model's chosen output, [B], [B, C], [B, T, C] or [B, C, H, W]. Raises ValueError when the target
    does not fit the output.
    """
    output = output.detach()
    target = request.target(output) if callable(request.target) else request.target
    task = _task(output, request, context) if target is None else request.task
    if isinstance(target, Tensor) and target.is_floating_point():
        if target.shape != output.shape:
            raise ValueError(
                f"a weight tensor as target must have the output's shape {list(output.shape)}, got {list(target.shape)}"
            )
        units: Tensor | float = request.multiplier
        if request.seed != "multiplier":
            units = output if request.seed == "logit" else _probabilities(output, context)
        return Seed((target * units * request.scaler).to(dtype), target, task)
    target = _plain(target.tolist() if isinstance(target, Tensor) else target)
    if target is not None:
        _check_rank(request.task, output)
    weights, chosen = _weights(output, target, task, request, context)
    return Seed(_units(output, weights, task, request, context).to(dtype), chosen, task)


RANKS = {
    "binary-classification": (0, 1, 2),
    "multi-class classification": (2,),
    "token-classification": (3,),
    "generation": (3,),
    "segmentation": (4,),
    "binary-segmentation": (4,),
}


def _check_rank(task: str, output: Tensor) -> None:
    """A target needs no task; one that is given all the same must fit the output."""
    ranks = RANKS.get(task, (output.dim(),))
    if output.dim() not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise ValueError(
            f"task={task!r} expects an output of {wanted} dimensions, got {list(output.shape)}: leave task out"
        )


def _plain(target: Any) -> Any:
    """The target with numpy's and torch's numbers as Python's; masks stay tensors."""
    if isinstance(target, Tensor):
        return target if target.dim() else target.item()
    if isinstance(target, (np.ndarray, np.integer)):
        return target.tolist()
    if isinstance(target, (tuple, list)):
        return type(target)(_plain(part) for part in target)
    return target


def _task(output: Tensor, request: Request, context: Context) -> str:
    """The task that `auto` means for this output, when no target is given."""
    if request.task != "auto":
        return request.task
    if output.dim() <= 1 or (output.dim() == 2 and output.shape[1] == 1):
        return "binary-classification"
    if output.dim() == 2:
        return "multi-class classification"
    if output.dim() == 3:
        causal = context.causal if request.model_type is None else request.model_type != "encoder"
        if causal:
            return "generation"
        raise ValueError(
            f"the output {list(output.shape)} has positions: give target=(position, class), "
            "or task='generation' for the token after the last position"
        )
    if output.dim() == 4:
        return "binary-segmentation" if output.shape[1] == 1 else "segmentation"
    raise ValueError(
        f"no task fits an output of shape {list(output.shape)}: give target= as a weight tensor of that shape"
    )


def _weights(output: Tensor, target: Any, task: str, request: Request, context: Context) -> tuple[Tensor, Any]:
    """Which outputs are chosen (1) or not (0), with a leading batch dimension, and what that is called."""
    if output.dim() == 0:
        if target not in (None, 0):
            raise ValueError(f"target={target!r}: the output is one number, so the target can only be 0")
        return torch.ones_like(output), _side(output, request, context) if task == "binary-classification" else 0
    if target is None:
        return _automatic(output, task, request, context)
    weights = torch.zeros_like(output)
    per_sample = target if isinstance(target, list) else [target] * output.shape[0]
    if len(per_sample) != output.shape[0]:
        raise ValueError(
            f"target is a list of {len(per_sample)} for a batch of {output.shape[0]}: "
            "give one per sample, or targets=[...] for several seeds"
        )
    for sample, one in enumerate(per_sample):
        weights[(sample, *_index(one, output, sample, context))] = 1
    return weights, target


def _index(target: Any, output: Tensor, sample: int, context: Context) -> tuple[Any, ...]:
    """One sample's target as an index into its output."""
    sizes = tuple(output.shape[1:])
    index = tuple(target) if isinstance(target, (tuple, list)) else (target,)
    if len(sizes) == 2 and len(index) == 1:  # a class or token alone: at the last position
        last = int(context.last[sample]) if context.last is not None else sizes[0] - 1
        index = (last, *index)
    if len(sizes) == 3 and len(index) == 2 and isinstance(index[1], Tensor):  # (class, mask)
        channel, mask = index
        _in_range(channel, sizes[0], "class")
        if mask.shape != output.shape[2:]:
            raise ValueError(
                f"the mask of a (class, mask) target must have shape {list(output.shape[2:])}, got {list(mask.shape)}"
            )
        return (channel, mask.bool())
    if len(sizes) == 0:
        if index != (0,):
            raise ValueError(
                f"target={target!r}: an output of shape {list(output.shape)} has one unit, so the target can only be 0"
            )
        return ()
    if len(index) > len(sizes):
        raise ValueError(
            f"target={target!r} has {len(index)} parts; the output {list(output.shape)} takes at most {len(sizes)} "
            "after the batch"
        )
    for part, size in zip(index, sizes, strict=False):
        _in_range(part, size, "target")
    return index


def _in_range(part: Any, size: int, what: str) -> None:
    if isinstance(part, slice):
        return
    whole = isinstance(part, SupportsIndex) and not isinstance(part, (bool, Tensor))
    if not whole or not -size <= operator.index(part) < size:
        raise ValueError(f"{what} {part!r} is out of range: choose an int in 0 .. {size - 1}")


def _automatic(output: Tensor, task: str, request: Request, context: Context) -> tuple[Tensor, Any]:
    weights = torch.zeros_like(output)
    batch = torch.arange(output.shape[0], device=output.device)
    if task == "binary-classification":
        if output.dim() > 2 or (output.dim() == 2 and output.shape[1] != 1):
            if output.dim() == 2 and output.shape[1] == 2:
                return _automatic(output, "multi-class classification", request, context)
            raise ValueError(f"binary classification expects an output [B], [B, 1] or [B, 2], got {list(output.shape)}")
        return torch.ones_like(output), _side(output, request, context)
    if task in ("regression", "bbox-regression"):
        return torch.ones_like(output), None
    if task == "multi-class classification":
        if output.dim() != 2:
            raise ValueError(
                f"multi-class classification expects an output [B, C], got {list(output.shape)}: give target="
            )
        chosen = output.argmax(1)
        weights[batch, chosen] = 1
        return weights, chosen.tolist()
    if task == "generation":
        if output.dim() != 3:
            raise ValueError(f"generation expects an output [B, T, C], got {list(output.shape)}")
        last = context.last if context.last is not None else torch.full_like(batch, output.shape[1] - 1)
        token = output[batch, last].argmax(-1)
        weights[batch, last, token] = 1
        return weights, list(zip(last.tolist(), token.tolist(), strict=True))
    if task == "token-classification":
        raise ValueError("token classification needs a position: give target=(position, class)")
    return _pixels(output, task, request, context)


def _pixels(output: Tensor, task: str, request: Request, context: Context) -> tuple[Tensor, Any]:
    """Segmentation: the pixels whose arg-max is the largest foreground class; one channel: by the threshold."""
    if output.dim() != 4:
        raise ValueError(f"{task} expects an output [B, C, H, W], got {list(output.shape)}")
    if output.shape[1] == 1:
        probability = output if context.probability else output.sigmoid()
        weights = (probability > request.thresholding).to(output.dtype)
        return weights, ["pixels above the threshold"] * output.shape[0]
    winner = output.argmax(1)
    weights, chosen = torch.zeros_like(output), []
    for sample, pixels in enumerate(winner):
        counts = torch.bincount(pixels.flatten(), minlength=output.shape[1])
        foreground = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
        weights[sample, foreground] = (pixels == foreground).to(output.dtype)
        chosen.append(foreground)
    return weights, chosen


def _side(output: Tensor, request: Request, context: Context) -> Any:
    probability = output if context.probability else output.sigmoid()
    side = (probability > request.thresholding).long().flatten().tolist()
    return side if output.dim() else side[0]


def _units(output: Tensor, weights: Tensor, task: str, request: Request, context: Context) -> Tensor:
    """Units per output: a sample's chosen outputs share its units, by size in a regression, else equally."""
    if request.seed == "logit":
        return weights * output * request.scaler
    if request.seed == "probability":
        return weights * _probabilities(output, context) * request.scaler
    dims = tuple(range(1, output.dim()))
    shares = weights * output if task in ("regression", "bbox-regression") else weights
    total = shares.abs().sum(dims, keepdim=True) if dims else shares.abs()
    if task in ("regression", "bbox-regression"):
        equal = weights.sum(dims, keepdim=True) if dims else weights
        shares, total = torch.where(total == 0, weights, shares), torch.where(total == 0, equal, total)
    return shares / total.clamp_min(torch.finfo(output.dtype).tiny) * request.multiplier * request.scaler


def _probabilities(output: Tensor, context: Context) -> Tensor:
    if context.probability:
        return output
    one = output.dim() <= 1 or output.shape[1] == 1
    return output.sigmoid() if one else output.softmax(1 if output.dim() == 4 else -1)


Target = int | tuple[Any, ...] | list[Any] | Tensor | Callable[[Tensor], Any] | None
