"""A module as the one node that its rule is for, traced once per dtype and shapes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from dlb_core.errors import RuleError
from dlb_core.kernel.layers import collapse
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry
from dlb_core.kernel.trace import trace_export
from dlb_core.kernel.written import expand
from dlb_core.testing.bound import Bound, ModeName, bound
from dlb_core.testing.case import Case


@dataclass
class LayerPrograms:
    """The modules of the cases of one check, and their programs."""

    modules: dict[tuple[Any, ...], nn.Module] = field(default_factory=dict)
    programs: dict[tuple[Any, ...], Program] = field(default_factory=dict)

    def module(self, case: Case, arguments: Mapping[str, Any]) -> nn.Module:
        """The case's module in the dtype and on the device of its arguments; the same one every time."""
        tensors = [v for v in pytree.tree_leaves(dict(arguments)) if isinstance(v, Tensor)]
        like = next((t for t in tensors if t.is_floating_point()), torch.empty(0))
        key = (id(case), like.dtype, like.device)
        if key not in self.modules:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                made = case.module() if case.module is not None else None
            if not isinstance(made, nn.Module):
                raise TypeError(f"the case {case}: module= must be a function that returns a module, not {made!r}")
            self.modules[key] = made.to(like.device, like.dtype).eval()
        return self.modules[key]

    def bind(self, case: Case, arguments: Mapping[str, Any], mode: ModeName, registry: Registry) -> Bound:
        """The module with these arguments of its forward as one node, bound to a mode."""
        module = self.module(case, arguments)
        shapes = [tuple(v.shape) for v in pytree.tree_leaves(dict(arguments)) if isinstance(v, Tensor)]
        key = (id(module), id(registry), str(shapes))
        if key not in self.programs:
            program = trace_export(module, (), dict(arguments), dynamic_shapes=None)
            collapse(program, registry)
            expand(program, registry)
            self.programs[key] = program
        program = self.programs[key]
        inputs = program.bind_inputs((), dict(arguments))
        return bound(program, inputs, _layer_node(program, case), case.active, mode, registry=registry)


def _layer_node(program: Program, case: Case) -> fx.Node:
    layers: list[fx.Node] = [node for node in program.graph.nodes if hasattr(node.target, "dlb_op")]
    if len(layers) != 1:
        raise RuleError(f"the case {case}: its module holds {len(layers)} layers with a rule; give the layer alone")
    return layers[0]
