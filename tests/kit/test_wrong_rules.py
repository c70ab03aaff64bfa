"""Every wrong rule is found, by the property that it breaks, and the message is for people."""

from __future__ import annotations

import pytest

from dlb_core.rules import Row
from dlb_core.testing import Case, RuleCheckError, check_rule

from .wrong import WRONG


@pytest.mark.parametrize(("row", "cases", "broken", "says"), WRONG.values(), ids=WRONG)
def test_a_wrong_rule_is_found(row: Row, cases: list[Case] | None, broken: str, says: str) -> None:
    with pytest.raises(RuleCheckError) as caught:
        check_rule(row, cases=cases)
    error = caught.value
    assert error.broken == broken, str(error)
    assert says in error.why, str(error)
    first, *rest = str(error).splitlines()
    assert first.startswith(f"{row.op} (kind {row.kind}, in no pack), mode ")
    assert first.endswith(f": broke '{broken}'")
    assert rest[-1].startswith("  case: ")
    assert " float64" in rest[-1] or " float32" in rest[-1] or broken == "arguments"
