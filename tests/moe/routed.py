"""Draws rows that are routed to experts, and the same map written with a copy of the weights for every row."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor


def dense(x: Tensor, index: Tensor, weight: Tensor, bias: Tensor | None = None, transposed: bool = False) -> Tensor:
    """What `expert_linear` has to give."""
    each = weight[index.long()]
    y = torch.einsum("...io,...i->...o" if transposed else "...oi,...i->...o", each, x)
    return y if bias is None else y + bias[index.long()]


@dataclass
class Routed:
    """The arguments of one call."""

    x: Tensor
    index: Tensor
    weight: Tensor
    bias: Tensor | None
    transposed: bool

    @property
    def arguments(self) -> dict[str, Any]:
        return dict(vars(self))

    def to(self, dtype: torch.dtype) -> Routed:
        moved = {
            name: v.to(dtype) if isinstance(v, Tensor) and v.is_floating_point() else v
            for name, v in vars(self).items()
        }
        return Routed(**moved)


@st.composite
def routed(draw: Any, *, rows: int = 4, wide: int = 3) -> Routed:
    """Any number of rows and experts: none, one, all experts for a token, one expert many times, experts with no row.

    x may be expanded over its experts, weights may lie in memory the other way round, ids may be 32-bit.
    """
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    experts, features, units = draw(st.integers(1, 5)), draw(st.integers(1, wide)), draw(st.integers(1, wide))
    tokens = draw(st.lists(st.integers(0, rows), max_size=1))
    k = draw(st.integers(1, experts))
    lead = (*tokens, k)
    way = draw(st.sampled_from(["any", "one", "different"]))
    if way == "any":
        index = torch.randint(experts, lead, generator=generator)
    elif way == "one":
        index = torch.full(lead, draw(st.integers(0, experts - 1)))
    else:
        index = torch.rand(*tokens, experts, generator=generator).argsort(-1)[..., :k]

    def normal(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    x = normal(*lead, features)
    if draw(st.booleans()):
        x = normal(*tokens, 1, features).expand(*lead, features)
    transposed = draw(st.booleans())
    shape = (features, units) if transposed else (units, features)
    weight = normal(experts, *shape)
    if draw(st.booleans()):
        weight = weight.mT.contiguous().mT
    bias = normal(experts, units) if draw(st.booleans()) else None
    ids = draw(st.sampled_from([torch.int64, torch.int32]))
    return Routed(x, index.to(ids), weight, bias, transposed)
