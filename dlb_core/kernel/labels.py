"""Numbers that are sent through an op to see where its elements come from.

Every element of an operand holds a number (that of its channel, say). An op that moves, copies or averages hands the
numbers on; where all that went into an element had the same, that is its number.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.kernel.kinds import Row


def moved(node: fx.Node, row: Row, known: dict[fx.Node, Any], *, truth: bool) -> Any:
    """The labels after an op that moves or averages: its result for them over its result for ones.

    known: operand -> its labels, with size 1 along dimensions on which they are all the same. truth: what stands for a
    condition that the graph does not know. None where the numbers mix, and where none are left.
    """
    of_labels = _run(node, row, known, lambda labels, shape: labels.expand(shape), truth=truth)
    of_ones = _run(node, row, known, lambda labels, shape: torch.ones(shape, dtype=labels.dtype), truth=truth)
    if isinstance(of_labels, (tuple, list)):
        found = tuple(map(_compressed, of_labels, of_ones))
        return found if any(part is not None for part in found) else None
    return _compressed(of_labels, of_ones)


def _run(
    node: fx.Node, row: Row, known: dict[fx.Node, Any], fill: Callable[[Tensor, Any], Tensor], *, truth: bool
) -> Any:
    def example(source: fx.Node) -> Any:
        value = source.meta.get("val")
        if isinstance(value, (tuple, list)):
            parts = known.get(source) or (None,) * len(value)
            return tuple(one(v, part) for v, part in zip(value, parts, strict=True))
        return one(value, known.get(source)) if isinstance(value, Tensor) else size_of(value)

    def one(value: Any, labels: Any) -> Any:
        if not isinstance(value, Tensor):
            return value
        shape = [size_of(n) for n in value.shape]
        if labels is not None:
            return fill(labels, shape)
        dtype = value.dtype if not value.is_floating_point() else torch.float64
        return torch.full(shape, truth if dtype is torch.bool else 0, dtype=dtype)

    def plain(value: Any) -> Any:
        """No cast may round a number, and no example leaves for a device."""
        if isinstance(value, torch.dtype) and value.is_floating_point:
            return torch.float64
        return torch.device("cpu") if isinstance(value, torch.device) else value

    args, kwargs = fx.node.map_aggregate(fx.map_arg((node.args, dict(node.kwargs)), example), plain)
    run: Any = row.forward or node.target
    with torch.no_grad():
        return run(*args, **kwargs)


def _compressed(labels: Any, ones: Any) -> Tensor | None:
    """One label per place, where all that went into it agrees; None where it does not, or nothing is known."""
    if not isinstance(labels, Tensor) or not labels.is_floating_point() or not labels.numel():
        return None
    ratio = torch.where(ones == 0, torch.nan, labels / ones)
    unknown = ratio.isnan()
    if bool(unknown.all()) or bool(((ratio - ratio.round()).abs() > 1e-6)[~unknown].any()):
        return None
    low = torch.where(unknown, torch.inf, ratio.round())
    high = torch.where(unknown, -torch.inf, ratio.round())
    for dim in range(ratio.dim()):
        least, most = low.amin(dim, keepdim=True), high.amax(dim, keepdim=True)
        agreed = (low.isinf() | (low == least)) & (high.isinf() | (high == most))
        if bool(agreed.all()):
            low, high = least, most
    known = high.numel() > 1 and bool((low == high).all())  # of an average over all of them nothing is left
    return high if known else None


def fresh(value: Any, dim: int) -> Tensor | None:
    """A number for each position on a dimension, counted from the right."""
    if not isinstance(value, Tensor) or value.dim() < -dim:
        return None
    numbers = torch.arange(size_of(value.shape[dim]), dtype=torch.float64)
    return grown(numbers.reshape(-1, *[1] * (-dim - 1)), value.dim())


def grown(labels: Tensor, rank: int) -> Tensor:
    """Labels with dimensions of size 1 in front."""
    return labels.reshape(*[1] * (rank - labels.dim()), *labels.shape)


def shape_of(node: fx.Node) -> tuple[int, ...] | None:
    """The shape of a node's output as it was when the model was traced; None for several outputs."""
    value = node.meta.get("val")
    return tuple(size_of(n) for n in value.shape) if isinstance(value, Tensor) else None


def size_of(size: Any) -> Any:
    """A size as it was when the model was traced."""
    return size if isinstance(size, (int, float, bool)) or size is None else size.node.hint
