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

MODULE, OPENED, FRAME, AROUND = "#dfe8f1", ("#f4f6f9", "#e9eef4"), "#d3dae2", "#eceff2"
END, END_LINE = "#fff4d6", "#d9b64a"


def draw_architecture(
    view: nx.DiGraph, *, module: str | None, depth: int | None, direction: str, labels: str, fold_layout: bool
) -> Drawing:
    """A program as `dlb.graph()` gives it; see `Drawn.visualize`."""
    check_options(direction, labels)
    levels = folded(of_program(view, sizes=not fold_layout), fold=fold_layout)
    seen = cut(levels, level_of(levels, module), depth)
    return Drawing(_Picture(levels, seen, labels).drawn(direction, module or ""))


class _Picture:
    """A cut through the levels, on its way to DOT."""

    def __init__(self, levels: Levels, seen: Cut, labels: str) -> None:
        self.levels, self.seen, self.labels = levels, seen, labels
        self.sizes = size_names(box.shape for box in levels.boxes.values() if box.kind == "input")
        self.names = {box: f"n{i}" for i, box in enumerate((*seen.boxes, *seen.ports))}

    def drawn(self, direction: str, title: str) -> str:
        """The source of the drawing."""
        graph = new_graph(direction, title)
        self.fill(graph, self.seen.path, 0)
        for port in self.seen.ports:
            self.node(graph, self.levels.boxes[port], around=True)
        for source, reader, _ in self.seen.edges:
            active = self.levels.boxes[source].active and self.levels.boxes[reader].active
            style = {} if active else {"style": "dashed", "color": PALE}
            graph.edge(self.names[source], self.names[reader], **style)
        return str(graph.source)

    def fill(self, graph: graphviz.Digraph, path: str, depth: int) -> None:
        """The boxes of a level; modules that are opened as frames around theirs."""
        for box in (self.levels.boxes[box] for box in self.levels.levels[path].boxes):
            if box.id in self.names:
                self.node(graph, box)
                continue
            with graph.subgraph(name=f"cluster_{self.seen.opened.index(box.path)}") as frame:
                count = "" if self.labels == "short" else f"{box.ops} ops"
                name = shortened(name_of(box, box.label, self.labels))
                frame.attr(label=lines(name, [count], apart=""), tooltip=plain(_tooltip(box)), fontsize="11")
                frame.attr(style="rounded,filled", fillcolor=OPENED[depth % 2], color=FRAME, fontcolor=INK)
                frame.attr(margin="12", labeljust="l")
                self.fill(frame, box.path, depth + 1)

    def node(self, graph: graphviz.Digraph, box: Box, *, around: bool = False) -> None:
        """One box; those around the module that is drawn stand back."""
        called = name_of(box, box.label, self.labels)
        fill = {"module": MODULE, "input": END, "output": END}.get(box.kind, PAPER)
        graph.node(
            self.names[box.id],
            lines(shortened(called), [] if self.labels == "short" else [self.told(box, called)]),
            tooltip=plain(_tooltip(box)),
            fillcolor=AROUND if around else fill,
            style="rounded,filled,dashed" if around or not box.active else "rounded,filled",
            color=LINE if box.kind in ("module", "op") else END_LINE,
            fontcolor=FAINT if around or not box.active else INK,
        )

    def told(self, box: Box, name: str) -> str:
        """The small line: of a module how many ops, of an op under another name which one; the shape."""
        first = f"{box.ops} ops" if box.kind == "module" else beside(box, name)
        return " · ".join(filter(None, (first, shape_text(box.shape, self.sizes))))


def _tooltip(box: Box) -> str:
    if box.kind == "module":
        return f"{box.path}: {box.ops} ops"
    where = f" in {box.path}" if box.path else ""
    return f"{box.id}: {box.op}{where}" if box.kind == "op" else box.label
