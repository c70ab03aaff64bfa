"""What is added up for one layer of experts: a row for each group, a column for each expert."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from dlb_core.experts import ExpertLayer
    from dlb_ops_moe.groups import Labelled


@dataclass(frozen=True)
class ExpertTotals:
    """Sums over the tokens of each group.

    relevance: of R, magnitude: of |R|, probability: of the router's, all [groups, experts] float64. load: how many
    tokens chose the expert, [groups, experts] int64. tokens, samples: how many there were, [groups] int64; a sample
    counts for every group of which it has a token.
    """

    relevance: Tensor
    magnitude: Tensor
    probability: Tensor
    load: Tensor
    tokens: Tensor
    samples: Tensor

    @property
    def experts(self) -> int:
        """How many experts the layer has."""
        return self.relevance.shape[1]

    def tensors(self) -> dict[str, Tensor]:
        """By name."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor], prefix: str, groups: int) -> ExpertTotals:
        """From tensors by name; KeyError for one that is missing, ValueError for one of another shape or dtype."""
        found = {field.name: tensors[prefix + field.name] for field in fields(cls)}
        experts = found["relevance"].shape[-1]
        for name, tensor in found.items():
            counts = name in ("load", "tokens", "samples")
            shape = (groups,) if name in ("tokens", "samples") else (groups, experts)
            if tuple(tensor.shape) != shape or tensor.dtype != (torch.int64 if counts else torch.float64):
                raise ValueError(f"{prefix}{name} is {tensor.dtype} {list(tensor.shape)}")
        return cls(**found)


def totals_of(name: str, layer: ExpertLayer, told: Labelled) -> ExpertTotals:
    """Sums of one layer's `ExpertLayer` over the groups of its samples or tokens."""
    by_token = layer.by_token
    if by_token.dim() != 3:
        raise ValueError(
            f"layer {name!r} has relevance of {by_token.shape[0]} targets at once (targets=[...]): a profile adds up "
            "one target of each sample, so explain them one after the other"
        )
    codes = told.per_token(name, *by_token.shape[:2])
    count, experts = len(told.labels), by_token.shape[2]
    kept = codes >= 0
    index = codes[kept]

    def total(values: Tensor) -> Tensor:
        return torch.zeros(count, experts, dtype=torch.float64).index_add_(0, index, values[kept])

    r = by_token.detach().cpu().double()
    present = torch.zeros(codes.shape[0], count, dtype=torch.int64)
    present[kept.nonzero()[:, 0], index] = 1
    return ExpertTotals(
        relevance=total(r),
        magnitude=total(r.abs()),
        load=total(layer.selected.cpu().double()).long(),
        tokens=index.bincount(minlength=count),
        samples=present.sum(0),
        probability=total(layer.probability.detach().cpu().double()),
    )


def aligned(totals: ExpertTotals, rows: Sequence[int], groups: int) -> ExpertTotals:
    """The same sums with the group of each row at `rows`, among `groups`; the other groups have none."""
    index = torch.tensor(rows, dtype=torch.int64)

    def spread(tensor: Tensor) -> Tensor:
        return tensor.new_zeros(groups, *tensor.shape[1:]).index_copy_(0, index, tensor)

    return ExpertTotals(**{name: spread(tensor) for name, tensor in totals.tensors().items()})


def added(name: str, one: ExpertTotals, other: ExpertTotals) -> ExpertTotals:
    """Sums of both. Raises ValueError for layers of different kinds, naming the layer."""
    if one.experts != other.experts:
        raise ValueError(f"layer {name!r} has {one.experts} experts in one and {other.experts} in the other")
    theirs = other.tensors()
    return ExpertTotals(**{kind: tensor + theirs[kind] for kind, tensor in one.tensors().items()})


def shared(amount: Tensor, size: Tensor) -> Tensor:
    """Each row as shares of the sum of `size` over the experts; zeros where that is zero."""
    whole = size.sum(-1, keepdim=True)
    return amount / torch.where(whole == 0, 1, whole)
