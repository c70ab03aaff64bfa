"""Complex values are two outputs: the relevance of a complex tensor has that of its real and its imaginary part.

An op with real weights goes part by part (`ByParts`); one that mixes the parts is a real map between pairs (`Pairs`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, fx

from dlb_core.errors import RuleError
from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.kinds.base import Row, argument, sum_to
from dlb_core.kernel.kinds.linear import Bilinear, Linear
from dlb_core.kernel.modes import Formula
from dlb_core.kernel.ops import bound_arguments


def is_complex(value: Any) -> bool:
    """Is this argument a node with complex values?"""
    return isinstance(value, fx.Node) and isinstance(v := value.meta.get("val"), Tensor) and v.is_complex()


class PairCall(Call):
    """A call whose complex tensors read as real ones, with a last dimension for the two parts."""

    __slots__ = ("_complex",)
    _complex: frozenset[str]

    @classmethod
    def of(cls, call: Call) -> PairCall:
        """The same call; which of its tensors are complex is read off the graph once, here."""
        rest = (call._values, call._shapes, call._dtype, call.device)
        before = None if call.before is None else cls.of(call.before)
        same = cls(call.node, call._bound, call._slot, call.receivers, *rest, before)
        same._complex = _complex_names(call.node)
        return same

    def is_complex(self, name: str) -> bool:
        """Is the argument (or ``output``) complex?"""
        return name in self._complex

    def shape(self, name: str) -> Any:
        shape = super().shape(name)
        return torch.Size((*shape, 2)) if self.is_complex(name) else shape

    def _cast(self, value: Any) -> Any:
        return _as_pairs(super()._cast(value))


class PartCall(PairCall):
    """A call whose complex tensors read as one of their parts; a real one has no imaginary part."""

    __slots__ = ()
    imaginary: ClassVar[bool] = False

    def shape(self, name: str) -> Any:
        return Call.shape(self, name)

    def _cast(self, value: Any) -> Any:
        cast = Call._cast(self, value)
        if isinstance(cast, Tensor) and (cast.is_complex() or cast.is_floating_point()):
            if cast.is_complex():
                return cast.imag if self.imaginary else cast.real
            return torch.zeros_like(cast) if self.imaginary else cast
        if isinstance(cast, (tuple, list)):
            return type(cast)(self._cast(item) for item in cast)
        return cast


class ImaginaryCall(PartCall):
    """The imaginary parts."""

    __slots__ = ()
    imaginary: ClassVar[bool] = True


def _complex_names(node: fx.Node) -> frozenset[str]:
    """The arguments with complex values, elements of a list as ``tensors.0``, and ``output``."""
    values = {"output": node, **bound_arguments(node)}
    for name, value in list(values.items()):
        if isinstance(value, (list, tuple)):
            values |= {f"{name}.{i}": item for i, item in enumerate(value)}
    return frozenset(name for name, value in values.items() if is_complex(value))


def _as_pairs(value: Any) -> Any:
    if isinstance(value, Tensor) and value.is_complex():
        return torch.view_as_real(value.resolve_conj())
    return value


@dataclass(frozen=True, kw_only=True)
class _OfParts(Row):
    """A row on complex values that asks another one about their parts."""

    kind: ClassVar[str] = "complex"
    inner: Row

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.inner.carriers

    def role(self, name: str) -> tuple[str, ...]:
        return self.inner.role(name)


@dataclass(frozen=True, kw_only=True)
class Pairs(_OfParts):
    """A linear map that mixes real and imaginary parts: `inner` is that map between real pairs."""

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        formula = self.inner.formula(formulas)
        return None if formula is None else Formula(_in_pairs(formula), formula.reads)

    def view(self, call: Call) -> tuple[Any, PairCall]:
        pairs = PairCall.of(call)
        return self.inner.view(pairs), pairs


def _in_pairs(formula: Formula) -> Callable[[tuple[Any, PairCall], Tensor, Any], Shares]:
    def in_pairs(view: tuple[Any, PairCall], r: Tensor, mode: Any) -> Shares:
        """The formula of the map between pairs."""
        inner, call = view
        shares = formula.run(inner, _as_pairs(r), mode)
        whole = {
            name: torch.view_as_complex(share.contiguous()) if call.is_complex(name) else share
            for name, share in shares.relevance.items()
        }
        return Shares(whole, shares.accounts)

    return in_pairs


@dataclass(frozen=True, kw_only=True)
class ByParts(_OfParts):
    """An op with real weights on complex values: `inner` for the real parts and for the imaginary ones."""

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        formula = self.inner.formula(formulas)
        return None if formula is None else Formula(_part_by_part(formula), formula.reads)

    def view(self, call: Call) -> tuple[Any, Any, PairCall]:
        real, imaginary = PartCall.of(call), ImaginaryCall.of(call)
        return self.inner.view(real), self.inner.view(imaginary), real


def _part_by_part(formula: Formula) -> Callable[[tuple[Any, Any, PairCall], Tensor, Any], Shares]:
    def part_by_part(view: tuple[Any, Any, PairCall], r: Tensor, mode: Any) -> Shares:
        """The formula once for the real parts and once for the imaginary ones."""
        first, second, call = view
        real = formula.run(first, r.real, mode)
        imaginary = formula.run(second, r.imag, mode)
        whole = {
            name: torch.complex(share, imaginary.relevance[name])
            if call.is_complex(name)
            else share + imaginary.relevance[name]
            for name, share in real.relevance.items()
        }
        accounts = {name: amount + imaginary.accounts[name] for name, amount in real.accounts.items()}
        return Shares(whole, accounts)

    return part_by_part


def for_complex(row: Row, node: fx.Node) -> Row:
    """The row on complex values: linear maps and sums with real weights go part by part."""
    if row.kind not in ("linear", "bilinear", "sum") or not is_complex(node):
        return row
    bound = bound_arguments(node)
    weights = (getattr(row, "weight", None), *((row.a, row.b) if isinstance(row, Bilinear) else ()))
    if sum(is_complex(argument(bound, name)) for name in weights if name) > isinstance(row, Bilinear):
        raise RuleError(f"node {node.name!r} multiplies complex matrices, for which there is no rule: write the parts")
    return row.become(ByParts, inner=row)


def complex_product(row: Row, a: str, b: str, receivers: frozenset[str]) -> Row:
    """A pointwise product of two complex operands, as a matrix of two by two for each element."""

    def matrix(name: str) -> Callable[[Call], Tensor]:
        def weights(call: Call) -> Tensor:
            real, imaginary = getattr(call, name).unbind(-1)
            return torch.stack([torch.stack([real, -imaginary], -1), torch.stack([imaginary, real], -1)], -2)

        return weights

    def back(x: str) -> Callable[[Tensor, Tensor, Call], Tensor]:
        return lambda s, w, call: sum_to((w * s.unsqueeze(-1)).sum(-2), call.shape(x))

    def one(x: str, other: str) -> Linear:
        rest: dict[str, Any] = {"apply": lambda x, w, call: (w * x.unsqueeze(-2)).sum(-1), "reads": (other,)}
        return row.become(Linear, x=x, weights=matrix(other), transpose=back(x), **rest)

    if len(receivers) == 1:
        (x,) = receivers
        inner = one(x, b if x == a else a)
        return row.become(Pairs, inner=inner, reads=inner.reads)
    sides = one(a, b), one(b, a)
    return row.become(Pairs, inner=row.become(_Halves, a=a, b=b, apply=sides[0].apply, sides=sides))


@dataclass(frozen=True, kw_only=True)
class _Halves(Bilinear):
    """A bilinear map whose two sides are given."""

    sides: tuple[Linear, Linear]

    def linear_in_a(self) -> Linear:
        return self.sides[0]

    def linear_in_b(self) -> Linear:
        return self.sides[1]
