"""Records the ATen calls of a function: composite ops whole where they have a row, else what they are made of."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch._ops import OpOverload
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

DRAW = 7  # an op that draws random numbers starts from this seed, here and when it is replayed


@dataclass(frozen=True)
class Recorded:
    """One call: the overload, its arguments by their schema names, what torch returned."""

    op: OpOverload
    arguments: dict[str, Any]
    output: Any


class Recorder(TorchDispatchMode):
    """Every call that reaches the dispatcher below autograd, outermost first.

    A call of an op that has no row is opened where torch itself writes the op with others.
    """

    def __init__(self, has_row: Callable[[OpOverload], bool]) -> None:
        super().__init__()
        self.calls: list[Recorded] = []
        self._has_row = has_row

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if not self._has_row(func):
            with self:
                output = func.decompose(*args, **kwargs)
            if output is not NotImplemented:
                return output
        if torch.Tag.nondeterministic_seeded in func.tags:
            torch.manual_seed(DRAW)
        names = [argument.name for argument in func._schema.arguments]
        arguments = {**dict(zip(names, args, strict=False)), **kwargs}
        if func._schema.is_mutable:  # what was recorded may be about to change
            self.calls = [Recorded(c.op, _copied(c.arguments), _copied(c.output)) for c in self.calls]
            arguments = _copied(arguments)
            output = func(*args, **kwargs)
            self.calls.append(Recorded(_functional(func), arguments, _copied(output)))
        else:
            # inside an opened op torch forgets that a conjugate is one: its bit becomes values
            output = pytree.tree_map_only(Tensor, torch.Tensor.resolve_conj, func(*args, **kwargs))
            self.calls.append(Recorded(func, arguments, output))
        return output


def record(function: Callable[[], Any], has_row: Callable[[OpOverload], bool]) -> list[Recorded]:
    """The calls that `function()` makes."""
    recorder = Recorder(has_row)
    with torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), recorder:
        function()
    return recorder.calls


def _copied(value: Any) -> Any:
    """The same value in tensors of its own, laid out as they were."""
    return pytree.tree_map_only(Tensor, copy.deepcopy, value)


def _functional(op: OpOverload) -> OpOverload:
    """What a functional graph has in place of an op that writes to its first argument (`add_` -> `add`)."""
    space, _, name = op._schema.name.partition("::")
    twin = getattr(getattr(torch.ops, space), name.removesuffix("_"), None)
    return getattr(twin, op._overloadname or "default", op)
