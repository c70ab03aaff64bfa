"""`docs/models.md` lists the matrix as it is; its numbers are those of the last `make models`."""

from __future__ import annotations

import re
from pathlib import Path

from .document import COLUMNS, TITLES, write
from .models import ENTRIES

DOCUMENT = Path(__file__).parents[2] / "docs" / "models.md"
ADVICE = "docs/models.md is not up to date: run `make models`"


def listed(text: str) -> list[tuple[str, bool]]:
    """The models of the tables, in order, and whether they are said to be unsupported."""
    rows = [line.split(" | ") for line in text.splitlines() if re.match(r"\| (?!model \||---)", line)]
    return [(row[0].removeprefix("| "), row[1].startswith("not yet: ")) for row in rows]


def test_the_document_lists_every_model_of_the_matrix_and_says_which_are_unsupported() -> None:
    families = [*TITLES]
    entries = sorted(ENTRIES.values(), key=lambda entry: families.index(entry.family))
    expected = [(f"{e.name} ({e.note})" if e.note else e.name, bool(e.unsupported)) for e in entries]
    assert listed(DOCUMENT.read_text()) == expected, ADVICE


def test_the_document_has_the_columns_and_the_text_of_today(tmp_path: Path) -> None:
    write(tmp_path / "models.md", [])
    text = DOCUMENT.read_text()
    assert text.startswith((tmp_path / "models.md").read_text().rstrip()), ADVICE
    assert text.count(f"| {' | '.join(COLUMNS)} |") == len(TITLES), ADVICE
