"""The program as a NetworkX graph, for analysis and drawing; made from the fx graph, never the other way."""

from __future__ import annotations

from typing import Any

import networkx as nx
import torch
from torch import Tensor, fx

from dlb_core.kernel.facts import facts
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.ops import bound_arguments, module_chain, module_path, op_name, traced_shape
from dlb_core.kernel.plan import Plan
from dlb_core.kernel.registry import Registry


def graph_view(layout: Layout, registry: Registry, plan: Plan) -> nx.DiGraph:
    """Nodes in topological order with `op`, `kind`, `rule`, `pack`, `hyperparameters` (by schema name),
    `parameters`, `shape`, `dtype`, `module`, `modules` (the paths around it, outermost first), `active`, `output`;
    edges run from a value to its reader, `argument` names it.

    Parameters are no nodes: a node lists the names of those it reads. Shapes hold symbols where sizes may change.
    """
    program = layout.program
    names = {i.node.name: i.name for i in program.inputs if i.node is not None}
    steps = {step.node.name: step for step in plan.steps}
    view: nx.DiGraph = nx.DiGraph(mode=plan.mode.name)
    for node in layout.nodes:
        if node.name in program.parameters:
            continue
        label = names.get(node.name, node.name)
        row = registry.row_at(node)
        step = steps.get(node.name)
        view.add_node(
            label,
            op="input" if node.op == "placeholder" else op_name(node.target),
            kind="input" if node.op == "placeholder" else row.kind if row else "constant",
            rule=plan.rule(step) if step else None,
            pack=(step.row.pack if step else row.pack if row else None) or None,
            hyperparameters=_hyperparameters(node),
            parameters=[program.parameters[n.name].name for n in node.all_input_nodes if n.name in program.parameters],
            shape=_shape(node.meta.get("val")),
            dtype=_dtype(node.meta.get("val")),
            module=module_path(node),
            modules=module_chain(node),
            active=facts(node).active,
            output=node in program.outputs,
        )
        if node.op == "call_function":
            for name, value in bound_arguments(node).items():
                for source in _nodes_in(value):
                    if source.name not in program.parameters:
                        view.add_edge(names.get(source.name, source.name), label, argument=name)
    return view


def with_relevance(view: nx.DiGraph, ledger: Ledger) -> None:
    """Adds what a ledger recorded: `relevance`, `booked`, `residual` and `accounts` of nodes, the `flow` of edges.

    Units that went past nodes in between (a rule that takes several as one) get an edge without an argument.
    """
    for name, data in view.nodes(data=True):
        entry = ledger.by_node.get(name)
        data["relevance"] = entry.into if entry else ledger.inputs.get(name, 0.0)
        data["booked"] = entry.booked if entry else 0.0
        data["residual"] = entry.residual if entry else 0.0
        data["accounts"] = dict(entry.accounts) if entry else {}
    nx.set_edge_attributes(view, 0.0, "flow")
    for name, entry in ledger.by_node.items():
        for source, units in entry.edges.items():
            if not view.has_edge(source, name):
                view.add_edge(source, name, argument=None)
            view.edges[source, name]["flow"] = units


def _nodes_in(value: Any) -> list[fx.Node]:
    if isinstance(value, fx.Node):
        return [value]
    if isinstance(value, (tuple, list)):
        return [node for item in value for node in _nodes_in(item)]
    return []


def _hyperparameters(node: fx.Node) -> dict[str, Any]:
    if node.op != "call_function":
        return {}
    return {name: _plain(v) for name, v in bound_arguments(node).items() if not _is_tensor_argument(v)}


def _is_tensor_argument(value: Any) -> bool:
    nodes = _nodes_in(value)
    return bool(nodes) and all(isinstance(n.meta.get("val"), (Tensor, tuple, list)) for n in nodes)


def _plain(value: Any) -> Any:
    """Numbers, text and lists of them; sizes that come out of the graph by their node's name."""
    if isinstance(value, fx.Node):
        return value.name
    if isinstance(value, (tuple, list)):
        return [_plain(v) for v in value]
    if isinstance(value, (torch.dtype, torch.device, torch.layout, torch.memory_format)):
        return str(value)
    return value


def _shape(value: Any) -> Any:
    if isinstance(value, Tensor):
        return traced_shape(value)
    return [_shape(v) for v in value] if isinstance(value, (tuple, list)) else None


def _dtype(value: Any) -> Any:
    if isinstance(value, Tensor):
        return str(value.dtype)
    return [_dtype(v) for v in value] if isinstance(value, (tuple, list)) else None
