"""Classes against classes: a signed target, and the seed of what speaks against a target."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlb_core.targets.places import class_axis, in_range, places

if TYPE_CHECKING:
    from dlb_core.targets.request import Context, Request
    from dlb_core.targets.seed import Seed

REST = "rest"
REGRESSIONS = ("regression", "bbox-regression")


@dataclass(frozen=True)
class Contrast:
    """A target: one class, or several that share equally, against others; a single seed with both signs.

    classes: a class or a collection of them, which carry +1 together. against: "rest" (every other class), a class or
    a collection; they carry -1 together, spread by a softmax of their scores. at: where, if not everywhere: a position
    or span of [B, T, C] (default: the last), a mask of [B, C, H, W] (default: every pixel).

    `Contrast(3, against=5)` with ``seed="logit"`` is the difference of the two logits. Raises ValueError for a class
    that is on both sides.
    """

    classes: int | Collection[int]
    against: int | Collection[int] | str = REST
    at: Any = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "classes", as_classes("classes", self.classes))
        if self.against != REST:
            object.__setattr__(self, "against", as_classes("against", self.against))
            both = sorted(set(self.chosen) & set(self.others or ()))
            if both:
                raise ValueError(f"Contrast: class {both[0]} is on both sides")

    @property
    def chosen(self) -> tuple[int, ...]:
        """The classes that are explained."""
        assert isinstance(self.classes, tuple)
        return self.classes

    @property
    def others(self) -> tuple[int, ...] | None:
        """The classes against them; None: the rest."""
        return self.against if isinstance(self.against, tuple) else None

    def weights(self, output: Tensor, sample: int, context: Context) -> Tensor:
        """The target as weights of one sample's output: the chosen share 1, the others -1."""
        axis = class_axis(output.dim() + 1)
        if axis is None:
            raise ValueError(f"{self!r}: an output of shape {list(output.shape)} after the batch has no classes")
        axis -= 1
        chosen = _members(output, self.chosen, axis)
        others = ~chosen if self.others is None else _members(output, self.others, axis)
        if bool((chosen & others).any()):
            raise ValueError(f"{self!r}: a class is on both sides of an output with {output.shape[axis]} classes")
        where = self._where(output, axis, sample, context)
        positive = (chosen & where).to(output.dtype)
        positive = positive / positive.sum()
        units = positive.sum(axis, keepdim=True)
        return positive - spread(_logits(output, probability=context.probability), units, others, axis)

    def _where(self, output: Tensor, axis: int, sample: int, context: Context) -> Tensor:
        """The positions or pixels it is about, broadcast over the classes."""
        if output.dim() == 1 and self.at is not None:
            raise ValueError(f"{self!r}: at= is for outputs with positions or pixels, not for {['B', *output.shape]}")
        where = output.new_zeros([1 if i == axis else size for i, size in enumerate(output.shape)], dtype=torch.bool)
        if output.dim() == 2:
            where[places(0 if self.at is None else (self.at, 0), output, sample, context)] = True
        elif self.at is not None:
            where[places((0, self.at), output, sample, context)] = True
        else:
            where[:] = True
        return where


def as_classes(name: str, classes: Any) -> tuple[int, ...]:
    """One class or a collection of them as a tuple; ValueError for anything else."""
    found = classes if isinstance(classes, Collection) and not isinstance(classes, str) else (classes,)
    try:
        settled = tuple(operator.index(c) for c in found)
    except TypeError:
        settled = ()
    if not settled or any(isinstance(c, bool) for c in found):
        raise ValueError(f"{name}={classes!r}: give a class or a collection of classes")
    return settled


def spread(scores: Tensor, units: Tensor, among: Tensor, axis: int) -> Tensor:
    """Units along `axis` over the places in `among`, by a softmax of their scores; nothing where there is none."""
    shares = scores.masked_fill(~among, -torch.inf).softmax(axis)
    return torch.where(among, shares, 0) * units


def against_seed(output: Tensor, seed: Seed, request: Request, against: Any = REST) -> Tensor:
    """What starts against the target, >= 0, in the seed's shape and dtype: R- beside R+ = the seed's positive part.

    Negative entries of a seed (a `Contrast`, weights, a regression) are against by themselves, and so all there is in
    their sample. Otherwise, at every position (pixel, query), the seed's units go by `against`: "rest" spreads them
    over the other classes by a softmax among them (nothing where there is no other: one logit, a regression), a class
    or a collection of classes takes them instead, None gives nothing. Raises ValueError for a class out of range, one
    that is the target itself, or a multiplier below 0.
    """
    if request.multiplier * request.scaler < 0:
        raise ValueError("two maps that are not negative need a positive multiplier and scaler")
    r = seed.relevance
    negative = (-r).clamp_min(0)
    axis = class_axis(r.dim()) if seed.task not in REGRESSIONS else None
    if against is None or (axis is None and against == REST):
        return negative
    if axis is None:
        raise ValueError(f"against={against!r}: an output of shape {list(r.shape)} has no classes; say against=None")
    alone = negative.flatten(1).amax(1).eq(0).reshape(-1, *[1] * (r.dim() - 1))
    positive = r.clamp_min(0) * alone
    units = positive.sum(axis, keepdim=True)
    among = positive.eq(0)
    if against != REST:
        among = _members(r, as_classes("against", against), axis)
        if bool((among & positive.gt(0)).any()):
            raise ValueError(f"against={against!r} is the target itself: choose another class, 'rest' or None")
    return negative + spread(_logits(output.detach().to(r.dtype), probability=seed.probability), units, among, axis)


def _members(output: Tensor, classes: tuple[int, ...], axis: int) -> Tensor:
    size = output.shape[axis]
    for one in classes:
        in_range(one, size, "class")
    mask = torch.zeros(size, dtype=torch.bool, device=output.device)
    mask[list(classes)] = True
    shape = [1] * output.dim()
    shape[axis] = size
    return mask.reshape(shape).expand_as(output)


def _logits(output: Tensor, *, probability: bool) -> Tensor:
    """Scores whose softmax shares by probability: of probabilities themselves, their logarithms."""
    return output.clamp_min(torch.finfo(output.dtype).tiny).log() if probability else output
