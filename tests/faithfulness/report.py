"""One run: every method on every problem, measured into records; what does not run is a record with its reason."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from .curves import Area, Curves
from .methods import RANDOM, Method, NotRun, own
from .problems import PROBLEMS, Problem
from .randomisation import likeness
from .rivals import rivals


@dataclass(frozen=True)
class Record:
    """What one method got on one problem: ABPC per sample, rank correlation after shuffling, seconds; or why not."""

    problem: Problem
    method: Method
    values: Tensor | None = None
    likeness: float = float("nan")
    seconds: float = 0.0
    reason: str = ""

    @property
    def area(self) -> Area | None:
        """The mean over samples with its interval."""
        return None if self.values is None else Area.of(self.values)


def methods() -> list[Method]:
    """All that is compared, the library's own first."""
    return [RANDOM, *own(), *rivals()]


def measure(names: Iterable[str]) -> Iterator[Record]:
    """The records of these problems, as they come."""
    for name in names:
        problem = PROBLEMS[name](0)
        curves = Curves(problem)
        for method in methods():
            yield _record(problem, curves, method)


def _record(problem: Problem, curves: Curves, method: Method) -> Record:
    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        relevance = method.relevance(problem)
        seconds = time.perf_counter() - start
        if not bool(relevance.isfinite().all()):
            return Record(problem, method, reason="its relevance is not finite")
        return Record(problem, method, curves.areas(relevance), likeness(method, problem, relevance), seconds)
    except NotRun as reason:
        return Record(problem, method, reason=str(reason))
    except Exception as error:  # another tool's error is a result: it goes into the document
        if method.source == "dlb":
            raise
        lines = str(error).strip().splitlines()
        return Record(problem, method, reason=f"{type(error).__name__}: {lines[0][:120] if lines else ''}")
