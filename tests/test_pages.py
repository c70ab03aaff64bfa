"""The examples on these pages run as they stand, one after the other."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[1] / "docs"


@pytest.mark.parametrize("name", ["inside", "adapters", "paths", "moe"])
def test_the_examples_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    page = DOCS / f"{name}.md"
    blocks = re.findall(r"^```python\n(.*?)^```", page.read_text("utf-8"), flags=re.S | re.M)
    assert len(blocks) >= 3
    exec(compile("\n".join(blocks), page, "exec"), {"__name__": name})
