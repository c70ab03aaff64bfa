"""docs/faithfulness.md: what a run measured, written between two marks; the prose around them is a person's."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from .curves import Area
from .report import Record

PAGE = Path(__file__).parents[2] / "docs" / "faithfulness.md"
BEGIN = "<!-- measured: from here on written by `make faithfulness` -->"
END = "<!-- end of what was measured -->"
Cells = Iterable[object]


def write(records: list[Record], page: Path = PAGE) -> None:
    """Replaces what lies between the marks."""
    head, _, rest = page.read_text("utf-8").partition(BEGIN)
    tail = rest.partition(END)[2]
    page.write_text(f"{head}{BEGIN}\n\n{measured(records)}\n{END}{tail}", "utf-8")


def measured(records: list[Record]) -> str:
    """The generated part."""
    return "\n".join(
        part
        for part in (_problems(records), *_areas(records), _ahead(records), _likeness(records), _not_run(records))
        if part
    )


def _problems(records: list[Record]) -> str:
    rows = [
        (p.name, p.about, len(p.x), _price(records, p.name))
        for p in {r.problem.name: r.problem for r in records}.values()
    ]
    return "## Models\n\n" + _table(("model", "what it is", "samples", "default mode, seconds"), rows)


def _price(records: list[Record], problem: str) -> str:
    return next(f"{r.seconds:.1f}" for r in records if r.problem.name == problem and r.method.name == "default")


def _areas(records: list[Record]) -> Iterable[str]:
    several = [r for r in records if not r.method.one_pass]
    yield "## One pass\n\n" + _grid([r for r in records if r.method.one_pass], _area)
    yield "## Several passes\n\n" + _grid(several, _area)


def _area(record: Record, best: bool) -> str:
    if (area := record.area) is None:
        return "not run"
    digits = 3 if area.margin < 0.05 else 2
    text = f"{area.mean:.{digits}f} ± {area.margin:.{digits}f}"
    return f"**{text}**" if best else text


def _grid(records: list[Record], cell: Callable[[Record, bool], str]) -> str:
    """Methods down, problems across; the best of a column is marked."""
    problems = list(dict.fromkeys(r.problem.name for r in records))
    found = {(r.method.label, r.problem.name): r for r in records}
    best = {p: max((r for r in records if r.problem.name == p and r.area), key=_mean, default=None) for p in problems}
    labels = dict.fromkeys(
        r.method.label for r in records if any(o.area for o in records if o.method.label == r.method.label)
    )
    rows = [
        (label, *(cell(r, r is best[p]) if (r := found.get((label, p))) else "not run" for p in problems))
        for label in labels
    ]
    return _table(("method", *problems), rows)


def _mean(record: Record) -> float:
    return record.area.mean if record.area else float("-inf")


def _ahead(records: list[Record]) -> str:
    """The recommended mode of each problem's family against the best other one-pass method, sample by sample."""
    rows: list[Cells] = []
    for name in dict.fromkeys(r.problem.name for r in records):
        here = [r for r in records if r.problem.name == name and r.values is not None]
        for one_pass, ours in ((True, "auto"), (False, "integrated(auto)")):
            mine = next((r for r in here if r.method.name == ours), None)
            others = [r for r in here if r.method.source not in ("dlb", "yardstick") and r.method.one_pass == one_pass]
            if mine is None or not others:
                continue
            theirs = max(others, key=_mean)
            assert mine.values is not None
            assert theirs.values is not None
            ahead = Area.of(mine.values - theirs.values)
            rows.append((name, mine.method.label, theirs.method.label, f"{ahead.mean:+.3f} ± {ahead.margin:.3f}"))
    return (
        "## Recommended against the best other\n\n" + _table(("model", "ours", "theirs", "difference"), rows)
        if rows
        else ""
    )


def _likeness(records: list[Record]) -> str:
    ran = [r for r in records if r.area]
    return "## After shuffling the weights\n\n" + _grid(
        ran, lambda r, best: "not run" if r.area is None else f"{r.likeness:.2f}"
    )


def _not_run(records: list[Record]) -> str:
    reasons: dict[tuple[str, str], list[str]] = {}
    for r in records:
        if r.reason:
            reasons.setdefault((r.method.label, r.reason), []).append(r.problem.name)
    rows = [(label, ", ".join(problems), reason.replace("|", "/")) for (label, reason), problems in reasons.items()]
    return "## Not run\n\n" + _table(("method", "models", "reason"), rows) if rows else ""


def _table(columns: Cells, rows: Iterable[Cells]) -> str:
    lines = [list(columns)]
    lines += [["---"] * len(lines[0]), *rows]
    return "".join(f"| {' | '.join(map(str, line))} |\n" for line in lines)
