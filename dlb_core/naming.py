"""Results by name: which slots are kept, what they are called, and why a name has none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from dlb_core.engine import Engine
from dlb_core.kernel.axes import Axis
from dlb_core.kernel.facts import facts
from dlb_core.kernel.plan import Plan


@dataclass(frozen=True)
class Naming:
    """The names of an engine's inputs and nodes, as results use them."""

    engine: Engine

    def kept(self, keep: str | Sequence[str], plan: Plan) -> frozenset[int]:
        """The slots whose relevance is kept."""
        inputs = {self.engine.layout.slots[name] for name in self.engine.input_names}
        if keep == "inputs":
            return frozenset(inputs)
        if keep == "all":
            return frozenset({step.slot for step in plan.steps} | inputs)
        if isinstance(keep, str):
            raise ValueError(f'keep={keep!r}: choose "inputs", "all", or a list of node and module names')
        return frozenset(inputs | {self.engine.layout.slots[self.engine.node(name).name] for name in keep})

    def named(self, kept: Mapping[int, Any], shapes: Sequence[Any], leading: tuple[int, ...]) -> dict[str, Any]:
        """Relevance by name: inputs first, nodes in execution order; an explained input nobody read got zero."""
        names = self.engine.input_names
        tensors: dict[str, Any] = {}
        for node in self.engine.layout.nodes:
            slot = self.engine.layout.slots[node.name]
            if slot in kept:
                tensors[names.get(node.name, node.name)] = kept[slot]
            elif node.name in names and facts(node).active:
                zeros = torch.zeros(
                    (*leading, *shapes[slot]), dtype=self.engine.dtype, device=self.engine.program.device
                )
                tensors[names[node.name]] = zeros
        return tensors

    def part(self, what: str, name: str) -> tuple[str, int, Axis]:
        """What a name's channels or heads are: the node's name, its number of dimensions, the one they lie on."""
        node, axis = self.engine.inside.channels(name) if what == "channel" else self.engine.inside.heads(name)
        return self.engine.inside.label(node), node.meta["val"].dim(), axis

    def key(self, name: str) -> str:
        """The key of results behind a name: an input's own name where a node that a pass took out was its copy."""
        resolved = self.engine.program.resolve(name)
        return self.engine.input_names.get(resolved, resolved)

    def why_not(self, name: str) -> str:
        """Why there is no relevance under a name."""
        inputs = {i.name: i.node for i in self.engine.program.inputs if i.node is not None}
        if name in inputs:
            return "this input is not explained (integers that no lookup reads): list it in explain_inputs="
        if name not in self.engine.layout.slots:
            return "no such node, module or input; see dlb.graph() for the names"
        if not facts(self.engine.layout.nodes[self.engine.layout.slots[name]]).active:
            return "this node depends on no explained input, so it carries no relevance"
        return "no relevance reaches this node in this mode, or it was not asked for with keep="
