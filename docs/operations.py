"""Writes operations.md, the list of what the built-in pack covers: `make operations`."""

from __future__ import annotations

import sys
from collections import Counter
from importlib import import_module, metadata
from itertools import groupby
from pathlib import Path
from typing import Any

from dlb_core.cli.listings import operations
from dlb_core.kernel.packs import GROUP, load_registry

PAGE = Path(__file__).with_name("operations.md")
HEAD = """\
# Operations

<!-- Written by `make operations`; change a row and run it again. -->

The built-in pack has {rows} rows. A name without an overload (`aten::relu`) stands for all of them. `dlb ops` lists
what your environment has, other packs included, each with the line it is written in; the kinds are explained in
[Architecture](architecture.md).

"""


def page() -> str:
    """The whole document, from the rows."""
    records = sorted(operations(load_registry(metadata.entry_points(group=GROUP), switch="builtin")), key=_place)
    kinds = Counter(record["kind"] for record in records)
    parts = [HEAD.format(rows=len(records)), _table(("kind", "rows"), kinds.most_common())]
    for module, family in groupby(records, key=_module):
        members = list(family)
        title = module.rpartition(".")[2].replace("_", " ").capitalize()
        parts.append(f"\n## {title} ({len(members)})\n\n{_purpose(module)} In `{module}`.\n\n")
        columns = ("op", "kind", "modes", "devices")
        parts.append(_table(columns, [[f"`{r['op']}`", *(_said(r[name]) for name in columns[1:])] for r in members]))
    return "".join(parts)


def _place(record: dict[str, Any]) -> tuple[str, str]:
    return _module(record), record["op"]


def _module(record: dict[str, Any]) -> str:
    """Where a row is written, without the line: that would change with every edit."""
    return str(record["source"]).partition(":")[0]


def _purpose(module: str) -> str:
    """The first line of the module's own description."""
    return (import_module(module).__doc__ or "").partition("\n")[0]


def _said(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)


def _table(columns: tuple[str, ...], rows: list[Any]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    sys.stdout.write(f"wrote {PAGE}\n")
