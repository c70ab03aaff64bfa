"""The result folder: written beside its place and moved there whole, or not at all."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

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
    """A folder to write in; it takes the place of `path` when the block ends well, and is gone when it does not."""
    check_folder(path)
    path = path.resolve()  # through a link to where it leads, so that the link stays
    made = [parent for parent in path.parents if not parent.exists()]
    work: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{path.name}-", dir=path.parent))
        yield work
        _take_place(work, path)
    except BaseException:
        if work is not None:
            shutil.rmtree(work, ignore_errors=True)
        for parent in made:
            with contextlib.suppress(OSError):  # somebody else has put something there
                parent.rmdir()
        raise


def _take_place(work: Path, path: Path) -> None:
    """`work` becomes `path`; what was there goes only when the new one is in place."""
    if not path.exists():
        work.rename(path)
        return
    old = work.with_name(f"{work.name}.old")
    path.rename(old)
    try:
        work.rename(path)
    except BaseException:
        old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)
