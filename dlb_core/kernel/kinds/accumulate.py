"""Kinds of ops with several operands in one sum: accumulate; and choice, for ops whose arguments say what they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.kinds.base import Row, vjp
from dlb_core.kernel.modes import Formula

Parts = Mapping[str, Tensor]


class AccumulateView:
    """An accumulation as one linear map: `x` is the flat vector of all that receives, `bias` what a constant adds.

    It has the roles of a `LinearView` whose map has fixed weights that are not negative.
    """

    name = "x"
    weight = None
    halves = (None, None)
    connections = None

    def __init__(self, row: Accumulate, call: Call) -> None:
        self.call = call
        self.receivers = call.receivers
        self.row = row
        self.mine = tuple(name for name in row.x if name in call.receivers)
        self.constant = next((name for name in row.x if name not in call.receivers), None)

    @property
    def x(self) -> Tensor:
        return torch.cat([self._addend(name).reshape(-1) for name in self.mine])

    @property
    def bias(self) -> Tensor | None:
        return None if self.constant is None else self._placed({self.constant: self._addend(self.constant)})

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value

    def apply(self, x: Tensor, weight: None) -> Tensor:
        """What the receivers' elements, in one flat vector, add up to."""
        return self._placed(self.parts(x))

    def transpose(self, s: Tensor, weight: None) -> Tensor:
        """What each of those elements collects from the outputs it flows into."""
        size = sum(self._size(name).numel() for name in self.mine)
        return vjp(lambda x: self.apply(x, None), (size,), s)

    def bias_shares(self, s: Tensor, bias: Tensor | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The constant's units, under its own name."""
        return {}, {} if bias is None or self.constant is None else {self.constant: (s * bias).sum()}

    def parts(self, flat: Tensor) -> dict[str, Tensor]:
        """The flat vector cut into tensors by operand."""
        sizes = [self._size(name) for name in self.mine]
        cut = flat.split([size.numel() for size in sizes], -1)
        return {name: part.reshape(size) for name, part, size in zip(self.mine, cut, sizes, strict=True)}

    def alone(self, like: Tensor) -> Tensor:
        """1 where nothing that receives flows in, so that the value is the constant's own."""
        ones = {name: torch.ones(self._size(name), dtype=like.dtype, device=like.device) for name in self.mine}
        return (self._placed(ones) == 0).to(like.dtype)

    def _placed(self, parts: Parts) -> Tensor:
        """What these operands add up to, the others being zero."""
        like = next(iter(parts.values()))
        zeros = {name: like.new_zeros(self._size(name)) for name in self.row.x if name not in parts}
        return self.row.apply({**zeros, **parts}, self.call)

    def _addend(self, name: str) -> Tensor:
        value: Tensor = getattr(self.call, name)
        factor = self.row.factors(self.call).get(name, 1) if self.row.factors else 1
        return value.to(self.call.dtype) * factor

    def _size(self, name: str) -> torch.Size:
        size: torch.Size = self.call.shape(name)
        return size


@dataclass(frozen=True, kw_only=True)
class Accumulate(Row):
    """Each element of the two operands flows, times `factors(call)` and a weight that is not negative, into outputs.

    `apply(parts, call)` gets a tensor for each operand by name and puts together what they add up to. Relevance by
    the mode's linear formula over all that flows into an output; where only a constant does, it is the constant's.
    """

    kind: ClassVar[str] = "linear"
    x: tuple[str, ...]
    apply: Callable[[Parts, Call], Tensor]
    factors: Callable[[Call], Mapping[str, Any]] | None = None
    bias: ClassVar[None] = None  # a constant operand is no bias parameter: it is booked under its own name

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def role(self, name: str) -> tuple[str, ...]:
        return self.x if name in ("x", "bias") else ()

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        linear = formulas.get(self.kind)
        return None if linear is None else Formula(_over_parts(linear), linear.reads)

    def view(self, call: Call) -> AccumulateView:
        return AccumulateView(self, call)


def _over_parts(linear: Formula) -> Callable[[AccumulateView, Tensor, Any], Shares]:
    def accumulate(view: AccumulateView, r: Tensor, mode: Any) -> Shares:
        """The linear formula over all that flows in; a constant that stands alone keeps what is its own."""
        kept = None
        if view.constant is not None:
            kept = r * view.alone(r)
            r = r - kept
        shares = linear.run(view, r, mode)
        accounts = dict(shares.accounts)
        if view.constant is not None and kept is not None:
            accounts[view.constant] = accounts.get(view.constant, 0) + kept.sum()
        return Shares(view.parts(shares.relevance[view.name]), accounts)

    return accumulate


@dataclass(frozen=True, kw_only=True)
class Choice(Row):
    """An op whose arguments say what it is: `choose(arguments)` gives its row (index_put: a sum, or a move)."""

    kind: ClassVar[str] = "choice"
    x: tuple[str, ...]
    choose: Callable[[Mapping[str, Any]], Row]

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def at(self, bound: Mapping[str, Any]) -> Row:
        chosen = self.choose(bound)
        return dataclasses.replace(chosen, op=self.op, pack=self.pack, source=self.source)
