"""What family a model is of, read off its graph: which mode suits it (`mode="auto"`)."""

from __future__ import annotations

from torch import fx

from dlb_core.choices import FAMILIES
from dlb_core.kernel.facts import facts
from dlb_core.kernel.kinds import Attention, Bilinear
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.unrolled import Unrolled

DECODER, ENCODER, VISION_TRANSFORMER, VISION, RECURRENT, TABULAR = FAMILIES


def family(layout: Layout, *, causal: bool) -> str:
    """One of `FAMILIES`. causal: the model predicts the next token.

    Of the others one with attention is a vision transformer when convolutions (of patches) take part, else an encoder;
    without attention convolutions make it vision, recurrent ops recurrent.
    """
    nodes = [node for node in layout.nodes if facts(node).active and node.op == "call_function"]
    rows = {node: row for node in nodes if (row := layout.rows[layout.slots[node.name]]) is not None}
    attends = any(isinstance(row, Attention) or _weighs(node) for node, row in rows.items() if _is_matrix(row))
    convolves = any("convolution" in row.tags for row in rows.values())
    if causal:
        return DECODER
    if attends:
        return VISION_TRANSFORMER if convolves else ENCODER
    if convolves:
        return VISION
    return RECURRENT if any(isinstance(row, Unrolled) for row in rows.values()) else TABULAR


def _is_matrix(row: object) -> bool:
    return isinstance(row, (Attention, Bilinear))


def _weighs(node: fx.Node) -> bool:
    """A matrix product whose one side is a gate: attention, written out."""
    return bool(facts(node).gates)
