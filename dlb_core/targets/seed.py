"""Units of relevance on what a target, or a task without one, chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlb_core.targets.contrast import REGRESSIONS, Contrast
from dlb_core.targets.detection import Query
from dlb_core.targets.places import places
from dlb_core.targets.request import Context, Request
from dlb_core.targets.tasks import automatic, check_rank, settle_task, uses_threshold

Target = (
    int
    | slice
    | tuple[Any, ...]
    | list[Any]
    | Tensor
    | Contrast
    | Query
    | Callable[[Tensor], Any]
    | Mapping[str | int, Any]
    | None
)

Targets = Sequence[Any] | Callable[[Tensor], Sequence[Any]]


@dataclass(frozen=True)
class Seed:
    """Relevance at the output (its shape), the target as data, the task, and whether the output is a probability.

    weights: how much of each output was asked for, before any are counted.
    """

    relevance: Tensor
    target: Any
    task: str
    weights: Tensor
    probability: bool = False


def make_seed(output: Tensor, request: Request, context: Context, dtype: torch.dtype) -> Seed:
    """The seed for one target; each sample of the batch carries the same number of units.

    output: the model's chosen output, [B], [B, C], [B, T, C] or [B, C, H, W]. Raises ValueError when the target
    does not fit the output.
    """
    output = output.detach()
    request = request.at(_plain(_answer(request.target, output)))
    output = output.to(dtype)  # a half-precision output could not count its pixels
    target = request.target
    task = settle_task(output, request, context)
    if request.thresholding != 0.5 and not uses_threshold(output, target, task):
        raise ValueError(
            f"thresholding={request.thresholding!r} decides nothing here: it is for binary classification and "
            "segmentation by one channel, without target="
        )
    if _is_weights(target):
        if target.shape != output.shape:
            raise ValueError(
                f"a weight tensor as target must have the output's shape {list(output.shape)}, got {list(target.shape)}"
            )
        weights, chosen = target, target
    elif target is None:
        weights, chosen = automatic(output, task, request, context)
    else:
        check_rank(request.task, output)
        weights, chosen = _weights(output, target, task, context), target
    asked = weights * request.scaler
    if request.seed == "multiplier" and weights is not target:
        weights = _shares(output, weights, task)
    return Seed(
        (_amounts(output, weights, task, request, context) * request.scaler).to(dtype),
        chosen,
        task,
        asked.to(dtype),
        context.probability,
    )


def make_seeds(
    output: Tensor,
    request: Request,
    targets: Targets | None,
    name: str | int | None,
    context: Context,
    dtype: torch.dtype,
) -> list[Seed]:
    """The seeds at one output, one for each of `targets` (None: the request's own target; a callable makes the list).

    name: what the targets call this output, if they are {output: target}; one that does not name it has no units here.
    """
    if targets is not None and request.target is not None:
        raise ValueError("give target= for one seed or targets=[...] for several, not both")
    if callable(targets):
        targets = targets(output.detach())
    if targets is not None and len(targets) == 0:
        raise ValueError("targets=[] is empty: give at least one target")
    seeds = []
    for target in [request.target] if targets is None else targets:
        if name is not None and name not in target:
            none = torch.zeros_like(output, dtype=dtype)
            seeds.append(Seed(none, None, request.task, none))
        else:
            seeds.append(make_seed(output, request.at(target if name is None else target[name]), context, dtype))
    return seeds


def _answer(target: Any, output: Tensor) -> Any:
    """What a callable says of the output: a target, or a number per sample (or one), explained by its gradient."""
    if not callable(target):
        return target
    with torch.enable_grad():
        value = target(leaf := output.clone().requires_grad_())
        if not isinstance(value, Tensor) or not value.is_floating_point():
            return value
        if value.shape == output.shape:
            return value.detach()
        if value.shape not in (torch.Size(), output.shape[:1]):
            raise ValueError(
                f"the target's callable returned shape {list(value.shape)} for an output {list(output.shape)}: return "
                "a target, weights of the output's shape, or one number per sample"
            )
        if not value.requires_grad:
            raise ValueError("the target's callable returned a number that does not depend on the output")
        (gradient,) = torch.autograd.grad(value.sum(), leaf)
    return gradient


def _is_weights(target: Any) -> bool:
    return isinstance(target, Tensor) and target.is_floating_point()


def _plain(target: Any) -> Any:
    """The target with numpy's and torch's numbers as Python's; masks and weights stay tensors."""
    if isinstance(target, Tensor) and not target.is_floating_point():
        return target.tolist()
    if isinstance(target, (np.ndarray, np.integer)):
        return target.tolist()
    if isinstance(target, (tuple, list)):
        return type(target)(_plain_part(part) for part in target)
    return target


def _plain_part(part: Any) -> Any:
    if isinstance(part, Tensor):
        return part if part.dim() else part.item()
    return _plain(part)


def _weights(output: Tensor, target: Any, task: str, context: Context) -> Tensor:
    """Which outputs are chosen: 1, a contrast's share, or 0."""
    if output.dim() == 0:
        if target != 0:
            raise ValueError(f"target={target!r}: the output is one number, so the target can only be 0")
        return torch.ones_like(output)
    per_sample = target if isinstance(target, list) else [target] * output.shape[0]
    if len(per_sample) != output.shape[0]:
        raise ValueError(
            f"target is a list of {len(per_sample)} for a batch of {output.shape[0]}: "
            "give one per sample, or targets=[...] for several seeds"
        )
    weights = torch.zeros_like(output)
    for sample, one in enumerate(per_sample):
        if isinstance(one, (Contrast, Query)):
            if isinstance(one, Contrast) and task in REGRESSIONS:
                raise ValueError(f"{one!r} is between classes; task={task!r} has none")
            weights[sample] = one.weights(output[sample], sample, context)
        else:
            weights[(sample, *places(one, output[sample], sample, context))] = 1
    return weights


def _shares(output: Tensor, weights: Tensor, task: str) -> Tensor:
    """A sample's chosen outputs share its units: by size in a regression, keeping the sign, else by their weights."""
    if task not in REGRESSIONS:
        return weights / _per_sample(weights.clamp_min(0))
    sized = weights * output
    shares = torch.where(_per_sample(sized.abs()) == 0, weights, sized)
    return shares / _per_sample(shares.abs())


def _per_sample(sizes: Tensor) -> Tensor:
    """Their sum over everything but the batch."""
    return sizes.sum(tuple(range(1, sizes.dim())), keepdim=True) if sizes.dim() > 1 else sizes


def _amounts(output: Tensor, weights: Tensor, task: str, request: Request, context: Context) -> Tensor:
    """Weights times what `seed=` counts in: the multiplier, the outputs themselves, or their probabilities."""
    if request.seed == "multiplier":
        return weights * request.multiplier
    return weights * measure(output, task, request, context)


def measure(output: Tensor, task: str, request: Request, context: Context) -> Tensor:
    """What a seed that takes its units from the output counts: its probabilities, or the output itself."""
    return _probabilities(output, task, context) if request.seed == "probability" else output


def _probabilities(output: Tensor, task: str, context: Context) -> Tensor:
    if task in REGRESSIONS:
        raise ValueError(f"task={task!r} has no probabilities: choose seed='multiplier' or 'logit'")
    if context.probability:
        return output
    if context.scores is not None:
        if context.labels is None:
            raise ValueError(
                "this detector does not say whether its scores go through a softmax or a sigmoid: "
                "choose seed='multiplier' or 'logit'"
            )
        return output.sigmoid() if output.shape[-1] == context.labels else output.softmax(-1)
    one = output.dim() <= 1 or output.shape[1] == 1
    return output.sigmoid() if one else output.softmax(1 if output.dim() == 4 else -1)
