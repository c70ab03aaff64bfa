"""What goes to stdout: rich tables for people, one JSON document for programs."""

from __future__ import annotations

import io
import json
import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from dlb_core.plain import plain

LINES = box.Box("    \n    \n ── \n    \n ── \n    \n    \n    \n")  # under the header, and where a section ends
PIPED_WIDTH = 10_000  # nobody reads a pipe through a window: no column is cut or folded


def screen() -> Console:
    """A console on stdout: the terminal's width and colours, or neither when it is piped."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file name may hold what the encoding cannot say
    console = Console(file=sys.stdout, highlight=False, markup=False, emoji=False)
    return (
        console
        if console.is_terminal
        else Console(file=sys.stdout, highlight=False, markup=False, emoji=False, width=PIPED_WIDTH)
    )


def heading(title: str, detail: str = "") -> Text:
    """A title in bold, and what there is to say about it."""
    return Text.assemble((plain(title), "bold"), (f"  {plain(detail)}" if detail else "", "dim"))


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[Any]],
    *,
    right: Sequence[str] = (),
    whole: Sequence[str] = (),
    total: bool = False,
) -> Table:
    """A table of plain texts; the columns in `right` are numbers, those in `whole` are not folded while another can be,
    `total` sets the last row apart.
    """
    made = Table(box=LINES, header_style="dim", show_edge=False, pad_edge=False, padding=(0, 2, 0, 0))
    for name in columns:
        made.add_column(name, justify="right" if name in right else "left", overflow="fold", no_wrap=name in whole)
    cells = [[_cell(value) for value in row] for row in rows]
    for index, row in enumerate(cells):
        last = total and index == len(cells) - 1
        made.add_row(*row, style="bold" if last else None, end_section=total and index == len(cells) - 2)
    return made


def show(console: Console, title: Text, body: Table | None = None) -> None:
    """A block: its title, its table, an empty line."""
    console.print(title)
    if body is not None:
        console.print(body)
    console.print()


def print_json(document: Any) -> None:
    """One JSON document on stdout; what JSON cannot say (NaN, infinities) becomes null."""
    sys.stdout.write(json.dumps(_clean(document), indent=2, allow_nan=False) + "\n")


def _cell(value: Any) -> Text:
    return value if isinstance(value, Text) else Text("" if value is None else plain(str(value)))


def _clean(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(k): _clean(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [_clean(v) for v in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, (str, int, type(None))) else str(value)
