"""The books of an explanation as plain data: ledger, layers, experts and graph of one target and side."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlb_core.experts import ExpertLayer
from dlb_core.kernel.ledger import Ledger
from dlb_core.ledger_lines import RESIDUAL, ledger_lines
from dlb_core.viz.report.arrays import plain
from dlb_core.viz.report.graph_data import graph_document


def book(ledger: Ledger, side: str, experts: Mapping[str, ExpertLayer], number: int | None) -> dict[str, Any]:
    """What the sections below the inputs show of one ledger.

    side: which of two maps, of a contrastive mode. number: which of several targets the experts' units are, if several.
    """
    return {
        "side": side,
        "seed": plain(ledger.seed),
        "gain": plain(ledger.gain),
        "lines": [_line(line.account, line.units, line.share_text) for line in ledger_lines(ledger)],
        "whole": "100.00 %" if ledger.sums else "-",
        "layers": _layers(ledger),
        "experts": [_experts(layer, number) for layer in experts.values()],
        "graph": graph_document(ledger),
    }


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
