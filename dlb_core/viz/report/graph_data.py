"""The drill-down graph of the report as data: which boxes and flows each module's picture shows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from dlb_core.kernel.ledger import Ledger
from dlb_core.viz.report.graph_groups import grouped

if TYPE_CHECKING:
    from dlb_core.viz.graph.modules import Box, Level

#: Said where the books hold no node.
NOTHING = (
    'No relevance was recorded by node, so there is no graph to draw: explain with check="raise" or check="warn" '
    '(check="ends" and check="off" keep no books by node).'
)


def graph_document(ledger: Ledger, shapes: Mapping[str, tuple[Any, ...]] | None = None) -> dict[str, Any]:
    """The graph of one ledger, ready for JSON, as `dlbGraph` of graph.js reads it.

    levels: by path (empty: the whole model) the ids of the boxes in it, those of the boxes beside it that it exchanges
    relevance with (ports), and the flows between them [from, to, units], forward. boxes: by id what is known of each;
    `opens` is the path of its own level. whole: the units that are 100 %. reason: why there is nothing to draw. Units
    have 7 digits; what is not finite is None. shapes: of the inputs, by name.
    """
    whole = ledger.seed if ledger.sums else ledger.seed_scale
    document: dict[str, Any] = {"levels": {}, "boxes": {}, "seed": _units(ledger.seed), "whole": _units(whole)}
    if not ledger.by_node:
        return {**document, "reason": NOTHING}
    from dlb_core.viz.graph.modules import levels

    found = levels(ledger, shapes=shapes)
    boxes = {name: _named(box, found.inside.get(name, "")) for name, box in found.boxes.items()}
    for module in found.levels.values():
        drawn, groups = grouped(module, boxes)
        boxes.update(groups)
        document["levels"].update((level.path, _level(level)) for level in drawn)
    document["boxes"] = {name: _box(box) for name, box in boxes.items()}
    return document


def _named(box: Box, level: str) -> Box:
    """An op of the level's own module goes by its node's name: ten boxes called `add` tell nothing apart."""
    return replace(box, label=box.id) if box.kind == "op" and box.path == level else box


def _level(level: Level) -> dict[str, Any]:
    edges = [[start, end, _units(units)] for start, end, units in level.edges]
    return {"boxes": list(level.boxes), "ports": list(level.ports), "edges": edges}


def _box(box: Box) -> dict[str, Any]:
    """What is known of a box; empty fields are left out, since a report may hold thousands."""
    fields = {
        "opens": {"module": box.path, "group": box.id}.get(box.kind),
        "op": box.op,
        "rule": box.rule,
        "pack": box.pack,
        "shape": _shape(box.shape),
        "accounts": {name: _units(units) for name, units in box.accounts.items() if units != 0},
        "folded": list(box.folded),
        "ops": box.ops,
    }
    books = {name: _units(getattr(box, name)) for name in ("into", "out", "booked", "residual")}
    told = {name: value for name, value in fields.items() if value}
    return {"label": box.label, "kind": box.kind, "path": box.path, **books, **told}


def _units(units: float) -> float | None:
    return float(f"{units:.7g}") if math.isfinite(units) else None


def _shape(shape: tuple[Any, ...]) -> str:
    """`1 × 3 × 8`; of several values one after the other, of a number "scalar"."""
    if any(isinstance(part, (tuple, list)) for part in shape):
        return ", ".join(_shape(tuple(part)) or "scalar" for part in shape if isinstance(part, (tuple, list)))
    return " × ".join(map(str, shape))
