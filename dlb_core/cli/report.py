"""`--report` and `--beside`: where the report goes, and which further modes stand in it."""

from __future__ import annotations

import argparse
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dlb_core.choices import AUTO
from dlb_core.cli.failure import UsageError
from dlb_core.cli.folder import new_folder
from dlb_core.cli.options import chosen_mode
from dlb_core.folder import new_file
from dlb_core.kernel.packs import registry

NAME = "report.html"
CONTENT = "the report: open it in a browser"


@dataclass(frozen=True)
class Report:
    """What was asked for: is there a report, in which file outside the result folder, and which modes are beside."""

    wanted: bool
    file: Path | None
    modes: tuple[Any, ...]

    @classmethod
    def parse(cls, args: argparse.Namespace, folder: Path) -> Report:
        """Reads the options off the command line. Raises `UsageError`."""
        if args.report is None:
            if args.beside:
                raise UsageError("--beside shows a further mode in the report: give --report, too")
            return cls(False, None, ())
        if args.plan:
            raise UsageError("--report tells what was explained, and --plan stops before")
        modes = tuple(chosen_mode(mode, "--beside") for mode in args.beside)
        for mode in modes:
            if mode != AUTO:  # which goes by the model
                registry().bind(mode)
        return cls(True, _file(args.report, folder), modes)

    def runs(self, what: str, mode: Any, options: dict[str, Any]) -> list[tuple[str, Any, dict[str, Any]]]:
        """What to say of each run, its mode, and the mode's options; those beside have their defaults."""
        asked: list[tuple[Any, dict[str, Any]]] = [(mode, options), *((other, {}) for other in self.modes)]
        count = f" [{{}}/{len(asked)}]" if self.modes else ""
        return [
            (f"{what} in mode {getattr(one, 'name', one)}{count.format(number)}", one, its)
            for number, (one, its) in enumerate(asked, 1)
        ]

    def place(self, folder: Path) -> Path:
        """Where it is when all is done."""
        return folder / NAME if self.file is None else self.file

    @contextlib.contextmanager
    def files(self, folder: Path) -> Iterator[tuple[Path, Path]]:
        """A folder and a file to write; both take their places when the block ends well, or neither does."""
        with contextlib.ExitStack() as stack:
            page = None if self.file is None else stack.enter_context(new_file(self.file))
            work = stack.enter_context(new_folder(folder))
            yield work, work / NAME if page is None else page


def _file(text: str, folder: Path) -> Path | None:
    """The file of ``--report FILE``; None where it is the one in the result folder."""
    if not text:
        return None
    path = Path(text)
    if path.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--report {text}: give a file that ends in .html, or --report as the last option")
    if path.resolve().parent == folder.resolve() and path.name == NAME:
        return None
    if folder.resolve() in path.resolve().parents:
        raise UsageError(f"--report {text} lies in the result folder {folder}: its name there is {NAME}")
    if path.is_dir():
        raise UsageError(f"--report {text} is a folder")
    if not path.parent.is_dir():
        raise UsageError(f"--report {text}: there is no folder {path.parent}")
    return path
