"""The example trains its experts apart, and its tables are those of the explanations."""

from __future__ import annotations

import re
import runpy
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parents[2] / "examples" / "moe_experts.py"


def percents(table: str) -> dict[str, list[float]]:
    """Row -> the numbers behind its count."""
    rows = [line.split() for line in table.splitlines()[3:]]
    return {row[0]: [float(cell) for cell in row[2:]] for row in rows}


def test_experts_carry_digits_of_their_own(capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    accuracy, relevance, load, reached, sevens = capsys.readouterr().out.strip().split("\n\n")
    assert float(re.search(r"accuracy (\S+)%", accuracy)[1]) > 95  # type: ignore[index]
    carried, chosen = percents(relevance), percents(load)
    digits = [str(digit) for digit in range(10)]
    assert list(carried) == list(chosen) == [*digits, "(all)"]
    for row in (*carried.values(), *chosen.values()):
        assert len(row) == 8
        assert sum(row) == pytest.approx(100, abs=0.5)
        assert min(row) >= 0
    # the router sends no expert away empty, and digits to different ones
    assert min(chosen["(all)"]) > 5
    strongest = [carried[digit].index(max(carried[digit])) for digit in digits]
    assert len({*strongest}) >= 5
    assert sum(max(carried[digit]) > 40 for digit in digits) >= 7
    seed, through = (float(number) for number in re.findall(r"(\d+)(?: units| went)", reached))
    assert seed == 450 * 100
    assert 0.3 * seed < through < seed
    assert "experts of moe.experts" in sevens
    assert "= entered" in sevens
