"""Draws tensors: any sign, zeros, contiguous or not, reproducible from one number."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor

SIGNS = ("mixed", "positive", "negative", "sparse", "zero")
LAYOUTS = ("contiguous", "reversed", "strided", "offset")
checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)


@dataclass
class Tensors:
    """Makes tensors: `t(2, 3)` has the chosen dtype, signs and layout; every call draws new values."""

    seed: int = 0
    dtype: torch.dtype = torch.float64
    signs: str = "mixed"
    layout: str = "contiguous"
    generator: torch.Generator = field(init=False, repr=False)
    count: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, *shape: int) -> Tensor:
        return laid_out(self._values(shape), self.layout)

    def _values(self, shape: tuple[int, ...]) -> Tensor:
        values = self.normal(*shape)
        if self.signs == "positive":
            return values.abs()
        if self.signs == "negative":
            return -values.abs()
        if self.signs == "sparse":
            return values * self.mask(*shape)
        return torch.zeros_like(values) if self.signs == "zero" else values

    def normal(self, *shape: int) -> Tensor:
        """Both signs and no zeros, whatever the signs of the others: seeds, for instance."""
        return torch.randn(shape, generator=self.generator, dtype=torch.float64).to(self.dtype)

    def positive(self, *shape: int) -> Tensor:
        """Between 0.5 and 1.5: variances, denominators, bases of powers."""
        return (torch.rand(shape, generator=self.generator, dtype=torch.float64) + 0.5).to(self.dtype)

    def distinct(self, *shape: int) -> Tensor:
        """No value twice, in this tensor or another one, and none is 0: each tells which element it is."""
        size = torch.Size(shape).numel()
        self.count += 1
        offset = 1 + 1000 * self.count
        values = torch.randperm(size, generator=self.generator).reshape(shape).to(self.dtype) + offset
        return laid_out(values, self.layout)

    def ids(self, high: int, *shape: int) -> Tensor:
        """Integers from 0 to high - 1."""
        return torch.randint(high, shape, generator=self.generator)

    def mask(self, *shape: int) -> Tensor:
        """True for about half."""
        return torch.rand(shape, generator=self.generator) > 0.5


def laid_out(values: Tensor, layout: str) -> Tensor:
    """The same values with other strides."""
    if layout == "reversed":
        dims = list(range(values.dim()))[::-1]
        return values.permute(dims).contiguous().permute(dims)
    if layout == "strided" and values.dim():
        return torch.stack([values, torch.full_like(values, 7.0)], -1)[..., 0]
    if layout == "offset" and values.dim():
        return torch.cat([torch.full_like(values[:1], 7.0), values])[values[:1].shape[0] :]
    return values


def tensors(dtypes: tuple[torch.dtype, ...] = (torch.float64,)) -> st.SearchStrategy[Tensors]:
    """Any maker of tensors of these dtypes."""
    return st.builds(
        Tensors,
        seed=st.integers(0, 2**31),
        dtype=st.sampled_from(dtypes),
        signs=st.sampled_from(SIGNS),
        layout=st.sampled_from(LAYOUTS),
    )


def both_dtypes() -> st.SearchStrategy[Tensors]:
    """float64 and float32."""
    return tensors((torch.float64, torch.float32))


def shapes(low: int = 0, high: int = 4, *, sizes: tuple[int, int] = (1, 4)) -> st.SearchStrategy[tuple[int, ...]]:
    """Shapes with `low` to `high` dimensions."""
    return st.lists(st.integers(*sizes), min_size=low, max_size=high).map(tuple)


@st.composite
def broadcast_pair(draw: Callable[..., object], *, sizes: tuple[int, int] = (0, 4)) -> tuple[tuple[int, ...], ...]:
    """Two shapes that broadcast against each other: sizes of one, and dimensions that one of them lacks."""
    full = draw(shapes(0, 4, sizes=sizes))
    pair = []
    for _ in range(2):
        shape = [1 if draw(st.booleans()) else size for size in full]
        pair.append(tuple(shape[draw(st.integers(0, len(shape))) :]))
    return tuple(pair)


def dim_of(shape: tuple[int, ...]) -> st.SearchStrategy[int]:
    """A dimension of the shape, counted from the left or from the right."""
    return st.integers(-len(shape), len(shape) - 1)
