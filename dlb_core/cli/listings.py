"""`dlb plugins`, `dlb ops`, `dlb modes`: what the packs of this environment bring."""

from __future__ import annotations

import argparse
from typing import Any

from dlb_core.cli.screen import heading, print_json, screen, show, table
from dlb_core.kernel.packs import registry

STATUS_STYLES = {"loaded": "green", "failed": "bold red", "off": "dim"}


def plugins(args: argparse.Namespace) -> int:
    """The packs, by name: version, status and why, what they bring, where they come from."""
    records = [
        {
            "pack": pack.name,
            "version": pack.version,
            "status": pack.status,
            "rows": pack.n_rows,
            "modes": pack.n_modes,
            "passes": pack.n_passes,
            "origin": pack.origin,
            "reason": pack.reason,
        }
        for pack in registry().packs
    ]
    if args.json:
        print_json(records)
        return 0
    from rich.text import Text

    rows = [
        [Text(str(v), STATUS_STYLES.get(str(v), "")) if key == "status" else v for key, v in record.items()]
        for record in records
    ]
    columns = list(records[0]) if records else ["pack", "status"]
    if not any(record["reason"] for record in records):
        columns, rows = columns[:-1], [row[:-1] for row in rows]
    show(
        screen(),
        heading(f"{len(records)} pack(s)", "DLB_PACKS switches them: none, names to load, or -name to leave out"),
        table(columns, rows, right=("rows", "modes", "passes")),
    )
    return 0


def ops(args: argparse.Namespace) -> int:
    """The ops that have a row; several rows of one op are device, dtype or mode variants."""
    found = registry()
    wanted = args.filter.lower()
    records = [
        {
            "op": row.op,
            "kind": row.kind,
            "pack": row.pack,
            "source": row.source,
            "modes": list(row.modes) if row.modes is not None else "all",
            "devices": [row.device] if row.device is not None else "all",
            "dtypes": [str(d).removeprefix("torch.") for d in row.dtypes] if row.dtypes is not None else "all",
        }
        for name in sorted(found.rows)
        if wanted in name.lower()
        for row in found.rows[name]
    ]
    if args.json:
        print_json(records)
        return 0
    console = screen()
    shown = ["op", "kind", "pack", "source", "modes", "devices"]
    if any(record["dtypes"] != "all" for record in records):
        shown.append("dtypes")
    if not records:
        total = sum(map(len, found.rows.values()))
        console.print(heading(f"no op matches {args.filter!r}", f"{total} rows in all"))
        return 0
    rows = [[_listed(record[column]) for column in shown] for record in records]
    show(console, heading(f"{len(records)} row(s)"), table(shown, rows))
    return 0


def modes(args: argparse.Namespace) -> int:
    """The modes: options with their defaults, what they do, where they come from."""
    found = registry().modes
    records = [
        {"mode": m.name, "options": dict(m.options), "summary": m.summary, "source": m.source, "pack": m.pack}
        for _, m in sorted(found.items())
    ]
    if args.json:
        print_json(records)
        return 0
    rows = [[*_mode_cells(record)] for record in records]
    show(
        screen(),
        heading(f"{len(records)} mode(s)", "for --mode and mode=; options for --option"),
        table(("mode", "options", "summary", "source", "pack"), rows),
    )
    return 0


def _mode_cells(record: dict[str, Any]) -> list[Any]:
    options = ", ".join(f"{key}={'none' if value is None else value}" for key, value in record["options"].items())
    return [record["mode"], options or "-", record["summary"], record["source"], record["pack"]]


def _listed(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
