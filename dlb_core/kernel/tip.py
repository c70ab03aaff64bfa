"""The tip of a model that writes tokens: its last layers, which look at one position at a time.

Relevance of one token starts at one position and one entry of the vocabulary. Up to where the tip begins it is carried
for that position alone, so no seed is a table of all positions times the vocabulary.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, fx

from dlb_core.kernel.kinds import Elementwise, Linear, Sum
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.ops import fake_tensors
from dlb_core.kernel.plan import Plan, RelevanceStep
from dlb_core.kernel.run import Activations


@dataclass(frozen=True)
class Tip:
    """The part of a plan from its output to `cut`, the value that the first of these layers reads, and the rest of it.

    slots: what they read position by position, the output and `cut` among them.
    """

    output: int
    cut: int
    plan: Plan
    rest: Plan
    slots: frozenset[int]

    def at(self, activations: Activations, positions: Tensor) -> Activations:
        """The activations of one position per sample, [B]: what was [B, T, ...] is [B, 1, ...]."""
        narrow = copy.copy(activations)
        narrow.values, narrow.shapes = [*activations.values], [*activations.shapes]
        for slot in self.slots:
            shape = activations.shapes[slot]
            narrow.shapes[slot] = torch.Size((shape[0], 1, *shape[2:]))
            if activations.values[slot] is not None:
                value = activations.values[slot]
                samples = torch.arange(shape[0], device=value.device)
                narrow.values[slot] = value[samples, positions].unsqueeze(1)
        return narrow

    def seed(self, activations: Activations, token: Mapping[str, Tensor]) -> Tensor:
        """Units at one position per sample, [B, 1, V]: ``rows`` of them [B, V], or ``amounts`` [B] on the entries
        ``ids`` [B] of the vocabulary.
        """
        if "rows" in token:
            return token["rows"].unsqueeze(1)
        shape, amounts = activations.shapes[self.output], token["amounts"]
        seed = amounts.new_zeros(shape[0], shape[2])
        return seed.scatter(1, token["ids"].unsqueeze(1), amounts.unsqueeze(1)).unsqueeze(1)

    def widened(self, r: Tensor, activations: Activations, positions: Tensor) -> Tensor:
        """Relevance at the cut, [B, 1, H], laid at the positions it belongs to: [B, T, H]."""
        shape = activations.shapes[self.cut]
        wide = r.new_zeros(shape)
        index = positions.reshape(-1, 1, 1).expand(shape[0], 1, shape[2])
        return wide.scatter(1, index, r)


def find_tip(plan: Plan, output: fx.Node) -> Tip | None:
    """The tip that ends in `output`; None where the last layers do not look at one position alone."""
    layout, steps = plan.layout, {step.slot: step for step in plan.steps}
    slot, passed = layout.slots[output.name], [layout.slots[output.name]]
    while slot in steps:
        step = steps[slot]
        below = [target.slot for target in step.targets.values() if target.slot is not None]
        if len(below) != 1 or not _by_position(step, layout, below[0]):
            return None
        passed.append(slot := below[0])
        if isinstance(step.row, Linear):
            tip = frozenset(passed[:-1])
            rest = tuple(step for step in plan.steps if step.slot not in tip)
            if any(target.slot in tip for step in rest for target in step.targets.values()):
                return None  # others read the output on its way
            ahead = tuple(step for step in plan.steps if step.slot in tip)
            return Tip(passed[0], slot, _part(plan, ahead), _part(plan, rest), frozenset(passed))
    return None


def _part(plan: Plan, steps: tuple[RelevanceStep, ...]) -> Plan:
    return Plan(plan.layout, plan.mode, steps, plan.dtype)


def _by_position(step: RelevanceStep, layout: Layout, below: int) -> bool:
    """Is the value [B, T, ...] at each position made of that position alone, and of vectors or matrices of weights?"""
    source = layout.nodes[below]
    mine, theirs = (fake_tensors(node) for node in (step.node, source))
    if len(mine) != 1 or len(theirs) != 1 or not mine[0].dim() == theirs[0].dim() == 3:
        return False
    if mine[0].shape[:2] != theirs[0].shape[:2]:
        return False
    matrices = 2 if isinstance(step.row, Linear) and step.row.weight is not None else 1
    others = [t for node in step.node.all_input_nodes if node is not source for t in fake_tensors(node)]
    vectors = all(all(size == 1 for size in t.shape[:-matrices]) for t in others)
    return isinstance(step.row, (Linear, Elementwise, Sum)) and vectors
