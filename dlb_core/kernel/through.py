"""Conditions on the way of relevance: only what passes through chosen nodes goes on, the rest is booked.

A path from the seed to an input is kept when it passes through the nodes that are named. Where two of them lie on one
path it must pass both; where they lie beside each other, one of them. So the nodes stand in layers: a node is one layer
below the lowest named node above it. Relevance that has a layer before it is dropped where it takes a way that leads to
no node of that layer. After a layer everything that still flows has passed it, so one pass over the plan is enough.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

from dlb_core.kernel.plan import Plan


@dataclass(frozen=True)
class Through:
    """What is dropped on the way, and under which account.

    masks: slot -> what of its relevance goes on (1 or 0). cuts: (slot of a step, slot of an operand) -> the account of
    what would go there. accounts: slot -> the account of what its mask drops.
    """

    masks: Mapping[int, Tensor]
    cuts: Mapping[tuple[int, int], str]
    accounts: Mapping[int, str]


def through(plan: Plan, starts: Sequence[int], names: Mapping[int, str], masks: Mapping[int, Tensor]) -> Through:
    """The conditions that relevance from `starts` passes through the slots in `names`, and there through `masks`.

    names: slot -> what the books call it. Raises ValueError for one that no relevance reaches from there.
    """
    slots = list(names)
    bits = {slot: 1 << i for i, slot in enumerate(slots)}
    below = _below(plan, bits)
    for slot in slots:
        if slot not in starts and not any(below.get(start, 0) & bits[slot] for start in starts):
            raise ValueError(f"through names {names[slot]!r}, but no relevance reaches it in mode {plan.mode.name!r}")
    layers = _layers(bits, below)
    cuts: dict[tuple[int, int], str] = {}
    for step in plan.steps:
        layer = next((layer for layer in layers if below[step.slot] & layer), 0)
        missed = [names[slot] for slot in slots if below[step.slot] & layer & bits[slot]]
        for target in step.targets.values():
            reached = target.slot is not None and (bits.get(target.slot, 0) | below.get(target.slot, 0)) & layer
            if layer and target.slot is not None and not reached:
                cuts[step.slot, target.slot] = _account(*missed)
    return Through(masks, cuts, {slot: _account(names[slot]) for slot in masks})


def _account(*names: str) -> str:
    return f"through:{'|'.join(names)}"


def _below(plan: Plan, bits: Mapping[int, int]) -> dict[int, int]:
    """Slot -> the named nodes that relevance reaches from it."""
    below: dict[int, int] = {}
    for step in reversed(plan.steps):
        reached = 0
        for target in step.targets.values():
            if target.slot is not None:
                reached |= bits.get(target.slot, 0) | below.get(target.slot, 0)
        below[step.slot] = reached
    return below


def _layers(bits: Mapping[int, int], below: Mapping[int, int]) -> list[int]:
    """The named nodes by how many of them lie above, each layer as one number."""
    depth: dict[int, int] = {}
    waiting = set(bits)
    while waiting:
        top = {slot for slot in waiting if not any(below.get(o, 0) & bits[slot] for o in waiting if o != slot)}
        depth |= dict.fromkeys(top, len(set(depth.values())))
        waiting -= top
    count = len(set(depth.values()))
    return [sum(bits[slot] for slot, at in depth.items() if at == layer) for layer in range(count)]
