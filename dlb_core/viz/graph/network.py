"""A NetworkX graph folded: layout ops vanish into the edges, modules below some depth become nodes."""

from __future__ import annotations

from typing import Any

import networkx as nx

from dlb_core.viz.graph.cut import check_count, cut
from dlb_core.viz.graph.flow import of_program
from dlb_core.viz.graph.modules import OUTPUT, Box, folded

UNFOLDED = 10**6  # deeper than any module


def folded_view(view: nx.DiGraph, depth: int | None, fold_layout: bool) -> nx.DiGraph:
    """The same program with fewer nodes; ops keep their names and attributes, modules are nodes by their paths.

    A module has `op` and `kind` "module", `module`, `shape`, `active`, `output`, `ops` and its units. One whose path is
    the name of a node as well is called ``path.(module)``.
    """
    if depth is not None:
        check_count("modules", depth, "leaves the outermost modules as nodes, 2 opens those")
    measured = "evaluated" in view.graph
    levels = folded(of_program(view, sizes=not fold_layout), fold=fold_layout)
    seen = cut(levels, depth=UNFOLDED if depth is None else depth)
    boxes = [levels.boxes[box] for box in seen.boxes if box != OUTPUT]
    plain = {box.id: box.label if box.kind == "input" else box.id for box in boxes if box.kind != "module"}
    taken = set(plain.values())
    names = plain | {
        box.id: f"{box.path}.(module)" if box.path in taken else box.path for box in boxes if box.kind == "module"
    }
    ends = {source for source, reader, _ in seen.edges if reader == OUTPUT}
    found: nx.DiGraph = nx.DiGraph(**view.graph)
    for box in boxes:
        whole = _of_module(box, measured) if box.kind == "module" else view.nodes[plain[box.id]]
        found.add_node(names[box.id], **{**whole, "output": box.id in ends})
    for source, reader, units in seen.edges:
        if reader != OUTPUT:
            known = view.get_edge_data(names[source], names[reader], {}) if source in plain and reader in plain else {}
            more: dict[str, Any] = {"flow": units} if measured else {}
            found.add_edge(names[source], names[reader], argument=known.get("argument"), **more)
    return found


def _of_module(box: Box, measured: bool) -> dict[str, Any]:
    units = {"relevance": box.into, "booked": box.booked, "residual": box.residual, "accounts": dict(box.accounts)}
    about = {"op": "module", "kind": "module", "module": box.path, "shape": box.shape, "active": box.active}
    return {**about, "ops": box.ops, **(units if measured else {})}
