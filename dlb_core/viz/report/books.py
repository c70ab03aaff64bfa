"""The books of an explanation as plain data: ledger, layers, experts and graph of one target and side."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from dlb_core.experts import ExpertLayer
from dlb_core.kernel.ledger import Ledger
from dlb_core.ledger_lines import RESIDUAL, ledger_lines
from dlb_core.viz.report.arrays import plain
from dlb_core.viz.report.graph_data import graph_document


@dataclass(frozen=True)
class Source:
    """Where the books of one target and side come from; number: which of several targets, if several."""

    ledger: Ledger
    side: str
    experts: Mapping[str, ExpertLayer]
    number: int | None

    def head(self) -> dict[str, Any]:
        """The ledger itself, which every page has room for."""
        return {
            "side": self.side,
            "seed": plain(self.ledger.seed),
            "gain": plain(self.ledger.gain),
            "lines": [_line(line.account, line.units, line.share_text) for line in ledger_lines(self.ledger)],
            "whole": "100.00 %" if self.ledger.sums else "-",
        }

    def part(self, name: str) -> Any:
        """What may be large: "layers", "experts" or "graph"."""
        if name == "layers":
            return _layers(self.ledger)
        if name == "experts":
            return [_experts(layer, self.number) for layer in self.experts.values()]
        return graph_document(self.ledger)


def written_books(sources: Sequence[Source], most: int) -> tuple[list[dict[str, Any]], list[str]]:
    """What the sections below the inputs show of each ledger, and what is said of the parts that are left out.

    most: bytes for the large parts. Layers of all ledgers come first, then experts, then graphs; from where there is no
    more room on, a part is None.
    """
    books = [source.head() for source in sources]
    notes = []
    for name, called in (("layers", "layers"), ("experts", "experts"), ("graph", "graphs")):
        for book, source in zip(books, sources, strict=True):
            made = source.part(name) if most > 0 else None
            most -= len(json.dumps(made))
            book[name] = made if most > 0 else None
        missing = sum(book[name] is None for book in books)
        if missing:
            notes.append(
                f"The {called} of {missing} of {len(books)} ledgers are left out: the page would be too large."
            )
    return books, notes


def _line(account: str, units: float, share: str) -> dict[str, Any]:
    kind = "input" if account.startswith("input:") else "residual" if account == RESIDUAL else "account"
    if account.startswith("... ") and account.endswith(" inputs"):
        kind = "input"
    return {"account": account, "kind": kind, "units": plain(units), "share": share}


def _layers(ledger: Ledger) -> list[dict[str, Any]]:
    """Modules in the order of the model, each below the one that holds it; none where no node kept books."""
    books = ledger.by_module()
    below: dict[str, dict[str, None]] = {"": {}}
    for entry in reversed([*ledger.by_node.values()]):  # relevance flows backward
        beside = f"{entry.module}.(ops)"
        path = [*entry.modules, *([beside] if entry.modules and beside in books else [])]
        for above, here in zip(["", *path], path, strict=False):
            below.setdefault(above, {})[here] = None
    rows: list[dict[str, Any]] = []
    if "" in books:
        rows.append({"path": "", "name": "(no module)", "depth": 0, **_units(books[""])})

    def walk(above: str, depth: int) -> None:
        for path in below.get(above, ()):
            name = path.removeprefix(f"{above}.") if above else path
            rows.append({"path": path, "name": name, "depth": depth, **_units(books[path])})
            walk(path, depth + 1)

    walk("", 0)
    return rows


def _units(entry: Mapping[str, float]) -> dict[str, Any]:
    return {side: plain(units) for side, units in entry.items()}


def _experts(layer: ExpertLayer, number: int | None) -> dict[str, Any]:
    units = layer.relevance if number is None else layer.relevance[number]
    return {"name": layer.name, "units": [plain(u) for u in units.double().tolist()], "load": layer.load.tolist()}
