"""Detectors: one query's (or anchor's) class score or box as a target."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.targets.places import in_range
from dlb_core.targets.request import Context

AUTO = "auto"


@dataclass(frozen=True)
class Query:
    """A target: what a detector found at one query or anchor; `Query(7, 3)`, `Query(7)`, `Query()`.

    query: its index (default: the most confident one of the sample). unit: a class of the class scores, or a coordinate
    of the boxes (default: the query's best class; all its coordinates, sharing by size). no_object: the class that
    means "nothing here", which is never chosen: "auto" (the last one, where a model of transformers has one more score
    than labels), a class (0 in torchvision's SSD), or None.

    Confident is the largest softmax probability of an object where there is a no-object class, else the largest score.
    """

    query: int | None = None
    unit: int | None = None
    no_object: int | str | None = AUTO

    def __post_init__(self) -> None:
        for name in ("query", "unit"):
            value = getattr(self, name)
            if value is not None and not _is_index(value):
                raise ValueError(f"Query: {name}={value!r} must be an int or None")
        if not (self.no_object is None or self.no_object == AUTO or _is_index(self.no_object)):
            raise ValueError(f"Query: no_object={self.no_object!r} must be 'auto', a class or None")

    def weights(self, output: Tensor, sample: int, context: Context) -> Tensor:
        """The target as weights of one sample's output [Q, C] or [Q, 4]: 1 where it is chosen."""
        if output.dim() != 2:
            raise ValueError(f"{self!r} is for outputs [B, Q, C] and boxes [B, Q, 4], got {['B', *output.shape]}")
        query, unit = self.settled(output, sample, context)
        weights = torch.zeros_like(output)
        weights[query, slice(None) if unit is None else unit] = 1
        return weights

    def settled(self, output: Tensor, sample: int, context: Context) -> tuple[int, int | None]:
        """Query and unit with the defaults filled in; a unit of None means all coordinates."""
        scores = output if not context.boxes else None if context.scores is None else context.scores[sample]
        query, unit = self.query, self.unit
        if scores is None and query is None:
            raise ValueError(f"{self!r}: no class scores beside these boxes say which query is the most confident")
        confidence = None if scores is None else self._confidence(scores, context)
        if query is None:
            assert confidence is not None
            query = int(confidence.amax(-1).argmax())
        in_range(query, output.shape[0], "query")
        if unit is None and not context.boxes:
            assert confidence is not None
            unit = int(confidence[query].argmax())
        if unit is not None:
            in_range(unit, output.shape[1], "coordinate" if context.boxes else "class")
        return query, unit

    def _confidence(self, scores: Tensor, context: Context) -> Tensor:
        """How sure the detector is of each class at each query; of the no-object class never."""
        none = self.no_object
        if none == AUTO:
            extra = context.labels is not None and scores.shape[-1] == context.labels + 1
            none = scores.shape[-1] - 1 if extra else None
        if none is None:
            return scores
        assert isinstance(none, int)
        in_range(none, scores.shape[-1], "no_object")
        confidence = scores if context.probability else scores.softmax(-1)
        keep = torch.ones(scores.shape[-1], dtype=torch.bool, device=scores.device)
        keep[none] = False
        return confidence.masked_fill(~keep, -1)


def _is_index(value: Any) -> bool:
    try:
        operator.index(value)
    except TypeError:
        return False
    return not isinstance(value, bool)
