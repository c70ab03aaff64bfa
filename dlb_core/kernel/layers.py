"""Layers with a rule of their own: the nodes of a module collapse into one node that runs them.

The model is traced as it is; then the nodes under the path of a module whose class has a rule become one node. Nothing
of the user's class is patched.
"""

from __future__ import annotations

import inspect
import logging
import operator
from collections.abc import Sequence
from typing import Any

from torch import fx

from dlb_core.kernel.layout import Layout, lay_out
from dlb_core.kernel.program import Input, Program
from dlb_core.kernel.registry import Registry
from dlb_core.kernel.run import run_forward

log = logging.getLogger("dlb")

NAMESPACE = "layer::"


def layer_op(cls: type) -> str:
    """The name under which rows for a module class are kept."""
    return f"{NAMESPACE}{cls.__module__}.{cls.__qualname__}"


class Layer:
    """A module's nodes as one function of what flows in (``input``, ``input_1``, ...) and of its parameters."""

    def __init__(self, name: str, layout: Layout, arguments: Sequence[str]) -> None:
        self.dlb_op = name
        self.__name__ = name.removeprefix(NAMESPACE)
        self.__signature__ = inspect.Signature(
            [inspect.Parameter(a, inspect.Parameter.POSITIONAL_OR_KEYWORD) for a in arguments]
        )
        self._layout = layout

    def __call__(self, *values: Any) -> Any:
        """The module's output for these values."""
        nodes = [i.node for i in self._layout.program.inputs]
        inputs = {node: value for node, value in zip(nodes, values, strict=True) if node is not None}
        outputs = run_forward(self._layout, inputs, frozenset()).outputs
        return outputs[0] if len(outputs) == 1 else tuple(outputs)


def collapse(program: Program, registry: Registry) -> None:
    """Every call of a module whose class has a row ``layer::<class>`` becomes one node."""
    groups: dict[str, tuple[str, list[fx.Node]]] = {}
    for node in program.graph.nodes:
        for key, (_, cls) in (node.meta.get("nn_module_stack") or {}).items():
            name = f"{NAMESPACE}{cls if isinstance(cls, str) else f'{cls.__module__}.{cls.__qualname__}'}"
            if name in registry.rows:
                groups.setdefault(key, (name, []))[1].append(node)
                break  # the outermost module with a rule speaks for all inside it
    for key, (name, nodes) in groups.items():
        _collapse(program, registry, key, name, nodes)
        log.info("collapsed %d nodes of %s into one layer", len(nodes), name)


def _collapse(program: Program, registry: Registry, key: str, name: str, nodes: list[fx.Node]) -> None:
    inside = set(nodes)
    outer = list(dict.fromkeys(n for node in nodes for n in node.all_input_nodes if n not in inside))
    flows = [n for n in outer if n.name not in program.parameters]
    parameters = [n for n in outer if n.name in program.parameters]
    ends = [n for n in nodes if n in program.outputs or any(user not in inside for user in n.users)]
    if not ends:
        return  # nothing outside reads it: it goes with what no output depends on
    graph = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    names = [f"input_{i}" if i else "input" for i in range(len(flows))]
    home = f"{ends[-1].meta['nn_module_stack'][key][0]}."
    names += [_argument(program.parameters[n.name].name.removeprefix(home)) for n in parameters]
    for node, label in zip((*flows, *parameters), names, strict=True):
        copies[node] = graph.placeholder(label)
        copies[node].meta = dict(node.meta)
    for node in nodes:
        copies[node] = graph.node_copy(node, copies.__getitem__)
    inputs = tuple(Input(label, copies[n]) for label, n in zip(names, (*flows, *parameters), strict=True))
    results = tuple(copies[n] for n in ends)
    inner = Program(graph, inputs, program.in_spec, None, {}, results, (), None, device=program.device)
    layer: Any = Layer(name, lay_out(inner, registry), names)
    with program.graph.inserting_after(nodes[-1]):
        one = program.graph.call_function(layer, (*flows, *parameters))
    one.meta = {"nn_module_stack": _up_to(ends[-1], key), "val": _values(ends)}
    _replace(program, one, ends)
    for node in reversed(nodes):
        program.aliases.setdefault(node.name, one.name)
        program.graph.erase_node(node)


def _replace(program: Program, one: fx.Node, ends: list[fx.Node]) -> None:
    """The readers of the old ends read the new node, or one item of it."""
    for index, end in enumerate(ends):
        new = one
        if len(ends) > 1:
            with program.graph.inserting_after(one):
                new = program.graph.call_function(operator.getitem, (one, index))
            new.meta = {"nn_module_stack": one.meta["nn_module_stack"], "val": end.meta["val"]}
        end.replace_all_uses_with(new)
        program.outputs = tuple(new if out is end else out for out in program.outputs)
        program.aliases[end.name] = new.name


def _argument(name: str) -> str:
    """A parameter's path as an argument name: ``0.weight`` -> ``p_0_weight``."""
    name = name.replace(".", "_")
    return name if name.isidentifier() else f"p_{name}"


def _up_to(node: fx.Node, key: str) -> dict[str, Any]:
    stack = node.meta["nn_module_stack"]
    keys = list(stack)
    return {k: stack[k] for k in keys[: keys.index(key) + 1]}


def _values(ends: list[fx.Node]) -> Any:
    values = [end.meta["val"] for end in ends]
    return values[0] if len(values) == 1 else tuple(values)
