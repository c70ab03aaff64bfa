"""From an error to one clean message on stderr and an exit code; what the library logs goes there too."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator

from dlb_core.errors import DLBError, InputMismatchError, ModelLoadError, UntrustedFileError
from dlb_core.plain import plain

FAILED, USAGE, INTERRUPTED = 1, 2, 130


class UsageError(DLBError):
    """What was typed, or a file that was named, cannot be used."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ModelError(DLBError):
    """The user's code failed before there was a model."""


def exit_code(error: Exception) -> int:
    """2 for what the user can mend on the command line, 1 for all else."""
    mendable = isinstance(error, (UsageError, InputMismatchError, ModelLoadError, UntrustedFileError, ValueError))
    return USAGE if mendable else FAILED


def message(error: Exception) -> str:
    """The error in words; one that nobody foresaw says its type and how to see more."""
    if isinstance(error, OSError) and error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    if isinstance(error, (DLBError, ValueError, OSError)):
        return str(error)
    return f"{type(error).__name__}: {error} (unforeseen: --debug shows the traceback)"


@contextlib.contextmanager
def warnings_to_stderr(level: int, *, verbose: bool) -> Iterator[None]:
    """The library's log on stderr while a command runs: warnings, with `verbose` what it does as well."""
    log = logging.getLogger("dlb")
    handler = _Stderr()
    handler.setFormatter(_Plain("dlb: %(levelname)s: %(message)s"))
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO if verbose else level)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


class _Stderr(logging.Handler):
    """Writes to what stderr is now: while a stage is shown, above its line."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(f"{self.format(record)}\n")


class _Plain(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = super().format(record)
        return plain(line.replace(record.levelname, record.levelname.lower(), 1), keep="\n")
