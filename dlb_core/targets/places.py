"""A target as the places of one sample's output that it names."""

from __future__ import annotations

import operator
from typing import Any, SupportsIndex

import torch
from torch import Tensor

from dlb_core.targets.request import Context


def class_axis(dims: int) -> int | None:
    """The axis of the classes in an output of so many dimensions: [B, C], [B, T, C], [B, C, H, W]."""
    return {2: 1, 3: 2, 4: 1}.get(dims)


def places(target: Any, output: Tensor, sample: int, context: Context) -> tuple[Any, ...]:
    """One sample's target as an index into its output, which comes without the batch dimension.

    A part is an int, a slice, or (in front of another one) a span (start, stop); None as the class of a position means
    the winning one there. Raises ValueError for what is out of range or chooses nothing.
    """
    sizes = tuple(output.shape)
    index = tuple(target) if isinstance(target, (tuple, list)) else (target,)
    if len(sizes) == 0:
        if index != (0,):
            raise ValueError(
                f"target={target!r}: an output of shape [B] has one unit per sample, so the target can only be 0"
            )
        return ()
    if len(sizes) == 2:
        index = _positions(index, target, sizes, sample, context)
    if len(sizes) == 3 and len(index) == 2 and isinstance(index[1], Tensor):  # (class, mask)
        return _pixels(index, sizes, sample)
    if len(index) > len(sizes):
        raise ValueError(
            f"target={target!r} has {len(index)} parts; the output {['B', *sizes]} takes at most {len(sizes)} "
            "after the batch"
        )
    index = tuple(_span(part, last=i == len(index) - 1) for i, part in enumerate(index))
    winners = len(sizes) == 2 and len(index) == 2 and index[1] is None
    for part, size in zip(index[:1] if winners else index, sizes, strict=False):
        in_range(part, size, "target")
    if winners:
        where = torch.arange(sizes[0], device=output.device)[index[0]]
        return where, output[where].argmax(-1)
    return index


def _positions(
    index: tuple[Any, ...], target: Any, sizes: tuple[int, ...], sample: int, context: Context
) -> tuple[Any, ...]:
    """What one part alone means in an output with positions."""
    if len(index) > 1:
        return index
    if isinstance(index[0], slice):  # a span alone: what won at each of its positions
        return (index[0], None)
    if context.boxes:  # a query alone: all of its box
        return index
    if context.scores is not None:
        raise ValueError(f"target={target!r}: of a detector give (query, class) or Query({target!r})")
    last = int(context.last[sample]) if context.last is not None else sizes[0] - 1
    return (last, *index)  # a class or token alone: at the last position


def _pixels(index: tuple[Any, ...], sizes: tuple[int, ...], sample: int) -> tuple[Any, ...]:
    channel, mask = index
    in_range(channel, sizes[0], "class")
    if mask.dim() == 3:
        mask = mask[sample] if sample < mask.shape[0] else mask
    if mask.shape != sizes[1:]:
        raise ValueError(
            f"the mask of a (class, mask) target must have shape {list(sizes[1:])}, got {list(mask.shape)}"
        )
    if not bool(mask.any()):
        raise ValueError("the mask of a (class, mask) target chooses no pixel")
    return (channel, mask.bool())


def _span(part: Any, *, last: bool) -> Any:
    """A span (start, stop) in front of another part is a slice."""
    if isinstance(part, (tuple, list)) and len(part) == 2 and not last:
        return slice(*part)
    return part


def in_range(part: Any, size: int, what: str) -> None:
    """Raises ValueError when an index or a slice chooses nothing of so many."""
    if isinstance(part, slice):
        bounds = [b for b in (part.start, part.stop) if b is not None]
        ints = all(isinstance(b, SupportsIndex) and not isinstance(b, (bool, Tensor)) for b in bounds)
        if not ints or any(not -size <= operator.index(b) <= size for b in bounds) or not range(size)[part]:
            raise ValueError(f"{what} {part!r} chooses nothing or is out of range: choose a span in 0 .. {size}")
        return
    whole = isinstance(part, SupportsIndex) and not isinstance(part, (bool, Tensor))
    if not whole or not -size <= operator.index(part) < size:
        raise ValueError(f"{what} {part!r} is out of range: choose an int in 0 .. {size - 1}")
