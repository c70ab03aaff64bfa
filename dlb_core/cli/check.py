"""`dlb check`: the conformance kit on every rule of a pack."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from dlb_core.cli.failure import FAILED, UsageError
from dlb_core.cli.models import user_code
from dlb_core.cli.screen import heading, print_json, screen, show, table
from dlb_core.testing.pack import find_pack
from dlb_core.testing.report import Report

STYLES = {"passed": "green", "failed": "bold red", "skipped": "dim"}


def check(args: argparse.Namespace) -> int:
    """Which properties each rule holds, breaks, or was not asked for; `FAILED` if one is broken."""
    with user_code(str(Path.cwd())):
        try:
            pack = find_pack(args.pack)
        except LookupError as error:
            raise UsageError(str(error), hint="see: dlb plugins") from None
        reports = list(pack.reports(args.filter))
    failed = [report for report in reports if report.error is not None]
    if args.json:
        print_json([_record(report) for report in reports])
        return FAILED if failed else 0
    console = screen()
    counts = {status: sum(report.status == status for report in reports) for status in STYLES}
    title = f"pack {pack.name}: {len(reports)} rule(s)"
    detail = ", ".join(f"{count} {status}" for status, count in counts.items() if count)
    if not reports:
        detail = f"none matches {args.filter!r}" if args.filter else "it brings none"
    rows = [_cells(report) for report in reports]
    columns = ("op", "kind", "result", "properties that hold", "broken", "not asked, and why")
    show(console, heading(title, detail), table(columns, rows) if rows else None)
    for report in failed:
        console.print(str(report.error))
        console.print()
    return FAILED if failed else 0


def _cells(report: Report) -> list[Any]:
    from rich.text import Text

    broken = report.error.broken if report.error is not None else ""
    held = ", ".join(report.passed)
    return [report.rule, report.kind, Text(report.status, STYLES[report.status]), held, broken, _reasons(report)]


def _reasons(report: Report) -> str:
    """The skipped properties, those with the same reason together."""
    together: dict[str, list[str]] = {}
    for name, reason in report.skipped.items():
        together.setdefault(reason, []).append(name)
    return "; ".join(f"{', '.join(names)}: {reason}" for reason, names in together.items())


def _record(report: Report) -> dict[str, Any]:
    error = report.error
    return {
        "op": report.rule,
        "kind": report.kind,
        "pack": report.pack,
        "result": report.status,
        "cases": report.cases,
        "passed": list(report.passed),
        "failed": None
        if error is None
        else {"property": error.broken, "mode": error.mode, "case": error.case, "why": error.why},
        "skipped": dict(report.skipped),
    }
