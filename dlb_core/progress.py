"""How far a long work is: stages and bars on a terminal, nothing anywhere else."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Callable, Iterator
from contextvars import ContextVar

from dlb_core.plain import plain

log = logging.getLogger("dlb")

#: What shows the present stage, if there is one: bars inside it are told in its line.
_shown: ContextVar[Callable[[str], None] | None] = ContextVar("shown", default=None)


@contextlib.contextmanager
def stages() -> Iterator[Callable[[str], None]]:
    """A function that is told what is done next; it is logged (info), and a line on a terminal."""
    if not sys.stderr.isatty():
        yield log.info
        return
    from rich.console import Console
    from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True, redirect_stdout=False) as line:
        task = line.add_task("", total=None)

        def show(what: str) -> None:
            line.update(task, description=plain(what), refresh=True)

        def stage(what: str) -> None:
            log.info(what)
            show(what)

        token = _shown.set(show)
        try:
            yield stage
        finally:
            _shown.reset(token)


@contextlib.contextmanager
def progress(total: int, what: str) -> Iterator[Callable[[int], None] | None]:
    """A function that is told how much more is done; None where nobody is watching."""
    if not sys.stderr.isatty():
        yield None
        return
    if (show := _shown.get()) is not None:
        done = 0

        def told(more: int) -> None:
            nonlocal done
            done += more
            show(f"{what}: {done} of {total}")

        yield told
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda more: bar.advance(task, more)
