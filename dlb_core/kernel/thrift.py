"""What an explanation keeps between its two passes: what is cheap to make again is made again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from dlb_core.kernel.call import references
from dlb_core.kernel.kinds import Move
from dlb_core.kernel.layout import ForwardStep
from dlb_core.kernel.ops import size_hint
from dlb_core.kernel.plan import Plan

THRIFT = "thrift"
LONGEST = 5  # steps after one another that are made again for one value


class Again(NamedTuple):
    """A forward step to run again, and the values that nobody reads after it."""

    step: ForwardStep
    frees: tuple[int, ...] = ()


@dataclass(frozen=True)
class Thrift:
    """What outlives the forward pass, and what happens to it.

    keep: the slots that stay. rebuild, frees: by relevance step, what is made again before it and what nobody reads
    after it.
    """

    keep: frozenset[int]
    rebuild: tuple[tuple[Again, ...], ...]
    frees: tuple[tuple[int, ...], ...]


def thrift(plan: Plan) -> Thrift:
    """The thrift of a plan, found once."""
    if THRIFT not in plan.memo:
        plan.memo[THRIFT] = _thrift(plan)
    found: Thrift = plan.memo[THRIFT]
    return found


def _thrift(plan: Plan) -> Thrift:
    """An activation is made again when its kind is cheap (pointwise, a move) and its operands are kept anyway, are made
    again themselves, or are a little beside it (one weight for a whole row), so that they are kept instead.

    A chain of moves may also be made again from a root that is smaller than its end (keys that were repeated for
    grouped queries); the root is then kept instead.
    """
    lasting = frozenset(plan.layout.slots[n.name] for n in plan.layout.nodes if n.op == "placeholder")
    recipes, keep = _recipes(plan, lasting)
    rebuild: list[tuple[Again, ...]] = []
    last: dict[int, int] = {}
    made: set[int] = set()
    for index, step in enumerate(plan.steps):
        here = [s for slot in sorted(step.reads) for s in recipes.get(slot, ()) if s.slot not in made]
        rebuild.append(tuple(Again(step) for step in dict.fromkeys(here)))
        made.update(s.slot for s in here)
        last |= dict.fromkeys(step.reads, index)
        for again in here:
            last |= dict.fromkeys((again.slot, *_operands(again)), index)
    frees: list[list[int]] = [[] for _ in plan.steps]
    for slot, index in last.items():
        if slot not in lasting:
            frees[index].append(slot)
    return Thrift(frozenset(keep), tuple(rebuild), tuple(map(tuple, frees)))


def _operands(step: ForwardStep) -> set[int]:
    return set(references((step.args, dict(step.kwargs))))


def _recipes(plan: Plan, lasting: frozenset[int]) -> tuple[dict[int, tuple[ForwardStep, ...]], set[int]]:
    """Slot -> the steps that make it again, and what has to be kept for all of them; `lasting` outlives the call."""
    layout = plan.layout
    forward = {step.slot: step for step in layout.forward}
    recipes: dict[int, tuple[ForwardStep, ...]] = {}
    keep: set[int] = set()
    for slot in sorted(plan.reads):
        row = layout.rows[slot]
        if row is not None and row.cheap:
            steady = lasting | keep | {s for s in plan.reads if s not in recipes and s < slot}
            steps, missing = _cheaply(plan, forward, slot, steady, LONGEST)
            if _is_little(plan, missing, slot):
                recipes[slot] = steps
                keep |= missing
            elif (chain := _moves_from_smaller(plan, forward, slot)) is not None:
                recipes[slot] = chain
                keep |= {s for again in chain for s in _operands(again)} - {again.slot for again in chain}
    return recipes, keep | (plan.reads - recipes.keys())


def _cheaply(
    plan: Plan, forward: dict[int, ForwardStep], slot: int, steady: set[int] | frozenset[int], most: int
) -> tuple[tuple[ForwardStep, ...], set[int]]:
    """The steps that make a value from what is steady by cheap kinds, `most` deep; and what else they read."""
    steps: dict[ForwardStep, None] = {}
    missing: set[int] = set()
    for operand in sorted(_operands(forward[slot]) - steady):
        row = plan.layout.rows[operand]
        if most == 1 or row is None or not row.cheap or operand not in forward:
            missing.add(operand)
            continue
        more, lacking = _cheaply(plan, forward, operand, steady, most - 1)
        if _is_little(plan, lacking, slot):
            steps |= dict.fromkeys(more)
            missing |= lacking
        else:
            missing.add(operand)
    return (*steps, forward[slot]), missing


def _is_little(plan: Plan, slots: set[int], beside: int) -> bool:
    """Do these values together take no more than an eighth of the memory of another one?"""
    sizes = [size_hint(plan.layout.nodes[slot]) for slot in slots]
    whole = size_hint(plan.layout.nodes[beside])
    return not sizes or (whole is not None and None not in sizes and 8 * sum(s or 0 for s in sizes) <= whole)


def _moves_from_smaller(plan: Plan, forward: dict[int, ForwardStep], slot: int) -> tuple[ForwardStep, ...] | None:
    layout = plan.layout
    chain: list[ForwardStep] = []
    root = slot
    while isinstance(layout.rows[root], Move):
        step = forward[root]
        tensors = [s for s in _operands(step) if isinstance(layout.nodes[s].meta.get("val"), Tensor)]
        if len(tensors) != 1:
            return None
        chain.insert(0, step)
        root = tensors[0]
    before, after = size_hint(layout.nodes[root]), size_hint(layout.nodes[slot])
    return tuple(chain) if before is not None and after is not None and before < after else None
