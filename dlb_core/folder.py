"""A folder of results, or a file, written beside its place and moved there whole, or not at all."""

from __future__ import annotations

import contextlib
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A folder to write in; it takes the place of `path` when the block ends well, and is gone when it does not.

    What was at `path` is replaced: who calls this has made sure that it may be.
    """
    path = path.resolve()  # through a link to where it leads, so that the link stays
    made = [parent for parent in path.parents if not parent.exists()]
    work: Path | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        beside.mkdir()  # with the permissions of any new folder, which tempfile's do not have
        work = beside
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


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[Path]:
    """A name to write a file under; it takes the place of `path` when the block ends well, and is gone when not.

    The folder must be there already.
    """
    path = path.resolve()
    work = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
    try:
        yield work
        work.replace(path)
    except BaseException:
        work.unlink(missing_ok=True)
        raise
