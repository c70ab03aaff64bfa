"""The two maps of `contrastive` restated: every value with the dense matrix of what contributed to it, walked back.

R+_i = sum_j a_ij R+_j + d_ij R-_j and R-_i = sum_j a_ij R-_j + d_ij R+_j, with the shares by magnitude of what agrees
with the sign of its value (a) and of what does not (d).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Value:
    """A vector, and for each vector it came from the matrix [here, there] of contributions (None: it is a copy)."""

    def __init__(self, value: Tensor, sources: Sequence[tuple[Value, Tensor | None]] = ()) -> None:
        self.value = value
        self.sources = sources
        self.plus, self.minus = torch.zeros_like(value), torch.zeros_like(value)

    def __add__(self, other: Value) -> Value:
        return Value(self.value + other.value, [(self, self.value.diag()), (other, other.value.diag())])

    def passing(self, function: Callable[[Tensor], Tensor]) -> Value:
        """An elementwise function, or a product with a gate."""
        return Value(function(self.value), [(self, None)])

    def linear(self, function: Callable[[Tensor], Tensor]) -> Value:
        """An affine map of the vector; its constant part gets nothing. Where all is zero the weights decide."""
        weight = torch.autograd.functional.jacobian(function, self.value)
        return Value(function(self.value).detach(), [(self, weight * torch.where(self.value == 0, 1e-150, self.value))])

    def parts(self, count: int) -> list[Value]:
        """The vector cut into equal pieces."""
        size = len(self.value) // count
        eye = torch.eye(len(self.value), dtype=self.value.dtype)
        return [
            Value(piece, [(self, rows * self.value.abs() * piece.sign()[:, None])])
            for piece, rows in zip(self.value.split(size), eye.split(size), strict=True)
        ]


def walk_back(output: Value, plus: Tensor, minus: Tensor) -> None:
    """Fills `plus` and `minus` of all that `output` came from."""
    output.plus, output.minus = plus, minus
    for value in _latest_first(output):
        if any(z is None for _, z in value.sources):
            ((source, _),) = value.sources
            source.plus, source.minus = source.plus + value.plus, source.minus + value.minus
            continue
        total = sum((z.abs().sum(1) for _, z in value.sources if z is not None), torch.zeros_like(value.value))
        for source, z in value.sources:
            assert z is not None
            share = z.abs() / total.clamp_min(1e-300)[:, None]
            agrees = z.sign() == torch.where(value.value < 0, -1, 1)[:, None]
            a, d = share * agrees, share * ~agrees
            source.plus = source.plus + value.plus @ a + value.minus @ d
            source.minus = source.minus + value.minus @ a + value.plus @ d


def _latest_first(output: Value) -> list[Value]:
    """All values behind one, each after everything that reads it."""
    order: list[Value] = []
    seen: set[int] = set()

    def visit(value: Value) -> None:
        if id(value) not in seen:
            seen.add(id(value))
            for source, _ in value.sources:
                visit(source)
            order.append(value)

    visit(output)
    return order[::-1]


def through(model: nn.Sequential, x: Tensor) -> tuple[Value, Value]:
    """One sample through a sequence of layers: the value that came in and the one that went out."""
    shape, first = x.shape, Value(x.reshape(-1))
    value = first
    for layer in model:
        call = _flat(layer, shape)
        pointwise = isinstance(layer, (nn.ReLU, nn.Tanh, nn.GELU))
        value = value.passing(call) if pointwise else value.linear(call)
        shape = layer(torch.zeros(1, *shape, dtype=x.dtype))[0].shape
    return first, value


def _flat(layer: nn.Module, shape: torch.Size) -> Callable[[Tensor], Tensor]:
    return lambda v: layer(v.reshape(1, *shape)).reshape(-1)
