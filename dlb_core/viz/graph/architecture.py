"""The architecture: every op of the program, folded by module, with what it reads and the shape of what it gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlb_core.viz.graph.cut import Cut, cut, level_of
from dlb_core.viz.graph.dot import (
    FAINT,
    INK,
    LINE,
    PALE,
    PAPER,
    beside,
    check_options,
    lines,
    name_of,
    new_graph,
    plain,
    shape_text,
    shortened,
    size_names,
)
from dlb_core.viz.graph.drawing import Drawing
from dlb_core.viz.graph.flow import of_program
from dlb_core.viz.graph.modules import Box, Levels, folded

if TYPE_CHECKING:
    import graphviz
    import networkx as nx

MODULE, OPENED, AROUND, END = "#dfe8f1", ("#f4f6f9", "#e9eef4"), "#eceff2", "#fff4d6"


def draw_architecture(
    view: nx.DiGraph, *, module: str | None, depth: int | None, direction: str, labels: str, fold_layout: bool
) -> Drawing:
    """A program as `dlb.graph()` gives it; see `Drawn.visualize`."""
    check_options(direction, labels)
    levels = folded(of_program(view, sizes=not fold_layout), fold=fold_layout)
    seen = cut(levels, level_of(levels, module), depth)
    graph = new_graph(direction, module or "")
    sizes = size_names(box.shape for box in levels.boxes.values() if box.kind == "input")
    names = {box: f"n{i}" for i, box in enumerate((*seen.boxes, *seen.ports))}
    _fill(graph, levels, seen, seen.path, names, labels, sizes, 0)
    for port in seen.ports:
        _node(graph, names[port], levels.boxes[port], labels, sizes, around=True)
    for source, reader, _ in seen.edges:
        passive = not (levels.boxes[source].active and levels.boxes[reader].active)
        graph.edge(names[source], names[reader], **({"style": "dashed", "color": PALE} if passive else {}))
    return Drawing(graph.source)


def _fill(
    graph: graphviz.Digraph,
    levels: Levels,
    seen: Cut,
    path: str,
    names: dict[str, str],
    labels: str,
    sizes: dict[str, str],
    depth: int,
) -> None:
    """The boxes of a level; modules that are opened as frames around theirs."""
    for box in (levels.boxes[box] for box in levels.levels[path].boxes):
        if box.id in names:
            _node(graph, names[box.id], box, labels, sizes)
            continue
        with graph.subgraph(name=f"cluster_{len(box.path)}_{seen.opened.index(box.path)}") as frame:
            count = "" if labels == "short" else f"{box.ops} ops"
            frame.attr(
                label=lines(shortened(name_of(box, box.label, labels)), [count], apart=""), tooltip=plain(box.path)
            )
            frame.attr(style="rounded,filled", fillcolor=OPENED[depth % 2], color="#d3dae2", fontsize="11")
            frame.attr(margin="12", labeljust="l", fontcolor=INK)
            _fill(frame, levels, seen, box.path, names, labels, sizes, depth + 1)


def _node(
    graph: graphviz.Digraph, name: str, box: Box, labels: str, sizes: dict[str, str], *, around: bool = False
) -> None:
    called = name_of(box, box.label, labels)
    told = [] if labels == "short" else [_told(box, called, sizes)]
    fill = {"module": MODULE, "input": END, "output": END}.get(box.kind, PAPER)
    style = "rounded,filled,dashed" if around or not box.active else "rounded,filled"
    graph.node(
        name,
        lines(shortened(called), told),
        tooltip=plain(_tooltip(box)),
        fillcolor=AROUND if around else fill,
        style=style,
        color=LINE if box.kind in ("module", "op") else "#d9b64a",
        fontcolor=FAINT if around or not box.active else INK,
    )


def _told(box: Box, name: str, sizes: dict[str, str]) -> str:
    """The small line: of a module how many ops, of an op under another name which one; the shape."""
    first = f"{box.ops} ops" if box.kind == "module" else beside(box, name)
    return " · ".join(filter(None, (first, shape_text(box.shape, sizes))))


def _tooltip(box: Box) -> str:
    if box.kind == "module":
        return f"{box.path}: {box.ops} ops"
    where = f" in {box.path}" if box.path else ""
    return f"{box.id}: {box.op}{where}" if box.kind == "op" else box.label
