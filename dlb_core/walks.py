"""A model run at other points than the caller's: its values there, relevance there and of the way between two."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dlb_core.errors import NonFiniteError
from dlb_core.kernel.books import Books, Entry
from dlb_core.kernel.call import references
from dlb_core.kernel.facts import facts, operand_nodes
from dlb_core.kernel.kinds import Lookup
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.ops import bound_arguments, fake_tensors, is_active_dtype
from dlb_core.kernel.plan import Plan
from dlb_core.kernel.run import Activations, run_forward, run_relevance
from dlb_core.kernel.settle import settle
from dlb_core.kernel.through import Through
from dlb_core.propagation import judge, unchecked

Point = dict[int, Tensor]  # by slot: the explained inputs, and what lookups make of explained ids
Result = tuple[dict[int, Any], Tensor, Tensor]  # relevance by slot, the sums of the books, the seed


@dataclass
class Walk:
    """What stays the same at all points.

    values: the caller's, by slot. inputs: placeholder -> the caller's name. start: the slot that is explained; measure:
    what of its value the units count. seed: units that are the same everywhere, or None where they are `weights` times
    what is measured; both have a leading axis over seeds if `several`. keep, through: see `run_relevance`. detail: are
    there books of every node (None: no books).
    """

    plan: Plan
    values: Sequence[Any]
    inputs: Mapping[fx.Node, str]
    start: int
    measure: Callable[[Tensor], Tensor]
    weights: Tensor
    seed: Tensor | None
    several: bool
    keep: frozenset[int]
    through: Through | None
    detail: bool | None
    entries: list[Entry] = field(default_factory=list)

    @cached_property
    def places(self) -> dict[str, Point]:
        """Input name -> what of it moves: the input itself, or what lookups make of its ids.

        Raises ValueError for explained integers that no lookup reads.
        """
        slots = self.plan.layout.slots
        moving = {
            name: self._reads(node) or [slots[node.name]] for node, name in self.inputs.items() if facts(node).active
        }
        stuck = [name for name, found in moving.items() if not all(_flows(self.values[slot]) for slot in found)]
        if stuck:
            raise ValueError(f"{', '.join(stuck)}: nothing lies between two integers that no lookup reads")
        return {name: {slot: self.values[slot] for slot in found} for name, found in moving.items()}

    @cached_property
    def fixed(self) -> dict[int, Any]:
        """What is the same at all points: sizes, and what does not depend on what moves."""
        moving = set(self.here())
        for step in self.plan.layout.forward:
            slots = set(references((step.args, dict(step.kwargs))))
            if slots & moving and fake_tensors(step.node):
                moving.add(step.slot)
        return {slot: value for slot, value in enumerate(self.values) if slot not in moving}

    @property
    def device(self) -> torch.device:
        """Where the program runs."""
        return self.plan.layout.program.device

    def _reads(self, ids: fx.Node) -> list[int]:
        """The slots of the lookups that read this input's ids, moved or shifted."""
        layout = self.plan.layout
        reached, found = {ids}, []
        for node in layout.nodes:
            slot = layout.slots[node.name]
            row = layout.rows[slot]
            if row is None or not facts(node).active or not reached & set(operand_nodes(node, row).values()):
                continue
            if isinstance(row, Lookup):
                found.append(slot)
            elif not is_active_dtype(node):
                reached.add(node)
        return found

    @property
    def _inputs(self) -> dict[int, Any]:
        slots = [self.plan.layout.slots[node.name] for node in self.inputs]
        return {slot: self.values[slot] for slot in slots}

    def here(self) -> Point:
        """The caller's own point."""
        return {slot: value for place in self.places.values() for slot, value in place.items()}

    def baseline(self, wanted: Any, point: Point) -> Point:
        """A baseline as a point: a number or a tensor for all inputs, or by name; zero where nothing is said.

        Raises ValueError for a name that is no explained input, and for values that do not fit.
        """
        base = {slot: torch.zeros_like(value) for slot, value in point.items()}
        if isinstance(wanted, Mapping):
            if unknown := [name for name in wanted if name not in self.places]:
                raise ValueError(
                    f"baseline names {', '.join(map(repr, unknown))}: choose from {', '.join(self.places)}"
                )
        else:
            plain = isinstance(wanted, (int, float)) and wanted == 0
            wanted = {} if plain else dict.fromkeys(self.places, wanted)
        nodes = {name: node for node, name in self.inputs.items()}
        for name, value in wanted.items():
            place, own = self.places[name], self.plan.layout.slots[nodes[name].name]
            if own in place:
                base[own] = _fitting(name, value, point[own])
            else:
                size = min(_table_size(self.plan.layout, slot) for slot in place)
                ids = {own: _token_ids(name, value, self.values[own], size)}
                embedded = run_forward(self.plan.layout, {}, frozenset(place), {**self._inputs, **ids}).values
                base |= {slot: embedded[slot] for slot in place}
        return base

    # passes

    def at(self, point: Point) -> Result:
        """The seed at a point, back to the inputs."""
        done = self._forward(point)

        def one(units: Tensor) -> Result:
            return self._back(units if self.seed is not None else units * self.measure(done.values[self.start]), done)

        return self._seeds(one, self.weights if self.seed is None else self.seed)

    def between(self, before: Point, after: Point) -> Result:
        """What changes at the start from one point to the next, back to the inputs; the plan is one of differences."""
        first, then = self._forward(before), self._forward(after)
        change = self.measure(then.values[self.start]) - self.measure(first.values[self.start])
        return self._seeds(lambda weights: self._back(weights * change, then, first), self.weights)

    def total(
        self, function: Callable[..., Result], over: tuple[Any, ...], chunk: int | None, factor: float = 1.0
    ) -> Result:
        """`factor` times the sum of the results of a function over the leading axis of its arguments."""
        if chunk == 1 or self.plan.dynamic:
            results = [function(*parts) for parts in _rows(over)]
            return _scaled(pytree.tree_map(lambda *parts: sum(parts[1:], parts[0]), *results), factor)
        try:
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "There is a performance drop")  # torch's, of ops that it loops itself
                stacked = torch.func.vmap(function, chunk_size=chunk)(*over)
        except Exception as error:
            error.add_note("while points ran at once: chunk=1 runs them one by one")
            raise
        return _scaled(pytree.tree_map(lambda parts: parts.sum(0), stacked), factor)

    def _forward(self, point: Point) -> Activations:
        return run_forward(self.plan.layout, {}, None, instead={**self.fixed, **point})

    def _seeds(self, one: Callable[[Tensor], Result], units: Tensor) -> Result:
        if not self.several:
            return one(units)
        if self.plan.dynamic:
            result: Result = pytree.tree_map(lambda *parts: torch.stack(parts), *(one(row) for row in units))
            return result
        result = torch.func.vmap(one)(units)
        return result

    def _back(self, seed: Tensor, done: Activations, before: Activations | None = None) -> Result:
        books = None if self.detail is None else Books(detail=self.detail)
        seed = seed.to(self.plan.dtype)
        if books is not None:
            books.relevance("seed", self.start, seed)
        kept = run_relevance(
            self.plan, done, {self.start: seed}, keep=self.keep, books=books, through=self.through, before=before
        )
        if books is None:
            return kept, seed.new_zeros(0), seed
        self.entries[:] = books.entries
        return kept, books.stacked(), seed


