"""A pytest decorator that runs a test once per row. Needs pytest."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from dlb_core.kernel.kinds import Row

try:
    import pytest
except ImportError as error:
    raise ImportError("dlb_core.testing.parametrize_rules needs pytest: pip install pytest") from error


def parametrize_rules(
    rules: Iterable[Row], *, expected_failures: Mapping[str, str] | None = None
) -> pytest.MarkDecorator:
    """Decorates ``def test_rule(rule): check_rule(rule)``: once per row, by its op's name.

    expected_failures: op -> reason; such a row has to fail (strict), so that a mended one is noticed. Raises
    ValueError where it names an op that no row is for.
    """
    rows = list(rules)
    expected = dict(expected_failures or {})
    if unknown := sorted(set(expected) - {row.op for row in rows}):
        raise ValueError(f"expected_failures names {', '.join(unknown)}: the rows are for {_listed(rows)}")
    params: list[Any] = []
    for row in rows:
        reason = expected.get(row.op)
        marks = [] if reason is None else [pytest.mark.xfail(reason=reason, raises=AssertionError, strict=True)]
        params.append(pytest.param(row, id=_name(row), marks=marks))
    return pytest.mark.parametrize("rule", params)


def _name(row: Row) -> str:
    """The op, and what tells this row from others of the op."""
    dtypes = [str(d).removeprefix("torch.") for d in row.dtypes or ()]
    return "-".join([row.op, *filter(None, [row.device]), *dtypes, *(row.modes or ())])


def _listed(rows: list[Row]) -> str:
    return ", ".join(sorted({row.op for row in rows})) or "nothing"
