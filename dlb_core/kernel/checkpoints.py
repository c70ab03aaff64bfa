"""Checkpoints: what an explanation keeps between its passes when memory is short; the rest is computed again.

The forward pass is cut into stretches. Of each only what later ones read is kept; before relevance enters a stretch,
its values are computed again from there, and they are freed when it has passed. Stretches of about the same size, as
many as what is kept at the cuts is worth, make a peak that grows with the square root of the depth.
"""

from __future__ import annotations

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any

from torch import fx

from dlb_core.kernel.call import references
from dlb_core.kernel.ops import fake_tensors
from dlb_core.kernel.plan import Plan
from dlb_core.kernel.thrift import Again, Thrift

CHECKPOINTS = "checkpoints"
COUNTS = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)  # of stretches, to choose from


def checkpoints(plan: Plan) -> Thrift:
    """The checkpoints of a plan, found once."""
    if CHECKPOINTS not in plan.memo:
        flow = _flow(plan)
        cuts = min((_cut(flow, flow.weighed[-1] / count) for count in COUNTS), key=lambda cuts: _peak(flow, cuts))
        plan.memo[CHECKPOINTS] = _kept(plan, flow, cuts)
    found: Thrift = plan.memo[CHECKPOINTS]
    return found


@dataclass(frozen=True)
class _Flow:
    """A forward pass as numbers, by step: bytes of the value, its last reader, and what of it relevance reads.

    live: by step, the bytes that were made before and are read from here on. weighed: the bytes that relevance reads of
    all steps before this one.
    """

    slots: tuple[int, ...]
    made: dict[int, int]  # slot -> the step that makes it
    size: tuple[int, ...]
    last: tuple[int, ...]
    live: tuple[int, ...]
    weighed: tuple[int, ...]


def _flow(plan: Plan) -> _Flow:
    steps = plan.layout.forward
    slots = tuple(step.slot for step in steps)
    made = {slot: i for i, slot in enumerate(slots)}
    last = list(range(len(steps)))
    for i, step in enumerate(steps):
        for slot in references((step.args, dict(step.kwargs))):
            if slot in made:
                last[made[slot]] = i
    size = tuple(_bytes(step.node) for step in steps)
    changes = [0] * (len(steps) + 2)
    for i, end in enumerate(last):
        changes[i + 1] += size[i]
        changes[end + 1] -= size[i]
    weighed = accumulate((size[i] if slot in plan.reads else 0 for i, slot in enumerate(slots)), initial=0)
    return _Flow(slots, made, size, tuple(last), tuple(accumulate(changes))[: len(steps) + 1], tuple(weighed))


def _bytes(node: fx.Node) -> int:
    """The size of a node's value when it was traced."""
    total = 0
    for tensor in fake_tensors(node):
        shape: tuple[Any, ...] = tuple(tensor.shape)
        sizes = [n if isinstance(n, int) else n.node.hint or 1 for n in shape]
        total += math.prod(sizes) * tensor.element_size()
    return total


def _cut(flow: _Flow, budget: float) -> tuple[int, ...]:
    """Where to cut so that a stretch has about `budget` bytes: in its second half, where least goes across."""
    cuts = [0]
    while flow.weighed[-1] - flow.weighed[cuts[-1]] > budget:
        start = flow.weighed[cuts[-1]]
        first = max(bisect_left(flow.weighed, start + budget / 2), cuts[-1] + 1)
        end = max(bisect_right(flow.weighed, start + budget), first + 1)
        if end >= len(flow.slots):
            break
        cuts.append(min(range(first, end), key=lambda i: (flow.live[i], -i)))
    return (*cuts, len(flow.slots))


def _peak(flow: _Flow, cuts: Sequence[int]) -> int:
    """About how many bytes are held at most: what crosses the cuts, and the largest stretch."""
    crossing = sum(flow.size[i] for i in range(len(flow.slots)) if _crosses(flow, i, cuts))
    return crossing + max(flow.weighed[b] - flow.weighed[a] for a, b in pairwise(cuts))


def _crosses(flow: _Flow, i: int, cuts: Sequence[int]) -> bool:
    """Is the value of a step read beyond the stretch that makes it?"""
    return flow.last[i] >= cuts[bisect_right(cuts, i)]


def _kept(plan: Plan, flow: _Flow, cuts: Sequence[int]) -> Thrift:
    slots = flow.slots
    number = {slot for slot, node in enumerate(plan.layout.nodes) if not fake_tensors(node)}
    lasting = {plan.layout.slots[n.name] for n in plan.layout.nodes if n.op == "placeholder"}
    keep = number | {slots[i] for i in range(len(slots)) if _crosses(flow, i, cuts)}
    stretch = {slot: bisect_right(cuts, i) - 1 for slot, i in flow.made.items()}
    final = len(cuts) - 2
    for step in plan.steps:  # a step may read what its op did not; the last stretch is not computed again
        here = stretch[step.slot]
        keep |= {slot for slot in step.reads if slot in stretch and (stretch[slot] != here or here == final)}
    needs: dict[int, set[int]] = {}
    for step in plan.steps:
        needs.setdefault(stretch[step.slot], set()).update(step.reads - keep - lasting)
    rebuild: list[tuple[Again, ...]] = []
    last: dict[int, int] = {}
    entered: set[int] = set()
    for index, step in enumerate(plan.steps):
        last |= dict.fromkeys(step.reads, index)
        here = stretch[step.slot]
        again = () if here in entered else _again(plan, flow, needs[here], keep | lasting)
        entered.add(here)
        rebuild.append(again)
        last |= dict.fromkeys((slot for one in again for slot in _operands(one)), index)
    last = {slot: index for slot, index in last.items() if slot not in lasting}
    frees: list[list[int]] = [[] for _ in plan.steps]
    for slot, index in last.items():
        frees[index].append(slot)
    return Thrift(frozenset(keep), tuple(rebuild), tuple(map(tuple, frees)))


def _again(plan: Plan, flow: _Flow, needed: set[int], there: set[int]) -> tuple[Again, ...]:
    """The steps that make these values from what is there, in order; what only they read goes after its last reader."""
    found: set[int] = set()
    waiting = [flow.made[slot] for slot in needed if slot in flow.made]
    while waiting:
        i = waiting.pop()
        if i in found:
            continue
        found.add(i)
        waiting += [flow.made[slot] for slot in _read(plan, i) if slot not in there]
    order = sorted(found)
    last = {slot: i for i in order for slot in _read(plan, i)}
    passing = {flow.slots[i] for i in order} - needed
    return tuple(
        Again(plan.layout.forward[i], tuple(slot for slot in _read(plan, i) if slot in passing and last[slot] == i))
        for i in order
    )


def _read(plan: Plan, i: int) -> set[int]:
    step = plan.layout.forward[i]
    return set(references((step.args, dict(step.kwargs))))


def _operands(again: Again) -> set[int]:
    return set(references((again.step.args, dict(again.step.kwargs))))
