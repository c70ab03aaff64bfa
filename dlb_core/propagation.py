"""One or several seeds through a plan: relevance by slot, and a settled ledger for each seed."""

from __future__ import annotations

import traceback
import warnings
from collections.abc import Mapping
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
from dlb_core.kernel.through import Through


def propagate(
    plan: Plan,
    activations: Activations,
    slot: int,
    seed: Tensor,
    *,
    several: bool,
    keep: frozenset[int],
    check: str,
    input_names: Mapping[str, str],
    consume: bool = False,
    through: Through | None = None,
) -> tuple[dict[int, Any], tuple[Ledger, ...]]:
    """Relevance of the slots in `keep`, and one ledger per seed.

    seed: the output's shape, with a leading axis over seeds if `several`. Several seeds run at once under vmap;
    a plan with data-dependent shapes runs them one by one. check: "raise", "warn", "ends", "off".
    """
    choose("check", check, CHECKS)
    entries: list[Entry] = []

    def one(r: Tensor) -> tuple[dict[int, Any], Tensor]:
        books = Books(detail=check != "ends") if check != "off" else None
        if books is not None:
            books.relevance("seed", slot, r)
        kept = run_relevance(plan, activations, {slot: r}, keep=keep, books=books, consume=consume, through=through)
        if books is None:
            return kept, r.new_zeros(0)
        entries[:] = books.entries
        return kept, books.stacked()

    if not several:
        kept, sums = one(seed)
        table = [sums.tolist()]
    elif plan.dynamic:
        runs = [one(r) for r in seed]
        kept = pytree.tree_map(lambda *parts: torch.stack(parts), *(k for k, _ in runs))
        table = [s.tolist() for _, s in runs]
    else:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "There is a performance drop")  # torch's, of ops that it loops itself
            kept, sums = torch.func.vmap(one)(seed)
        table = sums.tolist()
    if check == "off":
        return kept, tuple(unchecked(plan, row_seed) for row_seed in (seed if several else seed[None]))
    ledgers = tuple(settle(entries, row, plan, input_names) for row in table)
    for ledger in ledgers:
        judge(ledger, check)
    return kept, ledgers


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


def unchecked(plan: Plan, seed: Tensor) -> Ledger:
    """With check="off" only the seed is known: no sum was taken on the way."""
    total = float(seed.sum())
    return Ledger(
        seed=total,
        inputs={},
        accounts={},
        scale=abs(total),
        input_scale=0.0,
        seed_scale=abs(total),
        tolerance=float("inf"),
    )
