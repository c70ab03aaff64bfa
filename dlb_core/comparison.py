"""Two explanations of the same inputs compared: do they rank features alike, and where do they differ?"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlb_core.table import Table

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation


@dataclass(frozen=True)
class Change:
    """One feature of one sample in two explanations: its share of all |R| of the sample, with its sign."""

    index: tuple[int, ...]  # into the input's relevance, the sample first
    before: float
    after: float

    @property
    def change(self) -> float:
        """after - before."""
        return self.after - self.before


@dataclass(frozen=True)
class InputComparison:
    """One input in two explanations, sample by sample (several seeds: their leading axis first).

    rank_correlation: Spearman's, by signed relevance, 1 for the same order; NaN where all features of a sample are
    equal. overlap: how many of the `top` features that are largest by |R| both have, as a share of `top`. changes: the
    features whose share of the sample's |R| changed most, the largest first.
    """

    rank_correlation: Tensor
    overlap: Tensor
    top: int
    changes: tuple[Change, ...]


@dataclass(frozen=True)
class Comparison:
    """Two explanations of the same inputs; `inputs` by name, `str()` in words."""

    inputs: Mapping[str, InputComparison]
    labels: tuple[str, str]

    def table(self) -> Table:
        """Input, rank correlation and overlap as means over the samples."""
        rows = [
            (name, _mean(i.rank_correlation), _mean(i.overlap), i.top, i.rank_correlation.numel())
            for name, i in self.inputs.items()
        ]
        columns = ("input", "rank correlation", "overlap", "top", "samples")
        return Table(columns, rows, title=f"{self.labels[0]} beside {self.labels[1]} (means over samples)")

    def changes(self) -> Table:
        """Where they differ most: input, index, the shares of |R| in per cent before and after."""
        rows = [
            (name, str(list(c.index)), 100 * c.before, 100 * c.after, 100 * c.change)
            for name, i in self.inputs.items()
            for c in i.changes
        ]
        columns = ("input", "index", f"{self.labels[0]} %", f"{self.labels[1]} %", "change")
        return Table(columns, rows, title="where they differ most (share of the sample's |R|, with its sign)")

    def __str__(self) -> str:
        return f"{self.table()}\n\n{self.changes()}"


def compare(one: Explanation, other: Explanation, *, top: int | None = None, differences: int = 5) -> Comparison:
    """How alike two explanations of the same inputs are, in whatever modes and units, of whatever models.

    top: how many features count as the largest (default: a tenth of them, at least one). differences: how many
    changed features to name per input. Inputs are compared by name; two explanations with one input each may call it
    differently. Raises ValueError for inputs that do not match, by name or shape.
    """
    if differences < 0:
        raise ValueError(f"differences={differences}: must not be negative")
    flags = one.relevance.several, other.relevance.several
    if flags[0] != flags[1]:
        raise ValueError(
            "one explanation has several seeds (targets=[...]) and the other has one: compare like with like"
        )
    found = {name: _compare(name, a, b, 1 + flags[0], top, differences) for name, (a, b) in _pairs(one, other).items()}
    return Comparison(found, _labels(one, other))


def _pairs(one: Explanation, other: Explanation) -> dict[str, tuple[Tensor, Tensor]]:
    mine, theirs = one.inputs, other.inputs
    if len(mine) == len(theirs) == 1 and mine.keys() != theirs.keys():
        theirs = dict(zip(mine, theirs.values(), strict=True))
    if mine.keys() != theirs.keys():
        raise ValueError(
            f"the explained inputs are {list(mine)} and {list(theirs)}: compare explanations of the same inputs"
        )
    for name, a in mine.items():
        if a.shape != theirs[name].shape:
            raise ValueError(
                f"input {name!r} has shape {list(a.shape)} in one explanation and {list(theirs[name].shape)} in the "
                "other: compare explanations of the same inputs"
            )
    return {name: (a, theirs[name]) for name, a in mine.items()}


def _compare(name: str, a: Tensor, b: Tensor, lead: int, top: int | None, differences: int) -> InputComparison:
    shape = a.shape
    lead = min(lead, a.dim())
    a, b = (t.detach().cpu().double().reshape(*shape[:lead], -1) for t in (a, b))
    features = a.shape[-1]
    if features == 0:
        raise ValueError(f"input {name!r} {list(shape)} has no features to compare")
    count = max(1, features // 10) if top is None else top
    if not 1 <= count <= features:
        raise ValueError(f"top={top}: input {name!r} has {features} features, choose from 1 .. {features}")
    return InputComparison(
        rank_correlation=rank_correlation(a, b),
        overlap=_overlap(a, b, count),
        top=count,
        changes=_changes(_shares(a), _shares(b), shape, differences),
    )


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's, along the last dimension, 1 for the same order; NaN where all values of one are equal."""
    return _correlation(_ranks(a), _ranks(b))


def _ranks(x: Tensor) -> Tensor:
    """Ranks along the last dimension, equal values sharing the mean of theirs."""
    ordered, order = x.sort(dim=-1, stable=True)
    first = torch.searchsorted(ordered, ordered, side="left")
    last = torch.searchsorted(ordered, ordered, side="right") - 1
    return torch.empty_like(x).scatter_(-1, order, (first + last).double() / 2)


def _correlation(a: Tensor, b: Tensor) -> Tensor:
    """Pearson's, along the last dimension."""
    a, b = (t - t.mean(-1, keepdim=True) for t in (a, b))
    return (a * b).sum(-1) / ((a * a).sum(-1) * (b * b).sum(-1)).sqrt()


def _overlap(a: Tensor, b: Tensor, count: int) -> Tensor:
    chosen = []
    for x in (a, b):
        order = x.abs().argsort(dim=-1, descending=True, stable=True)
        chosen.append(torch.zeros_like(x, dtype=torch.bool).scatter_(-1, order[..., :count], True))
    return (chosen[0] & chosen[1]).sum(-1) / count


def _shares(x: Tensor) -> Tensor:
    total = x.abs().sum(-1, keepdim=True)
    return x / torch.where(total == 0, 1, total)


def _changes(a: Tensor, b: Tensor, shape: torch.Size, count: int) -> tuple[Change, ...]:
    size = (b - a).abs().flatten()
    order = size.argsort(descending=True, stable=True)[:count]
    before, after = a.flatten(), b.flatten()
    return tuple(
        Change(tuple(int(n) for n in torch.unravel_index(i, shape)), float(before[i]), float(after[i]))
        for i in order
        if size[i] > 0
    )


def _mean(values: Tensor) -> float:
    known = values[~values.isnan()]
    return float(known.mean()) if known.numel() else math.nan


def _labels(one: Explanation, other: Explanation) -> tuple[str, str]:
    """What tells the two apart: their modes, else their targets."""
    if one.mode != other.mode:
        return one.mode, other.mode
    names = (f"{one.mode} of {one.target}", f"{other.mode} of {other.target}")
    return names if names[0] != names[1] else (f"{one.mode} (first)", f"{other.mode} (second)")
