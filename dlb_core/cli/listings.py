"""`dlb plugins`, `dlb ops`, `dlb modes`: what the packs of this environment bring."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterable
from typing import Any

from dlb_core.cli.screen import heading, print_json, screen, show, table
from dlb_core.kernel.packs import registry
from dlb_core.kernel.registry import Registry

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
    records = [record for record in operations(found) if args.filter.lower() in str(record["op"]).lower()]
    if args.json:
        print_json(records)
        return 0
    console = screen()
    if not records:
        console.print(heading(f"no op matches {args.filter!r}", f"{len(operations(found))} rows in all"))
        return 0
    homes = {pack: _common_package(r["source"] for r in records if r["pack"] == pack) for pack in _packs(records)}
    columns, same = ["op", "kind", "source"], []
    for name in ("pack", "modes", "devices", "dtypes"):  # what is the same everywhere is said once
        values = {_listed(record[name]) for record in records}
        if len(values) > 1:
            columns.append(name)
        else:
            same.append(f"{name}: {values.pop()}")
    if len(homes) == 1 and (package := next(iter(homes.values()))):
        columns[2] = f"source in {package}"
    rows = [[_cell(name.partition(" in ")[0], record, homes) for name in columns] for record in records]
    show(console, heading(f"{len(records)} row(s)", "   ".join(same)), table(columns, rows, whole=("op", "kind")))
    return 0


def _packs(records: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(record["pack"] for record in records))


def _cell(name: str, record: dict[str, Any], homes: dict[str, str]) -> str:
    """What a column shows of a row: where it is written within its pack, dtypes as short as they go."""
    text = _listed(record[name])
    if name == "source":
        return text.removeprefix(f"{homes[record['pack']]}.")
    if name == "dtypes":
        for long, short in (("bfloat", "bf"), ("float", "f"), ("complex", "c")):
            text = text.replace(long, short)
    return text


def _common_package(sources: Iterable[str]) -> str:
    """The package that all of these modules lie in; empty where there is none."""
    packages = [source.split(".")[:-1] for source in sources]
    shared = itertools.takewhile(lambda names: len(set(names)) == 1, zip(*packages, strict=False))
    return ".".join(names[0] for names in shared)


def operations(found: Registry) -> list[dict[str, Any]]:
    """Every row by the name of its op: kind, pack, where it is written, modes, devices and dtypes ("all" or a list)."""
    return [
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
        for row in found.rows[name]
    ]


def modes(args: argparse.Namespace) -> int:
    """The modes: options with their defaults, what they do, where they come from."""
    found = registry().modes
    records = [
        {
            "mode": m.name,
            "options": dict(m.options),
            "summary": m.summary,
            "auto for": list(m.suits),
            "source": m.source,
            "pack": m.pack,
        }
        for _, m in sorted(found.items())
    ]
    if args.json:
        print_json(records)
        return 0
    rows = [[*_mode_cells(record)] for record in records]
    show(
        screen(),
        heading(f"{len(records)} mode(s)", "for --mode and mode=; options for --option"),
        table(("mode", "options", "summary", "auto for", "source", "pack"), rows),
    )
    return 0


def _mode_cells(record: dict[str, Any]) -> list[Any]:
    options = ", ".join(f"{key}={'none' if value is None else value}" for key, value in record["options"].items())
    suits = ", ".join(record["auto for"]) or "-"
    return [record["mode"], options or "-", record["summary"], suits, record["source"], record["pack"]]


def _listed(value: Any) -> str:
    return ", ".join(value) if isinstance(value, list) else str(value)