def follow(
    walk: Walk,
    run: Callable[[Walk, Point], Result],
    *,
    check: str,
    input_names: Mapping[str, str],
    shapes: Sequence[Any],
) -> tuple[dict[int, Any], tuple[Ledger, ...], Tensor]:
    """Relevance of the slots to keep, one ledger per seed, and the seeds, added up over all points.

    Raises `NonFiniteError` where the model has no finite output.
    """
    kept, sums, seed = run(walk, walk.here())
    if not bool(seed.isfinite().all()):
        raise NonFiniteError(
            "what is explained is NaN or infinite at one of the points, between the input and its baseline or beside "
            "it: choose another baseline, or less noise"
        )
    if walk.detail is None:
        return kept, tuple(unchecked([float(one.sum())]) for one in (seed if walk.several else seed[None])), seed
    table = sums.tolist() if walk.several else [sums.tolist()]
    ledgers = tuple(settle(walk.entries, row, walk.plan, input_names, shapes) for row in table)
    for ledger in ledgers:
        judge(ledger, check)
    return kept, ledgers, seed


def _scaled(result: Result, factor: float) -> Result:
    scaled: Result = pytree.tree_map(lambda part: part * factor, result)
    return scaled


def _rows(over: tuple[Any, ...]) -> list[Any]:
    leaves, spec = pytree.tree_flatten(over)
    return [pytree.tree_unflatten([leaf[i] for leaf in leaves], spec) for i in range(len(leaves[0]))]


# --- what moves -----------------------------------------------------------------------------------------------------


def _flows(value: Tensor) -> bool:
    return value.is_floating_point() or value.is_complex()


def _table_size(layout: Layout, slot: int) -> int:
    """How many ids a lookup's table has."""
    row = layout.rows[slot]
    assert isinstance(row, Lookup)
    table: Any = bound_arguments(layout.nodes[slot])[row.table]
    return int(table.meta["val"].shape[0])


def _fitting(name: str, value: Any, like: Tensor) -> Tensor:
    """A baseline in the shape, dtype and place of its input."""
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    given = torch.as_tensor(value) if number or isinstance(value, Tensor) else None
    if given is None or not bool(given.isfinite().all()):
        shown = "a tensor with values that are not finite" if isinstance(value, Tensor) else repr(value)
        raise ValueError(f"the baseline of {name!r} is {shown}: give a finite number or a tensor of them")
    try:
        return given.to(like).expand_as(like)
    except RuntimeError:
        raise ValueError(
            f"the baseline of {name!r} has shape {list(given.shape)}, which does not broadcast against "
            f"{list(like.shape)}"
        ) from None


def _token_ids(name: str, value: Any, like: Tensor, size: int) -> Tensor:
    """The ids whose embeddings are the baseline."""
    ids = torch.as_tensor(value) if isinstance(value, (int, Tensor)) and not isinstance(value, bool) else None
    if ids is None or ids.is_floating_point() or bool(((ids < 0) | (ids >= size)).any()):
        raise ValueError(
            f"the baseline of {name!r} is {value!r}: give token ids in 0 .. {size - 1}, or leave it out for 0"
        )
    return _fitting(name, ids, like)
