"""Tasks: which one is meant, what its outputs look like, and what is explained when no target is given."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlb_core.targets.detection import Query
from dlb_core.targets.request import Context, Request

RANKS = {
    "binary-classification": (0, 1, 2),
    "multi-class classification": (2,),
    "token-classification": (3,),
    "generation": (3,),
    "detection": (3,),
    "segmentation": (4,),
    "binary-segmentation": (4,),
}

Chosen = tuple[Tensor, Any]  # weights in the output's shape, and the target of each sample


def check_rank(task: str, output: Tensor) -> None:
    """A target needs no task; one that is given all the same must fit the output."""
    ranks = RANKS.get(task, (output.dim(),))
    if output.dim() not in ranks:
        wanted = " or ".join(map(str, ranks))
        raise ValueError(
            f"task={task!r} expects an output of {wanted} dimensions, got {list(output.shape)}: leave task out"
        )


def settle_task(output: Tensor, request: Request, context: Context) -> str:
    """The task that `auto` means for this output; it stays `auto` where a target says all."""
    if request.task == "bbox-regression" and context.scores is not None and not context.boxes:
        raise ValueError("task='bbox-regression' explains boxes, this output holds class scores: choose output=")
    if request.task != "auto":
        return request.task
    if context.boxes:
        return "bbox-regression"
    if request.target is not None:
        return "auto"
    if output.dim() <= 1 or (output.dim() == 2 and output.shape[1] == 1):
        return "binary-classification"
    if output.dim() == 2:
        return "multi-class classification"
    if output.dim() == 3:
        return _task_of_positions(output, request, context)
    if output.dim() == 4:
        return "binary-segmentation" if output.shape[1] == 1 else "segmentation"
    raise ValueError(
        f"no task fits an output of shape {list(output.shape)}: give target= as a weight tensor of that shape"
    )


def _task_of_positions(output: Tensor, request: Request, context: Context) -> str:
    if context.scores is not None:
        return "detection"
    causal = context.causal if request.model_type is None else request.model_type != "encoder"
    if causal:
        return "generation"
    raise ValueError(
        f"the output {list(output.shape)} has positions: give target=(position, class), "
        "or task='generation' for the token after the last position"
    )


def automatic(output: Tensor, task: str, request: Request, context: Context) -> Chosen:
    """What a task explains when no target is given."""
    if output.dim() == 0:
        return torch.ones_like(output), _side(output, request, context) if task == "binary-classification" else 0
    if context.boxes and output.dim() == 3:
        return _queries(output, context)
    return AUTOMATIC[task](output, request, context)


def _binary(output: Tensor, request: Request, context: Context) -> Chosen:
    if output.dim() > 2 or (output.dim() == 2 and output.shape[1] > 2):
        raise ValueError(f"binary classification expects an output [B], [B, 1] or [B, 2], got {list(output.shape)}")
    side = _side(output, request, context)
    if output.dim() == 1 or output.shape[1] == 1:
        return torch.ones_like(output), side
    return _one_of(output, torch.tensor(side, device=output.device))


def _classes(output: Tensor, request: Request, context: Context) -> Chosen:
    if output.dim() != 2:
        raise ValueError(f"multi-class classification expects an output [B, C], got {list(output.shape)}: give target=")
    return _one_of(output, output.argmax(1))


def _one_of(output: Tensor, chosen: Tensor) -> Chosen:
    return torch.zeros_like(output).scatter_(1, chosen.unsqueeze(1), 1), chosen.tolist()


def _all(output: Tensor, request: Request, context: Context) -> Chosen:
    return torch.ones_like(output), None


def _next_token(output: Tensor, request: Request, context: Context) -> Chosen:
    if output.dim() != 3:
        raise ValueError(f"generation expects an output [B, T, C], got {list(output.shape)}")
    batch = torch.arange(output.shape[0], device=output.device)
    last = context.last if context.last is not None else torch.full_like(batch, output.shape[1] - 1)
    token = output[batch, last].argmax(-1)
    weights = torch.zeros_like(output)
    weights[batch, last, token] = 1
    return weights, list(zip(last.tolist(), token.tolist(), strict=True))


def _token_class(output: Tensor, request: Request, context: Context) -> Chosen:
    raise ValueError(
        "token classification needs a position: give target=(position, class), a span as "
        "((start, stop), class), or slice(start, stop) for the winning class of each position in it"
    )


def _queries(output: Tensor, context: Context) -> Chosen:
    settled = [Query().settled(scores, sample, context) for sample, scores in enumerate(output)]
    weights = torch.stack([Query(*one).weights(output[i], i, context) for i, one in enumerate(settled)])
    return weights, [query if unit is None else (query, unit) for query, unit in settled]


def _detection(output: Tensor, request: Request, context: Context) -> Chosen:
    if output.dim() != 3:
        raise ValueError(f"detection expects an output [B, Q, C], got {list(output.shape)}")
    return _queries(output, context)


def _pixels(output: Tensor, request: Request, context: Context) -> Chosen:
    """The pixels whose arg-max is the largest foreground class; of one channel, those on the side of the sample."""
    if output.dim() != 4:
        raise ValueError(f"segmentation expects an output [B, C, H, W], got {list(output.shape)}")
    if output.shape[1] == 1:
        above = _probability(output, context) > request.thresholding
        found = above.flatten(1).any(1)  # a sample without any such pixel is all background, and that is explained
        return torch.where(found.reshape(-1, 1, 1, 1), above, ~above).to(output.dtype), found.long().tolist()
    winner = output.argmax(1)
    weights, chosen = torch.zeros_like(output), []
    for sample, pixels in enumerate(winner):
        counts = torch.bincount(pixels.flatten(), minlength=output.shape[1])
        foreground = int(counts[1:].argmax()) + 1 if counts[1:].any() else 0
        weights[sample, foreground] = (pixels == foreground).to(output.dtype)
        chosen.append(foreground)
    return weights, chosen


def _one_channel(output: Tensor, request: Request, context: Context) -> Chosen:
    if output.dim() != 4 or output.shape[1] != 1:
        raise ValueError(f"binary-segmentation expects an output [B, 1, H, W], got {list(output.shape)}")
    return _pixels(output, request, context)


AUTOMATIC: dict[str, Callable[[Tensor, Request, Context], Chosen]] = {
    "binary-classification": _binary,
    "multi-class classification": _classes,
    "regression": _all,
    "bbox-regression": _all,
    "token-classification": _token_class,
    "generation": _next_token,
    "detection": _detection,
    "segmentation": _pixels,
    "binary-segmentation": _one_channel,
}


def uses_threshold(output: Tensor, target: Any, task: str) -> bool:
    """Does thresholding decide anything here?"""
    if target is not None:
        return False
    return task == "binary-classification" or (task.endswith("segmentation") and output.shape[1:2] == (1,))


def _probability(output: Tensor, context: Context) -> Tensor:
    return output if context.probability else output.sigmoid()


def _side(output: Tensor, request: Request, context: Context) -> Any:
    """1 where the probability is above the threshold; of two outputs, that of the second."""
    if output.dim() == 2 and output.shape[1] == 2:
        probability = (output if context.probability else output.softmax(1))[:, 1]
    else:
        probability = _probability(output, context)
    side = (probability > request.thresholding).long().flatten().tolist()
    return side if output.dim() else side[0]
