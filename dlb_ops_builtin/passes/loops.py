"""What a loop adds into one tensor, step by step, is one sum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.rules import Program, Registry, bound_arguments, fake_tensors, op_name, write


class Loops:
    """t.index_add(i, a).index_add(j, b) becomes t.index_add(i and j, a and b), in the order of the steps.

    A loop over experts adds what each of them returned. Step by step the first ones would share what they have in
    common, at a rule's mercy; together they share as in the sum that the loop is.
    """

    name = "loops"
    order = 13
    phase = "rewrite"
    switch: str | None = None

    def run(self, program: Program, registry: Registry) -> list[str]:
        done = []
        taken: set[fx.Node] = set()
        for node in reversed(list(program.graph.nodes)):
            steps = [] if node in taken else _steps(node, program)
            if len(steps) < 2:
                continue
            taken.update(steps)
            bound = [bound_arguments(step) for step in reversed(steps)]
            arguments = {
                "into": bound[0]["self"],
                "dim": bound[0]["dim"],
                "indices": [each["index"] for each in bound],
                "sources": [each["source"] for each in bound],
                "alpha": bound[0]["alpha"],
            }
            with program.graph.inserting_before(node):
                whole = write(program.graph, _added, arguments, {"nn_module_stack": node.meta.get("nn_module_stack")})
            done.append(f"{node.name}: {len(steps)} additions at once")
            program.drop(node, whole)
            for step in steps[1:]:
                program.graph.erase_node(step)
        return done


def _added(into: Tensor, dim: int, indices: Sequence[Tensor], sources: Sequence[Tensor], alpha: Any) -> Tensor:
    return into.index_add(dim, torch.cat([*indices]), torch.cat([*sources], dim), alpha=alpha)


def _steps(node: fx.Node, program: Program) -> list[fx.Node]:
    """The additions that end with this one, last first: each into what the one before it made, and which nobody else
    reads.
    """
    steps: list[fx.Node] = []
    while _adds(node) and (
        not steps or (_alike(node, steps[0]) and len(node.users) == 1 and node not in program.outputs)
    ):
        steps.append(node)
        node = bound_arguments(node)["self"]
    return steps


def _adds(node: Any) -> bool:
    """Is this an index_add with an index of one dimension?"""
    if not isinstance(node, fx.Node) or node.op != "call_function" or op_name(node.target) != "aten::index_add.default":
        return False
    return fake_tensors(bound_arguments(node)["index"])[0].dim() == 1


def _alike(one: fx.Node, other: fx.Node) -> bool:
    mine, theirs = bound_arguments(one), bound_arguments(other)
    return bool(mine["dim"] == theirs["dim"] and mine["alpha"] == theirs["alpha"])
