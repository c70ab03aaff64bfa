"""Makes tensors for cases: any sign, zeros, contiguous or not, reproducible from one number."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

SIGNS = ("mixed", "positive", "negative", "sparse", "zero")
LAYOUTS = ("contiguous", "reversed", "strided", "offset")


@dataclass
class Tensors:
    """Makes tensors: `t(2, 3)` has the chosen dtype, signs and layout; every call draws new values.

    signs: one of `SIGNS`, or "distinct": `t(2, 3)` is then `t.distinct(2, 3)`. layout: one of `LAYOUTS`.
    """

    seed: int = 0
    dtype: torch.dtype = torch.float64
    signs: str = "mixed"
    layout: str = "contiguous"
    device: str = "cpu"
    generator: torch.Generator = field(init=False, repr=False)
    count: int = field(default=0, init=False, repr=False)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(self.seed)

    def __call__(self, *shape: int) -> Tensor:
        if self.signs == "distinct":
            return self.distinct(*shape)
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
        return self._made(torch.randn(shape, generator=self.generator, dtype=torch.float64))

    def positive(self, *shape: int) -> Tensor:
        """Between 0.5 and 1.5: variances, denominators, bases of powers."""
        return self._made(torch.rand(shape, generator=self.generator, dtype=torch.float64) + 0.5)

    def distinct(self, *shape: int) -> Tensor:
        """No value twice, in this tensor or another one, and none is 0: each tells which element it is."""
        size = torch.Size(shape).numel()
        self.count += 1
        offset = 1 + 1000 * self.count
        values = torch.randperm(size, generator=self.generator).reshape(shape) + offset
        return laid_out(self._made(values), self.layout)

    def ids(self, high: int, *shape: int) -> Tensor:
        """Integers from 0 to high - 1."""
        return torch.randint(high, shape, generator=self.generator).to(self.device)

    def mask(self, *shape: int) -> Tensor:
        """True for about half."""
        return (torch.rand(shape, generator=self.generator) > 0.5).to(self.device)

    def _made(self, values: Tensor) -> Tensor:
        return values.to(self.device, self.dtype)


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
