"""The replay can fail, and a part of the operator database holds; `make opinfo` takes all of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import rules.harness
import torch
import torch.nn.functional as F

import opinfo.check
from dlb_core.errors import ConservationError, RuleError
from dlb_core.rules import Row, Shares, elementwise, rule
from opinfo.check import Refused, Skipped, check, row_of
from opinfo.recorder import Recorded, record

aten = torch.ops.aten
TESTS = Path(__file__).parents[1]
X = torch.tensor([-1.0, 2.0, 3.0])


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A process of its own: importing the database changes hypothesis' settings and torch's flags."""
    path = os.pathsep.join([str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])])
    command = [sys.executable, "-m", "opinfo", *arguments]
    return subprocess.run(
        command, capture_output=True, text=True, timeout=300, check=False, env={**os.environ, "PYTHONPATH": path}
    )


def counts(printed: str) -> dict[str, int]:
    """The summary, the last table."""
    lines = printed.rstrip().rpartition("\n\n")[2].splitlines()[2:]
    return {name.strip(): int(count) for name, _, count in (line.rpartition(" ") for line in lines)}


def test_forty_operators_hold() -> None:
    done = run("--limit", "40", "--samples", "3")
    assert done.returncode == 0, done.stdout + done.stderr
    seen = counts(done.stdout)
    assert seen["operators"] == 40
    assert seen["failures"] == 0
    assert seen["calls held to their row"] > 100
    assert seen["overloads with a row"] > 20


def test_an_operator_that_does_not_exist() -> None:
    done = run("--op", "bessel_q0")
    assert done.returncode == 2
    assert "bessel_q0" in done.stderr


def test_composite_ops_are_whole_where_they_have_a_row() -> None:
    def dense() -> Any:
        return F.linear(torch.ones(2, 3), torch.ones(4, 3))

    (whole,) = [call for call in record(dense, lambda op: True) if call.op is aten.linear.default]
    assert set(whole.arguments) == {"input", "weight"}
    opened = {call.op for call in record(dense, lambda op: False)}
    assert aten.mm.default in opened
    assert aten.linear.default not in opened


def test_what_is_written_to_is_recorded_as_it_was() -> None:
    def written() -> None:
        y = X * 2
        y.add_(1)

    double, add = (call for call in record(written, lambda op: True) if call.op is not aten.detach.default)
    assert add.op is aten.add.Tensor  # as a functional graph has it
    assert double.output.tolist() == add.arguments["self"].tolist() == [-2, 4, 6]
    assert add.output.tolist() == [-1, 5, 7]


def with_row(monkeypatch: pytest.MonkeyPatch, row: Row) -> Row:
    """The pack with another row for `relu`, and that row as the registry gives it."""
    extended = rules.harness.pack().extended([row])
    monkeypatch.setattr(rules.harness, "pack", lambda: extended)
    monkeypatch.setattr(opinfo.check, "pack", lambda: extended)
    found = row_of(aten.relu.default)
    assert found is not None
    return found


def relu(output: torch.Tensor | None = None, x: torch.Tensor = X) -> Recorded:
    return Recorded(aten.relu.default, {"self": x}, x.relu() if output is None else output)


def test_a_call_that_holds() -> None:
    row = row_of(aten.relu.default)
    assert row is not None
    check(relu(), row, 0)


def test_another_forward_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    row = with_row(monkeypatch, elementwise("aten::relu", forward=lambda x: x.clamp_min(0) + 1e-6))
    with pytest.raises(AssertionError, match="not equal"):
        check(relu(), row, 0)


def test_lost_units_are_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    row = with_row(monkeypatch, rule("aten::relu")(lambda call, r, mode: Shares({"self": r / 2})))
    with pytest.raises(ConservationError):
        check(relu(), row, 0)


def test_a_refusal_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    row = with_row(monkeypatch, elementwise("aten::relu", refuses=lambda bound: "not in a leap year"))
    with pytest.raises(Refused, match="leap year"):
        check(relu(), row, 0)


def test_a_broken_rule_does_not_pass_for_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    row = with_row(monkeypatch, rule("aten::relu")(lambda call, r, mode: Shares({"self": r[:1]})))
    with pytest.raises(RuleError, match="shape"):
        check(relu(), row, 0)


def test_what_is_not_finite_is_left_out() -> None:
    row = row_of(aten.relu.default)
    assert row is not None
    for bad in (relu(x=X / 0), relu(output=X * float("nan"))):
        with pytest.raises(Skipped, match="NaN or infinite"):
            check(bad, row, 0)
