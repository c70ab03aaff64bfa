"""The books as pictures: a waterfall of the ledger, and units by layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from typing import TYPE_CHECKING

from dlb_core.kernel.ledger import Ledger
from dlb_core.ledger_lines import RESIDUAL, Line, ledger_lines
from dlb_core.viz.plots.bars import Bars, Column, reach_of, tone
from dlb_core.viz.plots.digits import MINUS, Digits
from dlb_core.viz.plots.heading import heading
from dlb_core.viz.plots.picture import GREY, Picture, compose
from dlb_core.viz.view import ledger_of, sides

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation

MOST_LINES = 25  # of the inputs, and of the accounts
FEW_ROWS, ENOUGH_ROWS, MOST_ROWS = 6, 30, 80
REMEDY = 'explain with check="raise" or check="warn"'


def plot_ledger(explanation: Explanation, *, target: int = 0) -> Picture:
    """See `Explanation.plot_ledger`."""
    ledgers = {side: ledger_of(relevance, target) for side, relevance in sides(explanation.relevance).items()}
    top = heading(explanation, "Ledger", target=target)
    if all(not ledger.inputs and not ledger.accounts for ledger in ledgers.values()):
        return compose([*top, f"no books were kept: {REMEDY}"], [])
    lines = {side: ledger_lines(ledger, MOST_LINES) for side, ledger in ledgers.items()}
    steps = {side: _steps(ledgers[side], lines[side]) for side in ledgers}
    reach = reach_of(*(ends for each in steps.values() for ends in each))
    digits = Digits.of(max(-reach[0], reach[1]))
    row = [_waterfall(side, ledgers[side], lines[side], steps[side], reach, digits) for side in ledgers]
    return compose(top, [row])


def _steps(ledger: Ledger, lines: Sequence[Line]) -> tuple[list[float], list[float]]:
    """What is left before and after each line, from the seed down to nothing."""
    left = [*accumulate((-line.units for line in lines), initial=ledger.seed)]
    return left[:-1], left[1:]


def _waterfall(
    side: str,
    ledger: Ledger,
    lines: Sequence[Line],
    steps: tuple[Sequence[float], Sequence[float]],
    reach: tuple[float, float],
    digits: Digits,
) -> Bars:
    before, after = steps
    tones = [GREY if line.account == RESIDUAL else tone(line.units, pale=not _is_input(line)) for line in lines]
    column = Column(
        "",
        [ledger.seed, *(b - a for a, b in zip(before, after, strict=True))],
        [
            [digits.exact(ledger.seed), *(digits.exact(line.units) for line in lines)],
            ["100.00 %" if ledger.sums else MINUS, *(line.share_text.replace("-", MINUS) for line in lines)],
        ],
        reach,
        width=3.6,
        starts=[0.0, *before],
        colours=["#404040", *tones],
        joined=True,
    )
    labels = ["seed", *(line.account for line in lines)]
    quiet = frozenset(i for i, text in enumerate(labels) if i and lines[i - 1].account.startswith("... "))
    return Bars(f"ledger {side}".strip(), side, labels, [column], quiet=quiet)


def _is_input(line: Line) -> bool:
    return line.account.startswith("input:") or line.account.endswith(" more inputs")


def plot_layers(explanation: Explanation, *, target: int = 0, depth: int | None = None) -> Picture:
    """See `Explanation.plot_layers`."""
    if depth is not None and depth < 1:
        raise ValueError(f"depth={depth}: choose 1 or more")
    ledgers = {side: ledger_of(relevance, target) for side, relevance in sides(explanation.relevance).items()}
    first = next(iter(ledgers.values()))
    top = heading(explanation, "Layers", target=target)
    if not first.by_node:
        return compose([*top, f"nothing was recorded by node: {REMEDY}"], [])
    books = {side: _books(ledger, [*explanation.inputs], layers(first, depth)) for side, ledger in ledgers.items()}
    names = [*next(iter(books.values()))]
    columns = []
    for part, title in (("in", "units in"), ("booked", "booked there")):
        lengths = {side: [each[name].get(part) for name in names] for side, each in books.items()}
        reach = reach_of(*lengths.values())
        digits = Digits.of(max(-reach[0], reach[1]))
        for side, mine in lengths.items():
            texts = ["" if n is None else digits.exact(n) for n in mine]
            columns.append((side, Column(", ".join(filter(None, [title, side])), mine, [texts], reach, width=1.9)))
    columns.sort(key=lambda column: [*books].index(column[0]))
    return compose(top, [[Bars("layers", "", names, [column for _, column in columns])]])


def layers(ledger: Ledger, depth: int | None = None) -> list[str]:
    """The modules at a depth (and those above it that have none inside), as they run; what lies in them is theirs.

    depth: 1 for the outermost; None: as deep as 30 of them allow, deeper where that leaves less than 6.
    """
    containers = {path for entry in ledger.by_node.values() for path in entry.modules[:-1]}
    chains = {_chain(entry.modules, containers) for entry in ledger.by_node.values()}
    counts = [len({_cut(chain, d) for chain in chains}) for d in range(1, max(map(len, chains)) + 1)]
    if depth is None:
        depth = max([1, *(d for d, count in enumerate(counts, 1) if count <= ENOUGH_ROWS)])
        if counts[depth - 1] < FEW_ROWS and depth < len(counts) and counts[depth] <= MOST_ROWS:
            depth += 1
    backwards = reversed([*ledger.by_node.values()])  # relevance flowed from the output
    return [*dict.fromkeys(_cut(_chain(entry.modules, containers), depth) for entry in backwards)]


def _chain(modules: tuple[str, ...], containers: set[str]) -> tuple[str, ...]:
    """The books that a node is in, outermost first; see `Ledger.by_module`."""
    if not modules:
        return ("",)
    return (*modules, f"{modules[-1]}.(ops)") if modules[-1] in containers else modules


def _cut(chain: tuple[str, ...], depth: int) -> str:
    return chain[min(depth, len(chain)) - 1]


def _books(ledger: Ledger, inputs: Sequence[str], paths: Sequence[str]) -> dict[str, dict[str, float]]:
    """Of the inputs and layers in the order they run; beyond `MOST_ROWS` those that booked least are summed."""
    books = {path or "(outside modules)": each for path, each in ledger.by_module().items() if path in paths}
    books = {path: books[path] for path in (path or "(outside modules)" for path in paths) if path in books}
    small = sorted(books, key=lambda path: abs(books[path]["booked"]))[: max(0, len(books) - MOST_ROWS)]
    rest = math.fsum(books.pop(path)["booked"] for path in small)
    names = sorted(ledger.inputs, key=lambda name: inputs.index(name) if name in inputs else len(inputs))
    found = {f"input:{name}": {"in": ledger.inputs[name]} for name in names}
    return found | books | ({f"... {len(small)} more": {"booked": rest}} if small else {})
