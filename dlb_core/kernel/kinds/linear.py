"""Kinds that are linear in what receives: linear, bilinear."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlb_core.kernel.call import Call
from dlb_core.kernel.kinds.base import Row, Site, sum_to, vjp


class LinearView:
    """A linear map at a node: `x`, `weight`, `bias`, `output`, `apply(x, w)` and `transpose(s, w)`.

    `bias` comes in a shape that broadcasts against the output.
    """

    def __init__(self, row: Linear, call: Call) -> None:
        self.call = call
        self.receivers = call.receivers
        self.row = row
        self.name = row.x

    @property
    def x(self) -> Tensor:
        value: Tensor = getattr(self.call, self.row.x)
        return value

    @property
    def weight(self) -> Tensor | None:
        if self.row.weights is not None:
            return self.row.weights(self.call)
        if self.row.weight is None:
            return None
        weight: Tensor = getattr(self.call, self.row.weight)
        factor = self.row.factor
        return weight if factor is None else weight * factor(self.call)

    @property
    def halves(self) -> tuple[Tensor | None, Tensor | None] | None:
        """The weight's positive and its negative part (a map with fixed weights has no negative one: None, None).

        None where only magnitudes can be taken.
        """
        weight = self.weight
        if weight is None:
            return None, None
        return None if self.row.magnitudes_only or not weight.dim() else (weight.clamp(min=0), weight.clamp(max=0))

    @property
    def connections(self) -> Tensor | None:
        """1 for every weight that is not 0."""
        weight = self.weight
        return None if weight is None else (weight != 0).to(weight.dtype)

    @property
    def bias(self) -> Tensor | None:
        value = None if self.row.bias is None else getattr(self.call, self.row.bias)
        if not isinstance(value, Tensor):
            return None
        lifted, factor = self._lift(value), self.row.bias_factor
        return lifted if factor is None else lifted * factor(self.call)

    def _lift(self, bias: Tensor) -> Tensor:
        at = self.row.bias_at
        return bias.reshape(self.row.lifted(bias.shape)) if at is None else at(bias, self.call)

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value

    def apply(self, x: Tensor, weight: Tensor | None) -> Tensor:
        """The map without its bias."""
        return self.row.apply(x, weight, self.call)

    def transpose(self, s: Tensor, weight: Tensor | None) -> Tensor:
        """The map's transpose: from the output's shape to the shape of x."""
        if self.row.transpose is not None:
            return self.row.transpose(s, weight, self.call)
        return vjp(lambda x: self.row.apply(x, weight, self.call), self.call.shape(self.row.x), s)

    def bias_shares(self, s: Tensor, bias: Tensor | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """What s * bias means for the books: relevance when the bias is active, else an account."""
        if bias is None or self.row.bias is None:
            return {}, {}
        part = sum_to(s, bias.shape) * bias
        if self.row.bias in self.receivers:
            return {self.row.bias: self.lower_bias(part)}, {}
        return {}, {self.row.bias: part.sum()}

    def lower_bias(self, part: Tensor) -> Tensor:
        """What lies where the bias was lifted to, or is broadcast to, added up in the bias's own shape."""
        assert self.row.bias is not None
        shape = self.call.shape(self.row.bias)
        if self.row.bias_at is not None:
            return vjp(self._lift, shape, part)
        return sum_to(part, self.row.lifted(shape)).reshape(shape)


