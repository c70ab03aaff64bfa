"""Kinds that scale by statistics: normalise, softmax."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.kinds.base import Row, Site
from dlb_core.kernel.kinds.pointwise import Elementwise
from dlb_core.kernel.modes import Formula


class NormaliseView:
    """A normaliser at a node: the `output` and the `shift` that was added last."""

    def __init__(self, row: Normalise, call: Call) -> None:
        self.call = call
        self.row = row
        self.name = row.x

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value

    @property
    def bias_name(self) -> str:
        """The account's operand: the bias, or the shift itself where there is no bias argument."""
        return self.row.bias or "shift"

    @property
    def shift(self) -> Tensor | None:
        if self.row.shift is not None:
            return self.row.shift(self.call)
        return None if self.row.bias is None else getattr(self.call, self.row.bias)


@dataclass(frozen=True, kw_only=True)
class Normalise(Row):
    """y = x scaled by its statistics and a weight, plus a shift: identity to x, the shift is an addend.

    `scale(call)`: what x is multiplied by, so that a change of y can be told into that of x and that of the statistics.
    """

    kind: ClassVar[str] = "normalise"
    x: str
    weight: str | None = None
    bias: str | None = None
    shift: Callable[[Call], Tensor | None] | None = None
    scale: Callable[[Call], Tensor] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.x,)

    def narrow(self, site: Site) -> Row:
        if site.mode.differs and self.scale is not None:
            return self
        no_bias = self.bias is None or site.bound.get(self.bias) is None
        return self.become(Elementwise, x=(self.x,)) if no_bias and self.shift is None else self

    def view(self, call: Call) -> NormaliseView:
        return NormaliseView(self, call)


class SoftmaxView:
    """A softmax at a node: `x`, `output` and the dimension `dim`."""

    def __init__(self, row: Softmax, call: Call) -> None:
        self.call = call
        self.name = row.x
        self.dim: int = call.dim

    @property
    def x(self) -> Tensor:
        value: Tensor = getattr(self.call, self.name)
        return value

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value


def _softmax_passes(view: SoftmaxView, r: Tensor, mode: Any) -> Shares:
    """R_x = R_y: a softmax that is no gate only ranks its input."""
    return Shares({view.name: r})


@dataclass(frozen=True, kw_only=True)
class Softmax(Row):
    """A softmax; as a gate it is never asked, elsewhere the identity unless the mode has a formula."""

    kind: ClassVar[str] = "softmax"
    default_formula: ClassVar[Formula | None] = Formula(_softmax_passes)
    x: str

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.x,)

    def view(self, call: Call) -> SoftmaxView:
        return SoftmaxView(self, call)
