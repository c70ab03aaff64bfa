"""Shares as they are printed sum to 100.00, whatever the units."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dlb_core.cli.books import units_text
from dlb_core.kernel.ledger import Ledger
from dlb_core.ledger_lines import hundredths, ledger_lines

numbers = st.floats(-1e4, 1e4, allow_nan=False).map(lambda x: x if abs(x) > 1e-9 else 0.0)


def ledger(seed: float, inputs: dict[str, float], accounts: dict[str, float]) -> Ledger:
    return Ledger(seed, inputs, accounts, scale=1.0, input_scale=1.0, seed_scale=1.0, tolerance=1.0)


@given(st.lists(numbers, min_size=1, max_size=40), st.integers(0, 30), st.sampled_from([None, 3, 12]))
def test_shares_sum_to_one_hundred(units, sinks, most):
    seed = math.fsum(units)
    named = {f"a{i}": u for i, u in enumerate(units)}
    accounts = dict(list(named.items())[:sinks])
    book = ledger(seed, {n: u for n, u in named.items() if n not in accounts}, accounts)
    lines = ledger_lines(book, most)
    assert math.fsum(line.units for line in lines) == pytest.approx(seed, abs=1e-6)
    if seed == 0:
        assert all(line.hundredths is None for line in lines)
    elif abs(seed) > 1e-6:
        assert sum(line.hundredths for line in lines) == 100_00
        for line in lines:
            exact = 100 * line.units / seed
            assert line.share == pytest.approx(exact, abs=0.0101, rel=1e-9)


def test_thirds():
    assert sorted(hundredths([1.0, 1.0, 1.0], 3.0)) == [33_33, 33_33, 33_34]


def test_no_line_says_minus_zero():
    book = ledger(100.0, {"x": 100.0 + 1e-9}, {"bias:a": -1e-9})
    lines = ledger_lines(book)
    assert [line.share_text for line in lines] == ["100.00 %", "0.00 %", "0.00 %"]
    assert "-0.00" not in units_text(lines, book.seed)


def test_many_accounts_are_grouped():
    book = ledger(100.0, {"x": 0.0}, {f"bias:{i}": 5.0 for i in range(20)})
    lines = ledger_lines(book, most=12)
    assert [line.account for line in lines][-2:] == ["... 9 more accounts", "residual (rounding)"]
    assert lines[-2].share == 45.0
    assert len(ledger_lines(book, most=None)) == 22


def test_a_seed_whose_signs_cancel_has_no_shares():
    """As the seed of a contrast: for and against weigh the same, and rounding is left of their sum."""
    book = Ledger(-1e-6, {"x": 40.0}, {"crossed": -40.0}, scale=1.0, input_scale=90.0, seed_scale=200.0, tolerance=1.0)
    assert [line.share for line in ledger_lines(book)] == [None, None, None]
    assert not book.sums
    assert book.share(40.0) == 20.0  # of its size
    assert ledger(4.0, {"x": 4.0}, {}).share(1.0) == 25.0
