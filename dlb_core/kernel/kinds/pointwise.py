"""Kinds without a map: elementwise, product, sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.kinds.base import Row, Site, sum_to
from dlb_core.kernel.kinds.complex_values import complex_product, is_complex
from dlb_core.kernel.modes import Formula
from dlb_core.kernel.ops import is_active_dtype


def _pass_on(row_view: tuple[str, Call], r: Tensor, mode: Any) -> Shares:
    """R_x = R_y, summed back where x was broadcast."""
    name, call = row_view
    return Shares({name: sum_to(r, call.shape(name))})


@dataclass(frozen=True, kw_only=True)
class Elementwise(Row):
    """One-to-one: relevance passes. With several names the first operand that may receive takes all."""

    kind: ClassVar[str] = "elementwise"
    cheap: ClassVar[bool] = True
    default_formula: ClassVar[Formula | None] = Formula(_pass_on)
    x: tuple[str, ...]

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def view(self, call: Call) -> tuple[str, Call]:
        chosen = next((name for name in self.x if name in call.receivers), self.x[0])
        return chosen, call


def _halves(call: tuple[tuple[str, ...], Call], r: Tensor, mode: Any) -> Shares:
    """R_a = R_b = R_y / 2."""
    names, at = call
    half = r / len(names)
    return Shares({name: sum_to(half, at.shape(name)) for name in names})


@dataclass(frozen=True, kw_only=True)
class Product(Row):
    """A pointwise product: identity by a constant, all to the signal beside a gate, else half to each."""

    kind: ClassVar[str] = "product"
    cheap: ClassVar[bool] = True
    default_formula: ClassVar[Formula | None] = Formula(_halves)
    a: str
    b: str

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.a, self.b)

    def narrow(self, site: Site) -> Row:
        if all(is_complex(site.bound[name]) for name in (self.a, self.b)):
            return complex_product(self, self.a, self.b, site.receivers)
        if len(site.receivers) == 2:
            return self
        return self.become(Elementwise, x=tuple(sorted(site.receivers)) or (self.a,))

    def view(self, call: Call) -> tuple[tuple[str, ...], Call]:
        return (self.a, self.b), call


class SumView:
    """A sum at a node: `terms` by operand name, as they were added."""

    def __init__(self, row: Sum, call: Call) -> None:
        self.call = call
        self.receivers = call.receivers
        self.row = row

    @property
    def terms(self) -> dict[str, Any]:
        """Operand name -> the addend (with its sign or factor), a tensor or a number."""
        factors = self.row.factors(self.call) if self.row.factors else {}
        values = {name: self._addend(getattr(self.call, name)) for name in self.row.x}
        return {n: v * factors[n] if _changes(factors.get(n)) else v for n, v in values.items()}

    def _addend(self, value: Any) -> Any:
        """A mask or a count that is added is a number like any other; minus infinity one that can be divided by."""
        if not isinstance(value, Tensor) or value.is_complex():
            return value
        most = torch.finfo(self.call.dtype).max / 16  # formulas add such numbers up and weigh them
        return value.to(self.call.dtype).clamp(-most, most)

    def back(self, name: str, r: Tensor) -> Tensor:
        """Relevance of the output's shape summed back to the operand's shape."""
        return sum_to(r, self.call.shape(name))


def _changes(factor: Any) -> bool:
    return factor is not None and (isinstance(factor, Tensor) or factor != 1)


@dataclass(frozen=True, kw_only=True)
class Sum(Row):
    """y = sum_k f_k x_k, broadcasting; `factors(call)` gives the f_k that are not 1 (sub, alpha=)."""

    kind: ClassVar[str] = "sum"
    cheap: ClassVar[bool] = True
    x: tuple[str, ...]
    factors: Callable[[Call], Mapping[str, Any]] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def narrow(self, site: Site) -> Row:
        others = [name for name in self.x if name not in site.receivers]
        ids = not is_active_dtype(site.node)  # names, not quantities: what shifts them takes no part
        if len(site.receivers) == 1 and (ids or all(name in site.silent or site.is_scalar(name) for name in others)):
            return self.become(Elementwise, x=tuple(site.receivers))
        return self

    def view(self, call: Call) -> SumView:
        return SumView(self, call)
