"""Perturbation curves: the area between hiding the least relevant features first and the most relevant first."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .problems import Problem

CHUNK = 512


class Area(NamedTuple):
    """ABPC in units of the explained output: mean over samples, and half of its 95 % interval."""

    mean: float
    margin: float
    samples: int

    @classmethod
    def of(cls, values: Tensor) -> Area:
        """From one value per sample [N]."""
        return cls(values.mean().item(), 1.96 * values.std().item() / len(values) ** 0.5, len(values))


class Curves:
    """Measures rankings of a problem's features; an output that was computed for one ranking serves all others."""

    def __init__(self, problem: Problem) -> None:
        self.problem = problem
        self.valid = problem.valid()
        self._known: list[dict[bytes, float]] = [{} for _ in problem.x]
        # Equal relevance is ordered by lot, the same for all methods: a feature's number says nothing about it.
        generator = torch.Generator().manual_seed(0)
        self._lots = torch.rand(self.valid.shape, generator=generator).argsort(1)

    def areas(self, relevance: Tensor) -> Tensor:
        """ABPC of each sample [N] for the relevance of its features [N, F]."""
        ascending = self._outputs(self._hidden(relevance))
        descending = self._outputs(self._hidden(-relevance))
        return (ascending - descending).mean(1)

    def _hidden(self, relevance: Tensor) -> Tensor:
        """The features that are hidden at each step, [N, steps, F], the lowest relevance first."""
        relevance = torch.where(self.valid, relevance.double(), torch.inf)  # what is no feature is never reached
        order = relevance.gather(1, self._lots).argsort(dim=1, stable=True)
        rank = self._lots.gather(1, order).argsort(1)
        steps = torch.arange(self.problem.steps + 1)[1:-1]  # nothing and everything hidden: equal in all rankings
        hidden = (self.valid.sum(1)[:, None] * steps / self.problem.steps).round()
        return rank[:, None] < hidden[..., None]

    def _outputs(self, hidden: Tensor) -> Tensor:
        """The explained output [N, steps] with these features hidden."""
        keys = [[row.tobytes() for row in sample] for sample in hidden.numpy()]
        missing = {(i, key): j for i, row in enumerate(keys) for j, key in enumerate(row) if key not in self._known[i]}
        if missing:
            self._learn(missing, hidden)
        return torch.tensor([[self._known[i][key] for key in row] for i, row in enumerate(keys)])

    def _learn(self, missing: dict[tuple[int, bytes], int], hidden: Tensor) -> None:
        places = torch.tensor([(i, j) for (i, _), j in missing.items()], dtype=torch.long).reshape(-1, 2)
        outputs = torch.cat([self._run(chunk[:, 0], hidden[chunk[:, 0], chunk[:, 1]]) for chunk in places.split(CHUNK)])
        for (i, key), value in zip(missing, outputs.tolist(), strict=True):
            self._known[i][key] = value

    @torch.no_grad()
    def _run(self, rows: Tensor, hidden: Tensor) -> Tensor:
        problem = self.problem
        x = problem.hide(problem.x[rows], hidden)
        output = problem.model(x, *(other[rows] for other in problem.others))
        return output.gather(1, problem.targets[rows, None]).squeeze(1)
