"""A `Case`: one op or layer with arguments, and who receives."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlb_core.kernel.ops import op_name
from dlb_core.kernel.registry import Registry
from dlb_core.testing.bound import Bound, ModeName, bind, bind_op, call_op
from dlb_core.testing.tensors import Tensors

if TYPE_CHECKING:
    from torch import nn

Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One op (an overload, ``torch.ops.ns.name.default``) or module class with its arguments.

    arguments: from a maker of tensors to the arguments by schema names; of a layer, the tensors that its forward
    takes, by name: ``lambda t: {"x": t(2, 3), "dim": -1}``. active: the operands that receive; elements of a list
    are ``tensors.0``. label: tells cases of one op apart. program: a function of the tensors by name, where the op
    needs others around it. batch: the operands whose dimension 0 is a batch, as is the outputs'. module: of a layer,
    makes it. tolerance: rtol beyond which two results differ (default: by dtype).
    """

    op: Any
    arguments: Callable[[Tensors], Arguments]
    active: tuple[str, ...]
    label: str = ""
    program: Callable[..., Any] | None = None
    batch: tuple[str, ...] = ()
    module: Callable[[], nn.Module] | None = None
    tolerance: float | None = None

    def bind(
        self,
        arguments: Arguments,
        mode: ModeName = "default",
        *,
        passing: bool = False,
        registry: Registry | None = None,
    ) -> Bound:
        """The case as a program bound to a mode."""
        if self.program is not None:
            return bind(self.program, arguments, self.active, mode, passing=passing, registry=registry)
        return bind_op(self.op, arguments, self.active, mode, passing=passing, registry=registry)

    def run(self, arguments: Arguments) -> Any:
        """The op itself."""
        return self.program(**arguments) if self.program is not None else call_op(self.op, arguments)

    def __str__(self) -> str:
        name = self.op.__name__ if isinstance(self.op, type) else op_name(self.op).replace("aten::", "")
        return f"{name}[{','.join(self.active)}{'; ' + self.label if self.label else ''}]"
