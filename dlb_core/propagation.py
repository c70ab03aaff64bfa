"""One or several seeds through a plan: relevance by slot, and a settled ledger for each seed."""

from __future__ import annotations

import copy
import math
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.choices import CHECKS, choose
from dlb_core.errors import ConservationError
from dlb_core.kernel.books import Books, Entry
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.plan import Plan
from dlb_core.kernel.run import Activations, run_relevance
from dlb_core.kernel.settle import raise_on_loss, settle
from dlb_core.kernel.thrift import Thrift
from dlb_core.kernel.through import Through
from dlb_core.kernel.tip import Tip


def propagate(
    plan: Plan,
    activations: Activations,
    seeds: Mapping[Any, Any],
    *,
    several: bool,
    keep: frozenset[int],
    check: str,
    input_names: Mapping[str, str],
    saving: Thrift | None = None,
    through: Through | None = None,
    watch: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    tip: Tip | None = None,
    chunk: int | None = None,
    told: Callable[[int], None] | None = None,
) -> tuple[dict[Any, Any], tuple[Ledger, ...]]:
    """Relevance of the slots in `keep`, and one ledger per seed.

    seeds: relevance by slot, of the node's shape, with a leading axis over seeds if `several`. Several seeds run at
    once under vmap; a plan with data-dependent shapes runs them one by one. check: "raise", "warn", "ends", "off".
    watch: see `run_relevance`. tip: the seeds are tokens, ``positions`` [N, B] and what `Tip.seed` takes, by name.
    chunk: how many seeds run at once at most (default: as many as have room). told: called after each pass with how
    many seeds it took.
    """
    choose("check", check, CHECKS)
    entries: list[Entry] = []

    def one(seeds: Mapping[int, Any]) -> tuple[dict[int, Any], Tensor]:
        books = Books(detail=check != "ends")
        # what is freed on the way is freed in a copy: the next seeds find all of it again
        own = copy.copy(activations) if several else activations
        about: dict[str, Any] = {"keep": keep, "saving": saving, "through": through, "watch": watch}
        about["books"] = books if check != "off" else None
        if tip is None:
            for slot, r in seeds.items():
                books.relevance("seed", slot, r)
            kept = run_relevance(plan, own, seeds, **about)
        else:
            kept = _from_token(tip, own, seeds, books, about)
        entries[:] = books.entries
        return kept, books.stacked()

    if not several:
        kept, sums = one(seeds)
        table = [sums.tolist()]
    else:
        runs = (
            _in_turn(one, seeds)
            if plan.dynamic
            else _together(one, seeds, chunk or _fit(plan, activations, seeds, tip), told)
        )
        kept = pytree.tree_map(lambda *parts: torch.cat(parts), *(part for part, _ in runs))
        table = [row for _, sums in runs for row in sums.tolist()]
    ledgers = tuple(
        settle(entries, row, plan, input_names, activations.shapes) if check != "off" else unchecked(row)
        for row in table
    )
    for ledger in ledgers if check != "off" else ():
        judge(ledger, check)
    return kept, ledgers


def _from_token(
    tip: Tip, activations: Activations, token: Mapping[Any, Tensor], books: Books, about: Mapping[str, Any]
) -> dict[Any, Any]:
    """One token per sample back to the inputs: at its own position through the tip, from there on in full width."""
    narrow = tip.at(activations, token["positions"])
    seed = tip.seed(narrow, token)
    books.relevance("seed", tip.output, seed)
    came = run_relevance(tip.plan, narrow, {tip.output: seed}, keep=frozenset(), books=about["books"], until=tip.cut)
    wide = tip.widened(came[tip.cut], activations, token["positions"])
    return run_relevance(tip.rest, activations, {tip.cut: wide}, **about)


One = Callable[[Mapping[int, Any]], tuple[dict[int, Any], Tensor]]


def _in_turn(one: One, seeds: Mapping[int, Any]) -> list[tuple[dict[int, Any], Tensor]]:
    """One seed after the other, each with a leading axis of one."""
    runs = [one(_part(seeds, i)) for i in range(_count(seeds))]
    return [pytree.tree_map(lambda part: part.unsqueeze(0), run) for run in runs]


def _together(
    one: One, seeds: Mapping[Any, Any], size: int, told: Callable[[int], None] | None
) -> list[tuple[dict[Any, Any], Tensor]]:
    """Several seeds at once under vmap, `size` to a pass at most, in passes of about the same size."""
    count = _count(seeds)
    each = math.ceil(count / math.ceil(count / size))
    parts = [_part(seeds, slice(start, start + each)) for start in range(0, count, each)]
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "There is a performance drop")  # torch's, of ops that it loops itself
        runs = []
        for part in parts:
            runs.append(torch.func.vmap(one)(part))
            if told is not None:
                told(_count(part))
        return runs


def _part(seeds: Mapping[int, Any], where: int | slice) -> dict[int, Any]:
    """Some of the seeds; a node with several outputs has a list."""
    part: dict[int, Any] = pytree.tree_map(lambda r: r[where], dict(seeds))
    return part


def _count(seeds: Mapping[int, Any]) -> int:
    return len(pytree.tree_leaves(dict(seeds))[0])


#: Bytes that the largest relevance tensor of a pass may have: beyond, more seeds cost memory and gain no time.
ROOM = {"cpu": 64 * 2**20}
ROOM_ELSEWHERE = 2**30


def _fit(plan: Plan, activations: Activations, seeds: Mapping[Any, Any], tip: Tip | None) -> int:
    """How many seeds go through a pass together."""
    seed: Tensor = pytree.tree_leaves(dict(seeds))[0]
    steps = plan.steps if tip is None else tip.rest.steps
    slots = {target.slot for step in steps for target in step.targets.values()} | {s.slot for s in steps}
    shapes = [activations.shapes[slot] for slot in slots if slot is not None]
    sizes = [math.prod(part) for shape in shapes for part in (shape if type(shape) is tuple else (shape,)) if part]
    largest: int = max([1, *sizes]) * seed.element_size()
    return max(1, ROOM.get(seed.device.type, ROOM_ELSEWHERE) // largest)


def judge(ledger: Ledger, check: str) -> None:
    """Raises or warns when a ledger does not close, as `check` says."""
    try:
        raise_on_loss(ledger, nodes=check != "ends")
    except ConservationError as error:
        if check != "warn":
            raise
        warnings.warn(str(error), stacklevel=_callers_level())


def _callers_level() -> int:
    """How far up the stack the caller's own line is, so that a warning points at it."""
    home = str(Path(__file__).parent)
    frames = [frame.filename for frame in reversed(traceback.extract_stack()[:-1])]
    return next((i for i, name in enumerate(frames, 1) if not name.startswith(home)), 1)


def unchecked(sums: Sequence[float]) -> Ledger:
    """With check="off" only the seed is known: no other sum was taken."""
    total = math.fsum(sums[::2])
    return Ledger(
        seed=total,
        inputs={},
        accounts={},
        scale=abs(total),
        input_scale=0.0,
        seed_scale=abs(total),
        tolerance=float("inf"),
    )
