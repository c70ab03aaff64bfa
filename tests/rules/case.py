"""A `Case`: one op with arguments and the operands that receive."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from dlb_core.kernel.ops import op_name

from .harness import MODES, Bound, ModeName, bind, bind_op, call_op
from .tensors import Tensors

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One op with its arguments; `program` where it needs other ops around it."""

    op: Any
    arguments: Callable[[Tensors], Arguments]
    active: tuple[str, ...]
    label: str = ""
    program: Callable[..., Any] | None = None

    def bind(self, arguments: Arguments, mode: ModeName = MODES[0], *, passing: bool = False) -> Bound:
        """The case as a program bound to a mode."""
        if self.program is not None:
            return bind(self.program, arguments, self.active, mode, passing=passing)
        return bind_op(self.op, arguments, self.active, mode, passing=passing)

    def run(self, arguments: Arguments) -> Any:
        """The op itself."""
        return self.program(**arguments) if self.program is not None else call_op(self.op, arguments)

    def __str__(self) -> str:
        name = op_name(self.op).replace("aten::", "")
        return f"{name}[{','.join(self.active)}{'; ' + self.label if self.label else ''}]"
