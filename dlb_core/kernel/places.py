"""Where every node lies in its model: in which layers, behind how many of them that have weights."""

from __future__ import annotations

from torch import fx

from dlb_core.kernel.composites import Place
from dlb_core.kernel.facts import facts
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.ops import fake_tensors, module_path, module_types, op_name

WEIGHTED = ("linear", "bilinear", "compound", "rule")  # the kinds of what may be a layer with weights


def survey(layout: Layout) -> dict[fx.Node, Place]:
    """The place of every node; one walk, linear in the number of nodes."""
    before: dict[fx.Node, int] = {}
    layers: set[fx.Node] = set()
    for node in layout.nodes:
        active = [source for source in node.all_input_nodes if facts(source).active]
        before[node] = max((before[source] + (source in layers) for source in active), default=0)
        row = layout.rows[layout.slots[node.name]]
        if row is not None and row.kind in WEIGHTED and facts(node).active and _has_weights(node):
            layers.add(node)
    last = max((before[node] for node in layers), default=0)
    places = {}
    for node in layout.nodes:
        row = layout.rows[layout.slots[node.name]]
        places[node] = Place(
            node=node.name,
            op=op_name(node.target) if node.op == "call_function" else node.op,
            kind="" if row is None else row.kind,
            tags=frozenset() if row is None else row.tags,
            module=module_path(node),
            types=module_types(node),
            first=before[node] == 0,
            depth=min(before[node] / last, 1.0) if last else 0.0,
        )
    return places


def _has_weights(node: fx.Node) -> bool:
    """Does a constant matrix (or kernel) take part?"""
    constants = (source for source in node.all_input_nodes if not facts(source).active)
    return any(tensor.dim() >= 2 for source in constants for tensor in fake_tensors(source))
