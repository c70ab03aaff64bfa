"""The report: one HTML file that opens from disk, asks nothing of the network and shows an explanation whole.

`document` and `generated` say what there is to show, as plain data (`inputs`, `books` and `arrays` are its parts);
`page` writes that data, the styles and the scripts into one file. The scripts draw; they compute no relevance.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlb_core.folder import new_file
from dlb_core.viz.report.document import document
from dlb_core.viz.report.generated import generated_document
from dlb_core.viz.report.page import page

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation
    from dlb_core.generation.result import GenerationExplanation

__all__ = ["generation_html", "report_html", "write_generation_report", "write_report"]


def report_html(explanations: Sequence[Explanation]) -> str:
    """The page of one explanation, or of several of the same inputs beside each other.

    Raises ValueError for explanations of other inputs.
    """
    return page(document(explanations))


def write_report(explanations: Sequence[Explanation], path: str | os.PathLike[str]) -> Path:
    """Writes the page of `report_html` to a file, whole or not at all; returns its path.

    Raises ValueError for explanations of other inputs, FileNotFoundError for a folder that is not there,
    IsADirectoryError where the path is a folder.
    """
    return _write(path, lambda: report_html(explanations))


def generation_html(generation: GenerationExplanation, tokenizer: Any = None) -> str:
    """The page of a generation: a click on a generated token shows what it came from.

    tokenizer: reads the tokens; without one they are shown by their ids.
    """
    return page(generated_document(generation, tokenizer))


def write_generation_report(
    generation: GenerationExplanation, path: str | os.PathLike[str], tokenizer: Any = None
) -> Path:
    """Writes the page of `generation_html` to a file, whole or not at all; raises as `write_report`."""
    return _write(path, lambda: generation_html(generation, tokenizer))


def _write(path: str | os.PathLike[str], made: Callable[[], str]) -> Path:
    """What was at `path` stays until the new page is complete."""
    place = Path(path)
    if place.is_dir():
        raise IsADirectoryError(f"{place} is a folder: give the file to write, such as {place / 'report.html'}")
    if not place.parent.is_dir():
        raise FileNotFoundError(f"the folder {place.parent} does not exist: make it first")
    content = made()
    with new_file(place) as beside:
        beside.write_text(content, encoding="utf-8", newline="\n")
    return place
