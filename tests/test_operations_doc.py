"""docs/operations.md says what the rows say."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


def test_the_list_of_operations_is_up_to_date(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(DOCS))
    import operations

    written = operations.PAGE.read_text(encoding="utf-8")
    assert written == operations.page(), "docs/operations.md is stale: run `make operations` and commit what it writes"
    sys.modules.pop("operations")


def test_the_list_is_linked() -> None:
    assert "operations" in (DOCS / "index.md").read_text(encoding="utf-8").splitlines()
