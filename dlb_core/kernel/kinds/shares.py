"""The kind of reductions that are no sum: share. Each element gets what it counts for."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.kinds.base import Row, vjp
from dlb_core.kernel.modes import Formula


def by_weight(view: tuple[Share, Call], r: Tensor, mode: Any) -> Shares:
    """R_i = w_i / sum w * R_y over the group; equal shares where all w are zero."""
    row, call = view
    if row.back is not None:
        return Shares({row.x: row.back(r, call)})
    assert row.weigh is not None and row.gather is not None  # noqa: PT018
    gather = row.gather
    w = row.weigh(getattr(call, row.x), call)

    def spread(part: Tensor) -> Tensor:
        return vjp(lambda v: gather(v, call), w.shape, part)

    total = gather(w, call)
    empty = total < torch.finfo(total.dtype).tiny  # below it R / total overflows
    equal = torch.where(empty, r, 0) / gather(torch.ones_like(w), call)
    back = w * spread(torch.where(empty, 0, r) / torch.where(empty, 1, total)) + spread(equal)
    if not w.numel():  # a reduction of nothing is a number of the op's own
        return Shares({row.x: back}, {f"constant:{call.node.name}": r.sum()})
    return Shares({row.x: back})


@dataclass(frozen=True, kw_only=True)
class Share(Row):
    """A reduction whose elements share by weights of their own: R_i = c_i R_y with sum c = 1 (equal at all-zero).

    `weigh(x, call)`: what each element counts, not negative; `gather(w, call)`: the plain sum over the groups that the
    op reduces, in the op's output shape. `back(r, call)` instead of both, where the groups overlap.
    """

    kind: ClassVar[str] = "share"
    default_formula: ClassVar[Formula | None] = Formula(by_weight, reads=("x",))
    x: str
    weigh: Callable[[Tensor, Call], Tensor] | None = None
    gather: Callable[[Tensor, Call], Tensor] | None = None
    back: Callable[[Tensor, Call], Tensor] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return (self.x,)

    def view(self, call: Call) -> tuple[Share, Call]:
        return self, call
