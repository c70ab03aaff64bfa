"""A method is a name and a function that explains a problem; the modes of this library, and a yardstick."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core import DLBacktrace, integrated, smooth

from .problems import Problem

BATCH = 60
MANY = "n"  # passes: as many as the problem has points
Explain = Callable[[Problem], Tensor]
Options = dict[str, Any]

#: Modes with options that are worth comparing; every other registered mode runs as it is.
GRIDS: dict[str, tuple[Options, ...]] = {
    "gamma": ({"gamma": 0.05}, {"gamma": 0.1}, {"gamma": 0.25}, {"gamma": 1.0}),
    "epsilon": ({}, {"bias": "redistribute"}),
    "z-box": ({"low": -3.0, "high": 3.0},),
}
#: What also runs on the change from a baseline, in one step.
AT_A_BASELINE: tuple[tuple[str, Options], ...] = (
    ("auto", {}),
    ("epsilon", {}),
    ("gamma", {"gamma": 0.05}),
    ("attnlrp", {}),
    ("alpha-beta", {}),
    ("z-plus", {}),
    ("default", {}),
)
#: What also runs at many points, which costs as much as all of the above together.
AT_MANY_POINTS: tuple[tuple[str, Options], ...] = (("auto", {}), ("epsilon", {}), ("gamma", {"gamma": 0.05}))


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

    def relevance(self, problem: Problem) -> Tensor:
        """The relevance of every sample's features, [N, F]."""
        explain = self.start(problem)
        parts = (problem.part(slice(i, i + BATCH)) for i in range(0, len(problem.x), BATCH))
        return torch.cat([part.features(explain(part)) for part in parts])


def mode(given: Any, label: str, passes: str = "1", **options: Any) -> Method:
    """A mode of the library, by name or as it is, with options; from the problem where it needs a baseline."""
    return Method(label, "dlb", passes, lambda problem: _explainer(problem, given, options))


def _explainer(problem: Problem, given: Any, options: Options) -> Explain:
    example = problem.part(slice(0, 3))
    name = next(iter(inspect.signature(problem.model.forward).parameters))
    dlb = DLBacktrace(problem.model, (example.x, *example.others), explain_inputs=[name], check="ends")
    mode = given(name, problem.baseline) if callable(given) else given

    def explain(part: Problem) -> Tensor:
        found = dlb.explain(part.x, *part.others, mode=mode, target=part.targets.tolist(), seed="logit", **options)
        return found.relevance[name]

    return explain


def own(problem: Problem) -> Iterator[Method]:
    """Every mode that is registered; some on the change from the baseline, in one step and in many; some with noise."""
    dlb = DLBacktrace(torch.nn.Linear(1, 1).eval(), torch.zeros(1, 1))
    for name in ("auto", *dlb.modes):
        for options in GRIDS.get(name, ({},)):
            yield mode(name, _label(name, options), **options)
    for name, options in AT_A_BASELINE:
        yield along(name, options, 1)
    for name, options in AT_MANY_POINTS:
        yield along(name, options, problem.points)
    noisy = smooth("auto", samples=problem.points)
    yield mode(noisy, "smooth(auto)", MANY)


def along(name: str, options: Options, steps: int) -> Method:
    def make(argument: str, baseline: Tensor) -> Any:
        return integrated(name, {argument: baseline}, steps, **options)

    label = f"integrated({_label(name, options)}{', steps=1' if steps == 1 else ''})"
    return mode(make, label, "2" if steps == 1 else MANY)


def _label(name: str, options: Options) -> str:
    return f"{name}({', '.join(f'{key}={value}' for key, value in options.items())})" if options else name


def _random(problem: Problem) -> Explain:
    generator = torch.Generator().manual_seed(0)
    return lambda part: torch.randn(part.x.shape, generator=generator)


RANDOM = Method("random", "yardstick", "0", _random)
