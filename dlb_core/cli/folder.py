"""The result folder: what may be replaced by a new one."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from dlb_core import folder
from dlb_core.cli.failure import UsageError
from dlb_core.explanation import FORMAT, HEAD, TENSORS

PICTURES = re.compile(r"heatmap-.*\.png")


def check_folder(path: Path) -> None:
    """Raises `UsageError` unless `path` is free, empty, or holds an earlier result of this command and nothing else."""
    if path.resolve() == Path.cwd():
        raise UsageError(f"--out {path} is the current folder: name one that this command may replace")
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError(f"--out {path} exists and is no folder")
    entries = sorted(path.iterdir())
    foreign = [e.name for e in entries if e.name not in (HEAD, TENSORS) and not PICTURES.fullmatch(e.name)]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise UsageError(
            f"--out {path} has files in it that are not ours ({', '.join(foreign[:3])}{more}): choose another folder"
        )
    if entries and not _is_explanation(path / HEAD):
        raise UsageError(f"--out {path} is no explanation of ours: choose another folder")


def _is_explanation(head: Path) -> bool:
    try:
        document = json.loads(head.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == FORMAT


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write in; it takes the place of `path`, if that is ours, when the block ends well."""
    check_folder(path)
    with folder.new_folder(path) as work:
        yield work
