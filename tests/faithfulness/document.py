"""docs/faithfulness.md: what a run measured, written between two marks; the prose around them is a person's."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch

from .curves import Area
from .methods import MANY
from .report import Record

PAGE = Path(__file__).parents[2] / "docs" / "faithfulness.md"
BEGIN = "<!-- measured: from here on written by `make faithfulness` -->"
END = "<!-- end of what was measured -->"
ELSEWHERE = ("Captum", "autograd", "zennit", "autoLRP")
SAME_PRICE = {"1": ("1", "2"), "2": ("1", "2"), MANY: (MANY,)}  # one pass is held against DeepLift's two, too
Cells = Sequence[object]


def write(records: Sequence[Record], page: Path = PAGE) -> None:
    """Replaces what lies between the marks."""
    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n\n{measured(records)}\n{END}{tail}", "utf-8")


def measured(records: Sequence[Record]) -> str:
    """The generated part."""
    few, many = ([r for r in records if r.few is cheap] for cheap in (True, False))
    parts = (
        ("Models", _models(records)),
        ("Recommended against the best other", _ahead(records)),
        ("One pass", _grid(few, _area)),
        ("Several passes", _grid(many, _area)),
        ("After shuffling the weights", _grid(records, _alike)),
        ("Not run", _not_run(records)),
    )
    return "\n".join(f"## {title}\n\n{table}" for title, table in parts if table)


def _models(records: Sequence[Record]) -> str:
    rows = {r.problem: (r.problem, r.about, r.samples, _seconds(records, r.problem)) for r in records}
    return _table(("model", "what it is", "samples", "`auto`, seconds for all of them"), rows.values())


def _seconds(records: Sequence[Record], problem: str) -> str:
    return next((f"{r.seconds:.1f}" for r in records if r.problem == problem and r.label == "dlb: auto"), "")


def _area(record: Record, best: bool) -> str:
    if (area := record.area) is None:
        return "not run"
    digits = 3 if area.margin < 0.05 else 2
    text = f"{area.mean:.{digits}f} ± {area.margin:.{digits}f}"
    return f"**{text}**" if best else text


def _alike(record: Record, best: bool) -> str:
    return f"{record.likeness:.2f}" if record.area else "not run"


def _grid(records: Sequence[Record], cell: Callable[[Record, bool], str]) -> str:
    """Methods down, models across; the best of a column is marked."""
    problems = list(dict.fromkeys(r.problem for r in records))
    found = {(r.label, r.problem): r for r in records}
    best = {p: max((r for r in records if r.problem == p and r.area), key=_mean, default=None) for p in problems}
    passes = {r.label: r.passes for r in records if r.area}

    def written(label: str, problem: str) -> str:
        record = found.get((label, problem))
        return cell(record, record is best[problem]) if record else "not run"

    rows = [(label, price, *(written(label, p) for p in problems)) for label, price in passes.items()]
    return _table(("method", "passes", *problems), rows) if rows else ""


def _mean(record: Record) -> float:
    return record.area.mean if record.area else float("-inf")


def _ahead(records: Sequence[Record]) -> str:
    """What we recommend against the best of the other tools at the same price, sample by sample."""
    rows: list[Cells] = []
    for problem in dict.fromkeys(r.problem for r in records):
        here = [r for r in records if r.problem == problem and r.area]
        best = "epsilon" if any(r.family == "tabular" for r in here) else "gamma(gamma=0.05)"
        for label in ("auto", f"integrated({best}, steps=1)", f"integrated({best})"):
            mine = next((r for r in here if r.label == f"dlb: {label}"), None)
            others = [r for r in here if mine and r.source in ELSEWHERE and r.passes in SAME_PRICE[mine.passes]]
            if mine is None or not others:
                continue
            theirs = max(others, key=_mean)
            ahead = Area.of(torch.tensor(mine.values) - torch.tensor(theirs.values))
            rows.append((problem, label, theirs.label, f"{ahead.mean:+.3f} ± {ahead.margin:.3f}", _word(ahead)))
    return _table(("model", "ours", "best of the others", "difference", ""), rows) if rows else ""


def _word(ahead: Area) -> str:
    return "level" if abs(ahead.mean) <= ahead.margin else "ahead" if ahead.mean > 0 else "behind"


def _not_run(records: Sequence[Record]) -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.reason:
            reasons.setdefault((r.label, r.reason), []).append(r.problem)
    rows = [(label, ", ".join(problems), reason.replace("|", "/")) for (label, reason), problems in reasons.items()]
    return _table(("method", "models", "reason"), rows) if rows else ""


def _table(columns: Cells, rows: Iterable[Cells]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
