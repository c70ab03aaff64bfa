"""Hypothesis strategies for the arguments of ops: tensors, shapes that broadcast, dimensions, indices.

Needs hypothesis, which the rest of the kit does without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from dlb_core.testing.tensors import LAYOUTS, SIGNS, Tensors

try:
    from hypothesis import strategies as st
except ImportError as error:
    raise ImportError("dlb_core.testing.strategies needs hypothesis: pip install hypothesis") from error

Shape = tuple[int, ...]


def makers(
    dtypes: tuple[torch.dtype, ...] = (torch.float64,),
    *,
    signs: tuple[str, ...] = SIGNS,
    layouts: tuple[str, ...] = LAYOUTS,
) -> st.SearchStrategy[Tensors]:
    """Makers of tensors: `t(2, 3)` gives one with the drawn dtype, signs (zeros too) and strides."""
    return st.builds(
        Tensors,
        seed=st.integers(0, 2**31),
        dtype=st.sampled_from(dtypes),
        signs=st.sampled_from(signs),
        layout=st.sampled_from(layouts),
    )


def both_dtypes() -> st.SearchStrategy[Tensors]:
    """Makers of float64 and of float32 tensors."""
    return makers((torch.float64, torch.float32))


def shapes(low: int = 0, high: int = 4, *, sizes: tuple[int, int] = (1, 4)) -> st.SearchStrategy[Shape]:
    """Shapes with `low` to `high` dimensions."""
    return st.lists(st.integers(*sizes), min_size=low, max_size=high).map(tuple)


def tensors(
    shape: Shape | st.SearchStrategy[Shape] | None = None,
    dtypes: tuple[torch.dtype, ...] = (torch.float64,),
    *,
    signs: tuple[str, ...] = SIGNS,
    layouts: tuple[str, ...] = LAYOUTS,
) -> st.SearchStrategy[Tensor]:
    """One floating tensor; `shape` is a shape or a strategy for one (default: `shapes()`)."""
    wanted = shapes() if shape is None else st.just(shape) if isinstance(shape, tuple) else shape
    return st.builds(lambda t, size: t(*size), makers(dtypes, signs=signs, layouts=layouts), wanted)


@st.composite
def broadcast_pair(draw: Callable[..., Any], *, sizes: tuple[int, int] = (0, 4)) -> tuple[Shape, ...]:
    """Two shapes that broadcast against each other: sizes of one, and dimensions that one of them lacks."""
    full = draw(shapes(0, 4, sizes=sizes))
    pair = []
    for _ in range(2):
        shape = [1 if draw(st.booleans()) else size for size in full]
        pair.append(tuple(shape[draw(st.integers(0, len(shape))) :]))
    return tuple(pair)


def dim_of(shape: Shape) -> st.SearchStrategy[int]:
    """A dimension of the shape, counted from the left or from the right."""
    return st.integers(-len(shape), len(shape) - 1)


def indices(high: int, shape: Shape | st.SearchStrategy[Shape] | None = None) -> st.SearchStrategy[Tensor]:
    """A tensor of integers from 0 to high - 1; `shape` as for `tensors`."""
    wanted = shapes() if shape is None else st.just(shape) if isinstance(shape, tuple) else shape
    return st.builds(lambda seed, size: Tensors(seed).ids(high, *size), st.integers(0, 2**31), wanted)
