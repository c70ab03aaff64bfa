"""The kind of fused attention."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from dlb_core.kernel.call import Call
from dlb_core.kernel.kinds.base import Row, Site
from dlb_core.kernel.kinds.linear import Linear
from dlb_core.kernel.kinds.mapped import one_by_one


class AttentionView:
    """Attention at a node whose weights receive as well: the `names` of its operands q, k, v and an additive mask."""

    def __init__(self, row: Attention, call: Call) -> None:
        self.call = call
        self.row = row
        additive = (row.mask,) if row.mask is not None and self.mask is not None else ()
        self.names: tuple[str, ...] = (row.q, row.k, row.v, *additive)

    @property
    def output(self) -> Tensor:
        value: Tensor = self.call.output
        return value

    @property
    def mask(self) -> Tensor | None:
        """The mask that is added to the scores; None where there is none, or one of yes and no."""
        value = getattr(self.call, self.row.mask) if self.row.mask else None
        return value if isinstance(value, Tensor) and value.is_floating_point() else None

    def contributions(self, g: Tensor) -> tuple[Tensor, ...]:
        """For each of `names`, the operand times the op's backward of g; entries that are not finite count as 0."""
        given = getattr(self.call, self.row.mask) if self.row.mask else None
        primals = tuple(getattr(self.call, name) for name in self.names)

        def attend(q: Tensor, k: Tensor, v: Tensor, m: Any = given) -> Tensor:
            return self.row.apply(q, k, v, m, self.call)

        gradients = torch.func.vjp(attend, *primals)[1](g)
        return tuple(torch.where(x.isfinite(), x, 0) * dx for x, dx in zip(primals, gradients, strict=True))


@dataclass(frozen=True, kw_only=True)
class Attention(Row):
    """softmax(q k^T) v; with its weights as a gate, or constant, it is linear in v with weights not below zero.

    `apply(q, k, v, mask, call)` is the op; `scale(call)` what q k^T is multiplied by (None, or no such function: one
    over the root of q's width).
    """

    kind: ClassVar[str] = "attention"
    q: str
    k: str
    v: str
    mask: str | None = None
    apply: Callable[[Any, Any, Any, Any, Call], Tensor]
    scale: Callable[[Call], float | None] | None = None

    @property
    def carriers(self) -> tuple[str, ...]:
        return tuple(name for name in (self.q, self.k, self.v, self.mask) if name)

    def runs(self, target: Callable[..., Any]) -> Callable[..., Any]:
        return one_by_one(super().runs(target))

    def narrow(self, site: Site) -> Row:
        if not site.gates and {self.q, self.k, self.mask} & site.receivers:
            return self
        q, k, mask, attend = self.q, self.k, self.mask, self.apply

        def apply(v: Any, weight: None, call: Call) -> Tensor:
            """The values averaged by the attention weights of this call."""
            return attend(getattr(call, q), getattr(call, k), v, getattr(call, mask) if mask else None, call)

        return self.become(Linear, x=self.v, apply=apply, reads=tuple(name for name in (q, k, mask) if name))

    def view(self, call: Call) -> AttentionView:
        return AttentionView(self, call)
