"""Kinds that send relevance back where a value came from: move, lookup."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.kinds.base import Row
from dlb_core.kernel.modes import Formula


def move_back(view: tuple[Move, tuple[str, ...], Call], r: Any, mode: Any) -> Shares:
    """R goes back where the value came from."""
    row, names, call = view
    back = row.back(r, call) if row.back else _vjp_back(row, names, call, r)
    if isinstance(back, Shares):
        return back
    return Shares(dict(zip(names, back if isinstance(back, (tuple, list)) else (back,), strict=True)))


def _vjp_back(row: Move, names: Sequence[str], call: Call, r: Any) -> tuple[Tensor, ...]:
    """The way back of a move without `back`: every output is a copy, so its Jacobian only selects."""
    run = row.forward or call.node.target

    def moved(*tensors: Tensor) -> Any:
        arguments = call_arguments(call, dict(zip(names, tensors, strict=True)))
        return run(**arguments) if row.forward is None else run(*arguments.values())  # type: ignore[operator]

    primals = [getattr(call, name) for name in names]
    return tuple(torch.func.vjp(moved, *primals)[1](r))


def call_arguments(call: Call, replaced: Mapping[str, Any]) -> dict[str, Any]:
    """All arguments of a call by name, some of them replaced (list elements as ``tensors.0``)."""
    arguments = {name: getattr(call, name) for name in call._bound}
    for name, value in replaced.items():
        base, dot, index = name.rpartition(".")
        if name in arguments or not dot:
            arguments[name] = value
        else:
            arguments[base] = [value if i == int(index) else old for i, old in enumerate(arguments[base])]
    return arguments


@dataclass(frozen=True, kw_only=True)
class Move(Row):
    """Every output element is a copy of one input element or of a constant; `back(r, call)` undoes it.

    `back` returns a tensor, a tuple with one per operand, or `Shares` where a constant takes part. Without
    `back` the op's own vector-Jacobian product is used.
    """

    kind: ClassVar[str] = "move"
    cheap: ClassVar[bool] = True
    default_formula: ClassVar[Formula | None] = Formula(move_back, reads=lambda mode: ("kept",))
    x: tuple[str, ...]
    back: Callable[[Any, Call], Any] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    @property
    def kept(self) -> tuple[str, ...]:
        """The operands whose values the way back needs: none when `back` is given."""
        return () if self.back else self.x

    def view(self, call: Call) -> tuple[Move, tuple[str, ...], Call]:
        return self, self.operands(call._bound), call


def _to_ids(view: tuple[str, Call], r: Tensor, mode: Any) -> Shares:
    """R_id = sum of R over the embedding's dimensions."""
    name, call = view
    dims = len(call.shape(name))
    return Shares({name: r.flatten(dims).sum(-1)})


@dataclass(frozen=True, kw_only=True)
class Lookup(Row):
    """Rows of a table by integer ids; the ids receive, summed over the row."""

    kind: ClassVar[str] = "lookup"
    default_formula: ClassVar[Formula | None] = Formula(_to_ids)
    ids: str
    table: str
    channel_dim: int | None = -1

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.ids,)

    def view(self, call: Call) -> tuple[str, Call]:
        return self.ids, call
