"""Reductions that are no sums: each element gets what it counts for."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, compound, share

aten = torch.ops.aten


def _dims(x: Tensor, call: Call) -> list[int]:
    """The dimensions that the call reduces: those it names, else all of them."""
    dim = call.dim if call.takes("dim") else None
    if dim is None or (isinstance(dim, (list, tuple)) and not dim):
        return list(range(x.dim()))
    return list(dim) if isinstance(dim, (list, tuple)) else [dim]


def _sum(w: Tensor, call: Call) -> Tensor:
    """The plain sum over what the op reduces."""
    if not w.dim():
        return w
    return w.sum(_dims(w, call), keepdim=bool(call.takes("keepdim") and call.keepdim))


def _deviation(x: Tensor, call: Call) -> Tensor:
    """(x - mean)^2"""
    return (x - (x.mean(_dims(x, call), keepdim=True) if x.dim() else x)).square()


def _power(x: Tensor, call: Call) -> Tensor:
    """abs(x)^p; for p = inf, 0, -inf its limits: the largest, those that are not zero, the smallest."""
    p = next((getattr(call, name) for name in ("ord", "p") if call.takes(name)), 2)
    size = x.abs()
    if p is None or p == 2:
        return size.square()
    if p == 0:
        return (size != 0).to(x.dtype)
    if 0 < p < math.inf:
        return size.pow(p)
    extreme = (torch.amax if p > 0 else torch.amin)(size, _dims(x, call), keepdim=True) if x.dim() else size
    if math.isinf(p):
        return (size == extreme).to(x.dtype)
    return torch.where(extreme == 0, (size == 0).to(x.dtype), (size / extreme).pow(p))  # zeros rule a negative norm


def _exponential(x: Tensor, call: Call) -> Tensor:
    """exp(x), scaled by the group's largest; a group of nothing but -inf counts equally."""
    largest = x.amax(_dims(x, call), keepdim=True) if x.dim() else x
    return (x - largest).exp().nan_to_num(0.0)


def _one(x: Tensor, call: Call) -> Tensor:
    return torch.ones_like(x)


def _running(w: Tensor, call: Call) -> Tensor:
    return w.cumsum(call.dim)


def _log_running(r: Tensor, call: Call) -> Tensor:
    """Output j is a log-sum-exp of the elements up to j, which share by their softmax.

    The op's own backward works with logarithms of r and loses more than a rounding.
    """
    x: Tensor = call.self
    if not x.dim():
        return r
    along, n = x.movedim(call.dim, -1), x.shape[call.dim]
    later = torch.ones(n, n, dtype=torch.bool, device=x.device).triu(1)  # [output, element]
    shares = along.unsqueeze(-2).masked_fill(later, -math.inf).softmax(-1)
    back: Tensor = (r.movedim(call.dim, -1).unsqueeze(-2) @ shares).squeeze(-2)
    return back.movedim(-1, call.dim)


def _with_mean(statistic: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, Tensor]]:
    """Two reductions of one tensor; the overloads say `unbiased` or `correction`."""

    def written(
        self: Tensor,
        dim: Sequence[int] | None = None,
        unbiased: bool = True,
        correction: float | None = None,
        keepdim: bool = False,
    ) -> tuple[Tensor, Tensor]:
        over = list(range(self.dim())) if dim is None else list(dim)
        less = int(unbiased) if correction is None else correction
        return statistic(self, over, correction=less, keepdim=keepdim), self.mean(over, keepdim)

    return written


REDUCTION = {"reduction"}

ROWS: list[Row] = [
    *(share(f"aten::{op}", x="self", weigh=_deviation, gather=_sum, tags=REDUCTION) for op in ("var", "std")),
    compound("aten::var_mean", written=_with_mean(torch.var)),
    compound("aten::std_mean", written=_with_mean(torch.std)),
    share("aten::norm", x="self", weigh=_power, gather=_sum, tags=REDUCTION),
    share("aten::linalg_vector_norm", x="self", weigh=_power, gather=_sum, tags=REDUCTION),
    share("aten::logsumexp", x="self", weigh=_exponential, gather=_sum),
    share("aten::prod", x="self", weigh=_one, gather=_sum),
    share("aten::cumprod", x="self", weigh=_one, gather=_running),
    share("aten::logcumsumexp", x="self", back=_log_running),
]
