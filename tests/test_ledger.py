"""The books of an explanation: shares, tables, modules, and how strictly they are checked."""

from __future__ import annotations

import math
import warnings
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import CASES, MLP, traced

from dlb_core import ConservationError, DLBacktrace, Ledger
from dlb_core.rules import Formula, Shares


class Shifted(nn.Module):
    """A dense layer, and a parameter that the container itself adds: its account belongs to no layer."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = Inner()
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.inner(x))


class Inner(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc, self.shift = nn.Linear(6, 4), nn.Parameter(torch.randn(4))

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(x) + self.shift


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 6)


def books(model: nn.Module, x: Tensor, mode: str = "epsilon", **options: Any) -> Ledger:
    ledger: Ledger = DLBacktrace(model.eval(), x, **options).explain(x, mode=mode, target=1).ledger
    return ledger


def test_the_table_lists_every_unit_and_its_shares_sum_to_a_hundred(x: Tensor) -> None:
    ledger = books(MLP(), x)
    records = ledger.table().records()
    assert [record["account"] for record in records[-2:]] == ["residual (rounding)", "= seed"]
    assert records[0] == {"account": "input:x", "units": ledger.inputs["x"], "share %": ledger.inputs["x"] / 3}
    sinks = {record["account"]: record["units"] for record in records[1:-2]}
    assert sinks == dict(ledger.accounts)
    assert set(sinks) == {"bias:fc1.bias", "bias:fc2.bias", "bias:fc3.bias", "stabiliser"}
    assert math.fsum(record["share %"] for record in records[:-1]) == pytest.approx(100, abs=1e-9)
    assert records[-1]["units"] == ledger.seed
    assert records[-1]["share %"] == 100


def test_the_table_prints_in_aligned_columns(x: Tensor) -> None:
    lines = str(books(MLP(), x)).splitlines()
    assert lines[0].startswith("ledger")
    assert len({len(line) for line in lines[2:]}) == 1
    assert any(line.startswith("bias:fc2.bias") for line in lines)


def test_the_node_table_follows_the_relevance(x: Tensor) -> None:
    records = books(MLP(), x).node_table().records()
    assert [record["node"] for record in records] == ["linear_2", "tanh", "linear_1", "relu", "linear"]
    assert records[0]["in"] == 300
    for before, after in pairwise(records):
        assert before["out"] == pytest.approx(after["in"], rel=1e-5)


def test_gain_says_how_much_cancels(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    explanation = dlb.explain(x, mode="epsilon", target=1)
    size = float(explanation.inputs["x"].abs().sum())
    assert explanation.ledger.gain == pytest.approx(size / 300, rel=1e-5)
    assert dlb.explain(x).ledger.gain == pytest.approx(1, rel=1e-5)


def test_a_seed_with_signs_is_summed_with_signs(x: Tensor) -> None:
    weights = torch.tensor([[2.0, -1.0, 0.0, 0.0]]).expand(3, 4)
    ledger = DLBacktrace(MLP().eval(), x).explain(x, target=weights).ledger
    assert ledger.seed == 300
    assert math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values()) == pytest.approx(300, abs=1e-2)


def leaf_modules(table: dict[str, dict[str, float]]) -> list[str]:
    return [path for path in table if not any(other.startswith(f"{path}.") for other in table if path)]


def test_by_module_says_what_goes_in_and_out_and_stays(x: Tensor) -> None:
    ledger = books(MLP(), x)
    table = ledger.by_module()
    assert set(table) == {"fc1", "fc2", "fc3", ""}
    for path, units in table.items():
        assert units["in"] - units["out"] == pytest.approx(units["booked"], abs=1e-3), path
    assert table["fc3"]["in"] == 300
    assert table["fc1"]["out"] == pytest.approx(ledger.inputs["x"], abs=1e-3)
    assert table["fc2"]["booked"] == pytest.approx(ledger.accounts["bias:fc2.bias"], abs=1e-2)


@pytest.mark.parametrize("name", ["shifted", "digits", "bert-sdpa", "vit-eager", "llama-eager"])
def test_what_leaf_modules_book_and_the_inputs_make_the_seed(name: str, x: Tensor) -> None:
    call = {"x": x} if name == "shifted" else CASES[name].example()
    dlb = DLBacktrace(Shifted().eval(), call) if name == "shifted" else traced(name)
    for mode in ("default", "epsilon"):
        ledger = dlb.explain(**call, mode=mode).ledger
        table = ledger.by_module()
        booked = math.fsum(table[path]["booked"] for path in leaf_modules(table))
        assert booked + math.fsum(ledger.inputs.values()) == pytest.approx(ledger.seed, abs=1e-5 * ledger.scale)


def test_a_second_call_of_a_module_has_its_own_line(x: Tensor) -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = nn.Sequential(nn.Linear(6, 6), nn.Tanh())

        def forward(self, x: Tensor) -> Tensor:
            return self.body(self.body(x))

    table = books(Twice(), x).by_module()
    assert set(table) == {"body", "body.0", "body.1", "body@1", "body.0@1", "body.1@1"}
    assert table["body@1"]["out"] == pytest.approx(table["body"]["in"], abs=1e-3)
    for units in table.values():
        assert units["in"] - units["out"] == pytest.approx(units["booked"], abs=1e-3)


def test_check_ends_keeps_the_ends_only(x: Tensor) -> None:
    model = MLP()
    whole, ends = books(model, x), books(model, x, check="ends")
    assert ends.inputs == whole.inputs
    assert ends.accounts == whole.accounts
    assert ends.residual == whole.residual
    assert ends.by_node == {}
    assert ends.check() == []


def test_check_off_takes_no_sums(x: Tensor) -> None:
    ledger = books(MLP(), x, check="off")
    assert (ledger.seed, ledger.inputs, ledger.accounts, ledger.by_node) == (300, {}, {}, {})
    assert math.isinf(ledger.tolerance)


@pytest.mark.parametrize("check", ["raise", "warn", "ends", "off"])
def test_every_check_gives_the_same_relevance(check: str, x: Tensor) -> None:
    model = MLP().eval()
    expected = DLBacktrace(model, x).explain(x, mode="epsilon").inputs["x"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(DLBacktrace(model, x, check=check).explain(x, mode="epsilon").inputs["x"], expected)


def lossy_engine(model: nn.Module, x: Tensor, check: str) -> DLBacktrace:
    """An engine whose rule for the first dense layer keeps a tenth for itself."""
    dlb = DLBacktrace(model, x, check=check)
    step = next(step for step in dlb.plan("epsilon").steps if step.node.name == "linear")
    honest = step.formula.run

    def lossy(view: Any, r: Any, mode: Any) -> Shares:
        shares = honest(view, r, mode)
        return Shares({name: 0.9 * share for name, share in shares.relevance.items()}, shares.accounts)

    object.__setattr__(step, "formula", Formula(lossy, step.formula.reads))
    return dlb


def test_a_loss_is_raised_warned_about_or_seen_at_the_ends(x: Tensor) -> None:
    model = MLP().eval()
    for check, says in (("raise", "not conserved at node 'linear'"), ("ends", "the ends do not meet: seed 300")):
        dlb = lossy_engine(model, x, check)
        with pytest.raises(ConservationError, match=says):
            dlb.explain(x, mode="epsilon")
    dlb = lossy_engine(model, x, "warn")
    with pytest.warns(UserWarning, match="not conserved at node 'linear'") as caught:
        ledger = dlb.explain(x, mode="epsilon").ledger
    assert caught[0].filename == __file__  # it points at the caller's line
    assert [entry.name for entry in ledger.check()] == ["linear"]
    assert lossy_engine(model, x, "off").explain(x, mode="epsilon").ledger.by_node == {}


def test_an_unknown_check_is_refused(x: Tensor) -> None:
    with pytest.raises(ValueError, match="check='loose': choose one of 'raise', 'warn', 'ends', 'off'"):
        DLBacktrace(MLP().eval(), x, check="loose")


def test_a_node_of_coarse_complex_values_is_held_to_what_they_hold() -> None:
    """Rotary positions that a float64 model takes in complex64: sums of float32 cannot close to 1e-9."""

    class Rotated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.angle = nn.Linear(6, 8), nn.Parameter(torch.randn(4))

        def forward(self, x: Tensor) -> Tensor:
            turned = torch.view_as_complex(self.fc(x).float().reshape(-1, 4, 2))
            return torch.view_as_real(turned * torch.polar(torch.ones(4), self.angle.float())).flatten(1).double()

    torch.manual_seed(0)
    ledger = books(Rotated().double(), torch.randn(3, 6, dtype=torch.float64), "attnlrp")
    (entry,) = (entry for entry in ledger.by_node.values() if entry.op == "aten::mul.Tensor")
    assert entry.tolerance == 1e-5
    assert ledger.by_node["linear"].tolerance == 1e-9
