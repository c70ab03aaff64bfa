"""The nodes that matter most: coloured by relevance, joined by edges as wide as what flowed along them."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from dlb_core.viz.graph.dot import (
    FAINT,
    LINE,
    PAPER,
    aside,
    beside,
    check_options,
    fills,
    lines,
    name_of,
    new_graph,
    plain,
    shortened,
    units_text,
    width,
)
from dlb_core.viz.graph.drawing import Drawing
from dlb_core.viz.graph.modules import Box, levels
from dlb_core.viz.graph.ways import Group, ways

if TYPE_CHECKING:
    import graphviz

    from dlb_core.kernel.ledger import Ledger

UP, DOWN = "#d9745f", "#5b93c7"  # edges that carry positive and negative units
SMALL = 1e-3  # of the seed: what is booked below it is not worth a line


def draw_strongest(
    ledger: Ledger, *, title: str, top_k: int, direction: str, labels: str, fold_layout: bool
) -> Drawing:
    """The strongest nodes of a ledger; see `Drawn.visualize_dlbacktrace`."""
    check_options(direction, labels)
    program = levels(ledger, fold=fold_layout)
    chosen = ways(program, top_k)
    ops = [box for box in program.boxes.values() if box.kind == "op"]
    drawn = sum(program.boxes[box].kind == "op" for box in chosen.boxes)
    whole = ledger.seed_scale
    note = f"{drawn} of {len(ops)} nodes, seed {units_text(ledger.seed, whole)} units"
    graph = new_graph(direction, title, note)
    boxes = [program.boxes[box] for box in chosen.boxes]
    names = {box.id: f"n{i}" for i, box in enumerate(boxes)} | {g.id: f"g{i}" for i, g in enumerate(chosen.groups)}
    for box, (fill, ink) in zip(boxes, fills([box.into for box in boxes]), strict=True):
        _node(graph, names[box.id], box, labels, fill, ink, whole)
    for group in chosen.groups:
        _group(graph, names[group.id], group, whole)
    most = max([abs(units) for _, _, units in chosen.edges] + [abs(p[2]) for p in chosen.passages], default=0.0)
    branching = _branching([e[:2] for e in chosen.edges] + [p[:2] for p in chosen.passages])
    for source, reader, units in chosen.edges:
        shown = units_text(units, whole) if source in branching or reader in branching else ""
        _edge(graph, names[source], names[reader], units, most, whole, shown, labels)
    for source, reader, units, count in chosen.passages:
        shown = f"{units_text(units, whole)} via {count} op{'s' * (count > 1)}"
        _edge(graph, names[source], names[reader], units, most, whole, shown, labels, dashed=True)
    return Drawing(graph.source)


def _branching(edges: list[tuple[str, ...]]) -> set[str]:
    """The boxes whose units come from several places or go to several."""
    sides = (Counter(edge[end] for edge in edges) for end in (0, 1))
    return {box for side in sides for box, count in side.items() if count > 1}


def _node(graph: graphviz.Digraph, name: str, box: Box, labels: str, fill: str, ink: str, whole: float) -> None:
    end = box.kind != "op"
    called = name_of(box, box.path or box.label, labels)
    told = "" if labels == "short" else beside(box, called)
    booked = f"booked {units_text(box.booked)}" if abs(box.booked) > SMALL * whole and labels != "short" else ""
    graph.node(
        name,
        lines(f"{shortened(called)}   {units_text(box.into, whole)}", [told, booked], ink),
        tooltip=plain(f"{box.id.partition(':')[2] or box.id}: {box.into:.6g} units, booked {box.booked:.6g}"),
        fillcolor=fill,
        fontcolor=ink,
        color=LINE,
        shape="box",
        style="filled" if end else "rounded,filled",
    )


def _group(graph: graphviz.Digraph, name: str, group: Group, whole: float) -> None:
    booked = f"booked {units_text(group.booked)}" if abs(group.booked) > SMALL * whole else ""
    some = ", ".join(group.ops[:20]) + (", …" if len(group.ops) > 20 else "")
    graph.node(
        name,
        aside(", ".join(filter(None, (f"{len(group.ops)} more op{'s' * (len(group.ops) > 1)}", booked)))),
        tooltip=plain(some),
        style="rounded,dashed",
        fillcolor=PAPER,
        color=FAINT,
        margin="0.1,0.05",
    )


def _edge(
    graph: graphviz.Digraph,
    source: str,
    reader: str,
    units: float,
    most: float,
    whole: float,
    shown: str,
    labels: str,
    *,
    dashed: bool = False,
) -> None:
    points = width(units, most)
    colour = LINE if abs(units) <= 1e-6 * whole else DOWN if units < 0 else UP
    graph.edge(
        source,
        reader,
        label=aside(shown, points) if shown and labels != "short" else None,
        penwidth=f"{points:.2f}",
        color=colour,
        style="dashed" if dashed else None,
        tooltip=plain(f"{units:.6g} units"),
    )
