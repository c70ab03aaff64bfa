"""A method is a name and a function that explains a problem; the modes of this library, and two yardsticks."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from dlb_core import DLBacktrace

from .problems import Problem

BATCH = 60
Explain = Callable[[Problem], Tensor]


class NotRun(Exception):
    """A method that does not apply to a problem, with the reason."""


@dataclass(frozen=True)
class Method:
    """`start(problem)` prepares a model once; what it returns explains a part of the problem's samples, [B, ...].

    `passes` is the price in runs of the model: "1" is a forward pass and one back.
    """

    name: str
    source: str
    passes: str
    start: Callable[[Problem], Explain]

    @property
    def label(self) -> str:
        """Whose it is and what it is called."""
        return self.name if self.source == "yardstick" else f"{self.source}: {self.name}"

    @property
    def one_pass(self) -> bool:
        """Does it cost no more than a forward pass and one back, of the sample and at most of a baseline?"""
        return self.passes in ("0", "1", "2")

    def relevance(self, problem: Problem) -> Tensor:
        """The relevance of every sample's features, [N, F]."""
        explain = self.start(problem)
        parts = (problem.part(slice(i, i + BATCH)) for i in range(0, len(problem.x), BATCH))
        return torch.cat([part.features(explain(part)) for part in parts])


def mode(name: str, label: str = "", passes: str = "1", **options: object) -> Method:
    """A mode of the library, with options."""
    return Method(label or _label(name, options), "dlb", passes, lambda problem: _explainer(problem, name, options))


def _label(name: str, options: dict[str, object]) -> str:
    return " ".join([name, *(f"{key}={value}" for key, value in options.items())])


def _explainer(problem: Problem, mode: str, options: dict[str, object]) -> Explain:
    example = problem.part(slice(0, 3))
    dlb = DLBacktrace(problem.model, (example.x, *example.others), explain_inputs=None, check="ends")
    name = dlb.input_names[0]

    def explain(part: Problem) -> Tensor:
        found = dlb.explain(part.x, *part.others, mode=mode, target=part.targets.tolist(), seed="logit", **options)
        return found.relevance[name]

    return explain


def own() -> Iterator[Method]:
    """Every mode that is registered, with the options that are worth comparing."""
    for name in _modes():
        for options in GRIDS.get(name, ({},)):
            yield mode(name, **options)


GRIDS: dict[str, tuple[dict[str, object], ...]] = {
    "gamma": ({"gamma": 0.1}, {"gamma": 0.25}, {"gamma": 1.0}),
    "epsilon": ({}, {"bias": "redistribute"}),
    "z-box": ({"low": -3.0, "high": 3.0},),
}


def _modes() -> list[str]:
    tiny = torch.nn.Linear(1, 1).eval()
    return DLBacktrace(tiny, torch.zeros(1, 1)).modes


def _random(problem: Problem) -> Explain:
    generator = torch.Generator().manual_seed(0)
    return lambda part: torch.randn(part.x.shape, generator=generator)


RANDOM = Method("random", "yardstick", "0", _random)
