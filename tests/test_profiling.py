"""`dlb.profile`: every step is timed once, and the tables add up."""

from __future__ import annotations

import math
import threading

import pytest
import torch
from torch import nn

from dlb_core import DLBacktrace, profiled
from dlb_core.kernel.clock import running
from dlb_core.profiling import BY, SORTS

MODEL = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Sequential(nn.Flatten(), nn.Linear(4 * 36, 5))).eval()
X = torch.randn(2, 3, 8, 8)


@pytest.fixture(scope="module")
def dlb() -> DLBacktrace:
    return DLBacktrace(MODEL, (X,), tracer="tape")


def test_every_step_is_there_once_in_each_pass(dlb: DLBacktrace) -> None:
    profile = dlb.profile(X, mode="epsilon")
    plan = dlb.plan("epsilon").steps
    forward = [tick.node.name for tick in profile.ticks if tick.during == "forward"]
    relevance = [tick.node.name for tick in profile.ticks if tick.during == "relevance"]
    assert relevance == [step.node.name for step in plan]
    assert set(relevance) <= set(forward)
    assert len(set(forward)) == len(forward)


@pytest.mark.parametrize("by", BY)
def test_a_table_adds_up_to_the_whole(dlb: DLBacktrace, by: str) -> None:
    profile = dlb.profile(X)
    rows = profile.table(by).records()
    if by == "module":  # a step counts for every module around it
        rows = [row for row in rows if "." not in row["module"]]
    assert math.fsum(row["total ms"] for row in rows) == pytest.approx(1e3 * profile.seconds)
    assert math.fsum(row["share %"] for row in rows) == pytest.approx(100)
    made = sum(row["made MiB"] for row in rows) * 2**20
    assert made == pytest.approx(sum(tick.made for tick in profile.ticks))
    for row in rows[:-1]:
        assert row["total ms"] == pytest.approx(row["forward ms"] + row["relevance ms"])


@pytest.mark.parametrize("sort", [s for s in SORTS if s != "order"])
def test_rows_are_sorted_by_what_was_asked(dlb: DLBacktrace, sort: str) -> None:
    column = {"made": "made MiB"}.get(sort, f"{sort} ms")
    values = [row[column] for row in dlb.profile(X).table(sort=sort).records()[:-1]]
    assert values == sorted(values, reverse=True)


def test_only_so_many_rows_and_no_other_words(dlb: DLBacktrace) -> None:
    profile = dlb.profile(X)
    assert len(profile.table(top=2)) == 3
    assert "by kind" in str(profile)
    for wrong in ({"by": "colour"}, {"sort": "name"}, {"top": 0}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            profile.table(**wrong)  # type: ignore[arg-type]


def test_calls_in_a_block_are_timed_together_and_nobody_elses(dlb: DLBacktrace) -> None:
    with profiled() as profile:
        dlb.predict(X)
        other = threading.Thread(target=dlb.explain, args=(X,))
        other.start()
        other.join()
        dlb.evaluation("epsilon")
    assert running() is None
    assert sum(tick.during == "relevance" for tick in profile.ticks) == len(dlb.plan("epsilon").steps)


def test_what_was_asked_is_what_is_timed(dlb: DLBacktrace) -> None:
    before = dlb.explain(X, mode="epsilon", target=2).inputs["input"]
    with profiled() as profile:
        after = dlb.explain(X, mode="epsilon", target=2).inputs["input"]
    assert torch.equal(before, after)
    assert {tick.kind for tick in profile.ticks} == {"linear", "elementwise", "move"}