@dataclass(frozen=True, kw_only=True)
class Linear(Row):
    """y = A(x; weight) + bias. Without `weight` the map has fixed weights that are not negative.

    Where its arguments imply weights of both signs (bicubic, diff, fft), `weights(call)` computes them, so that
    a mode takes their magnitude as it takes a parameter's.

    `bias_dim` is the output dimension, from the right, on which a one-dimensional bias lies; a bias that is chosen by
    an index `bias_at(bias, call)` lays out in the output's shape, every element a copy of one of the bias's.
    `factor(call)` and `bias_factor(call)` are what the op multiplies the map and the bias by (alpha=, beta=): they
    come with the view's weight and bias, so `apply` leaves them out and magnitudes stay magnitudes.
    `magnitudes_only`: what `weights` computes are factors of the weights, so only `abs` of it means something, and no
    half; so it is with a number in place of weights.
    """

    kind: ClassVar[str] = "linear"
    x: str
    weight: str | None = None
    weights: Callable[[Call], Tensor] | None = None
    bias: str | None = None
    apply: Callable[[Any, Any, Call], Tensor]
    transpose: Callable[[Tensor, Any, Call], Tensor] | None = None
    transpose_weight: Callable[[Tensor, Any, Call], Tensor] | None = None
    bias_dim: int = -1
    bias_at: Callable[[Tensor, Call], Tensor] | None = None
    factor: Callable[[Call], Any] | None = None
    bias_factor: Callable[[Call], Any] | None = None
    magnitudes_only: bool = False

    @property
    def channels(self) -> int | None:
        return self.bias_dim if self.channel_dim is None and self.weight is not None else self.channel_dim

    @property
    def carriers(self) -> tuple[str, ...]:
        return tuple(name for name in (self.x, self.weight, self.bias) if name)

    def lifted(self, shape: torch.Size) -> torch.Size:
        """The shape in which a bias of this shape broadcasts against the output."""
        return shape if len(shape) != 1 else torch.Size((*shape, *[1] * (-self.bias_dim - 1)))

    def narrow(self, site: Site) -> Row:
        if self.weight is None or self.weight not in site.receivers:
            return self
        both = self.become(
            Bilinear,
            a=self.x,
            b=self.weight,
            bias=self.bias,
            apply=self.apply,
            transpose_a=self.transpose,
            transpose_b=self.transpose_weight,
            bias_dim=self.bias_dim,
            bias_at=self.bias_at,
            factor=self.factor,
            bias_factor=self.bias_factor,
        )
        return both.narrow(site)

    def view(self, call: Call) -> LinearView:
        return LinearView(self, call)


@dataclass(frozen=True, kw_only=True)
class Bilinear(Row):
    """y = A(a, b) + bias, linear in a and in b. With one receiver it is linear with the other as weight."""

    kind: ClassVar[str] = "bilinear"
    a: str
    b: str
    bias: str | None = None
    apply: Callable[[Any, Any, Call], Tensor]
    transpose_a: Callable[[Tensor, Any, Call], Tensor] | None = None
    transpose_b: Callable[[Tensor, Any, Call], Tensor] | None = None
    bias_dim: int = -1
    bias_at: Callable[[Tensor, Call], Tensor] | None = None
    factor: Callable[[Call], Any] | None = None
    bias_factor: Callable[[Call], Any] | None = None

    @property
    def channels(self) -> int | None:
        return self.bias_dim if self.channel_dim is None and self.bias is not None else self.channel_dim

    @property
    def carriers(self) -> tuple[str, ...]:
        return tuple(name for name in (self.a, self.b, self.bias) if name)

    def linear_in_a(self) -> Linear:
        """The map in its first operand, the second as weight."""
        return self.become(
            Linear, x=self.a, weight=self.b, apply=self.apply, transpose=self.transpose_a, **self._rest()
        )

    def linear_in_b(self) -> Linear:
        """The map in its second operand, the first as weight."""
        return self.become(
            Linear, x=self.b, weight=self.a, apply=_swapped(self.apply), transpose=self.transpose_b, **self._rest()
        )

    def _rest(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("bias", "bias_dim", "bias_at", "factor", "bias_factor")}

    def narrow(self, site: Site) -> Row:
        if self.a in site.receivers and self.b in site.receivers:
            return self
        return self.linear_in_b() if self.b in site.receivers else self.linear_in_a()

    def view(self, call: Call) -> tuple[LinearView, LinearView]:
        return LinearView(self.linear_in_a(), call), LinearView(self.linear_in_b(), call)


def _swapped(apply: Callable[[Any, Any, Call], Tensor]) -> Callable[[Any, Any, Call], Tensor]:
    return lambda b, a, call: apply(a, b, call)
