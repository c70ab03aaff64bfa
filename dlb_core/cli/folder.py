"""The result folder: what may be replaced by a new one."""

from __future__ import annotations

import contextlib
import json
import re
from collections.abc import Iterator
from pathlib import Path

from dlb_core import explanation, folder
from dlb_core.cli.failure import UsageError
from dlb_core.pipeline import saving

HEADS = {explanation.HEAD: explanation.FORMAT, saving.HEAD: saving.FORMAT}
OURS = re.compile(
    r"(explanation/)?(explanation\.json|tensors\.safetensors)|result\.json|words\.html|report\.html|heatmap-[^/]*\.png"
    r"|explanation(/generation\.json)?"
)


def check_folder(path: Path) -> None:
    """Raises `UsageError` unless `path` is free, empty, or holds an earlier result of this command and nothing else."""
    if path.resolve() == Path.cwd():
        raise UsageError(f"--out {path} is the current folder: name one that this command may replace")
    if not path.exists():
        return
    if not path.is_dir():
        raise UsageError(f"--out {path} exists and is no folder")
    entries = sorted(entry.relative_to(path).as_posix() for entry in path.rglob("*"))
    foreign = [name for name in entries if not OURS.fullmatch(name)]
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise UsageError(
            f"--out {path} has files in it that are not ours ({', '.join(foreign[:3])}{more}): choose another folder"
        )
    if entries and not any(_is_result(path / head, kind) for head, kind in HEADS.items()):
        raise UsageError(f"--out {path} is no explanation of ours: choose another folder")


def _is_result(head: Path, kind: str) -> bool:
    try:
        document = json.loads(head.read_text("utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(document, dict) and document.get("format") == kind


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write in; it takes the place of `path`, if that is ours, when the block ends well."""
    check_folder(path)
    with folder.new_folder(path) as work:
        yield work
