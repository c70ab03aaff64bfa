"""From a traced program to a layout: passes, activity, facts, slots."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping

from dlb_core.kernel.facts import note_activity
from dlb_core.kernel.layers import collapse
from dlb_core.kernel.layout import Layout, lay_out
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry
from dlb_core.kernel.written import expand

log = logging.getLogger("dlb")


def prepare(
    program: Program, registry: Registry, *, switches: Mapping[str, bool], explain_inputs: Iterable[str] | None
) -> Layout:
    """Layers that have a rule collapse, compound ops expand, packs rewrite, activity is marked, packs note facts, slots
    are assigned.

    Raises `UnsupportedOpError` before any pass that needs rows for all active ops.
    """
    collapse(program, registry)
    expand(program, registry)
    _run(program, registry, switches, "rewrite")
    _drop_unread(program)
    note_activity(program, registry, explain_inputs)
    _run(program, registry, switches, "facts")
    return lay_out(program, registry)


def _run(program: Program, registry: Registry, switches: Mapping[str, bool], phase: str) -> None:
    for graph_pass in registry.passes:
        if graph_pass.phase == phase and (graph_pass.switch is None or switches.get(graph_pass.switch, True)):
            for note in graph_pass.run(program, registry):
                log.info("pass %s: %s", graph_pass.name, note)


def _drop_unread(program: Program) -> None:
    """Takes out what no output depends on; inputs stay, whether read or not."""
    inputs = {i.node for i in program.inputs}
    dropped = 0
    for node in reversed(list(program.graph.nodes)):
        if node.op != "output" and not node.users and node not in inputs and node not in program.outputs:
            program.parameters.pop(node.name, None)
            program.graph.erase_node(node)
            dropped += 1
    if dropped:
        log.info("dropped %d nodes that no output reads", dropped)
