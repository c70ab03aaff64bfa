"""One run: every method on every problem, measured into records; what does not run is a record with its reason."""

from __future__ import annotations

import dataclasses
import json
import os
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
import torchvision_stub

from .curves import Area, Curves
from .methods import RANDOM, Method, NotRun, own
from .problems import PROBLEMS, Problem
from .randomisation import likeness
from .rivals import rivals
from .training import FOLDER

SLOWEST = "MiniLM"  # begins first


@dataclass(frozen=True)
class Record:
    """What one method got on one problem: ABPC per sample, rank correlation after shuffling, seconds; or why not."""

    problem: str
    about: str
    samples: int
    label: str
    source: str
    passes: str
    values: tuple[float, ...] = ()
    likeness: float = float("nan")
    seconds: float = 0.0
    reason: str = ""
    family: str = ""

    @classmethod
    def of(cls, problem: Problem, method: Method, **measured: object) -> Record:
        """A record of this method on this problem."""
        known = (problem.name, problem.about, len(problem.x), method.label, method.source, method.passes)
        return cls(*known, family=problem.family, **measured)  # type: ignore[arg-type]

    @property
    def area(self) -> Area | None:
        """The mean over samples with its interval."""
        return Area.of(torch.tensor(self.values)) if self.values else None

    @property
    def few(self) -> bool:
        """Does it cost one run of the model and its way back, and at most one more of the baseline?"""
        return self.passes in ("0", "1", "2")


def methods(problem: Problem) -> list[Method]:
    """All that is compared, the library's own first."""
    return [RANDOM, *own(problem), *rivals()]


def measure(names: Sequence[str], jobs: int) -> None:
    """Measures these problems, as many at once as there are jobs; each leaves a file of its records."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    with ProcessPoolExecutor(jobs, initializer=_settle) as pool:
        for done in [pool.submit(_measure, name) for name in sorted(names, key=lambda name: name != SLOWEST)]:
            done.result()


def found() -> list[Record]:
    """The records of all problems that were measured."""
    files = [path for name in PROBLEMS if (path := _file(name)).exists()]
    return [
        Record(**{**kept, "values": tuple(kept["values"])}) for path in files for kept in json.loads(path.read_text())
    ]


def _file(name: str) -> Path:
    return FOLDER / f"{name}.json"


def _settle() -> None:
    torchvision_stub.register()
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))
    warnings.simplefilter("ignore")  # what the tools say about each other's hooks


def _measure(name: str) -> None:
    problem = PROBLEMS[name](0)
    records = []
    for record in _records(problem, methods(problem)):
        records.append(dataclasses.asdict(record))
        _file(name).write_text(json.dumps(records))


def _records(problem: Problem, compared: Iterable[Method]) -> Iterator[Record]:
    curves = Curves(problem)
    for method in compared:
        record = _record(problem, curves, method)
        result = f"{record.area.mean:8.3f} ± {record.area.margin:.3f}" if record.area else record.reason
        print(f"{problem.name:14} {method.label:40} {result}  ({record.seconds:.0f} s)", flush=True)
        yield record


def _record(problem: Problem, curves: Curves, method: Method) -> Record:
    torch.manual_seed(0)
    start = time.perf_counter()
    try:
        relevance = method.relevance(problem)
        seconds = time.perf_counter() - start
        if not bool(relevance.isfinite().all()):
            return Record.of(problem, method, reason="its relevance is not finite")
        values = tuple(curves.areas(relevance).tolist())
        alike = likeness(method, problem, relevance)
        return Record.of(problem, method, values=values, likeness=alike, seconds=seconds)
    except NotRun as reason:
        return Record.of(problem, method, reason=str(reason))
    except Exception as error:  # another tool's error is a result: it goes into the document
        if method.source == "dlb":
            raise
        lines = str(error).strip().splitlines()
        return Record.of(problem, method, reason=f"{type(error).__name__}: {lines[0][:120] if lines else ''}")
