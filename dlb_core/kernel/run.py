"""The two passes over a plan: forward, relevance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.errors import RuleError
from dlb_core.kernel.books import Books
from dlb_core.kernel.call import Call, Shares, resolve
from dlb_core.kernel.clock import running
from dlb_core.kernel.layout import ForwardStep, Layout
from dlb_core.kernel.ops import op_name
from dlb_core.kernel.plan import Plan, RelevanceStep
from dlb_core.kernel.thrift import Thrift
from dlb_core.kernel.through import Through


class Activations:
    """The values of one forward pass by slot, and the shapes of all of them, freed ones too."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.values: list[Any] = [None] * len(layout.nodes)
        self.shapes: list[Any] = [None] * len(layout.nodes)
        self.shared: dict[Any, Any] | None = None  # between two passes that follow each other; see `Call.once`

    @contextmanager
    def sharing(self) -> Iterator[None]:
        """Two passes inside share what depends on these values alone."""
        self.shared = {}
        try:
            yield
        finally:
            self.shared = None

    @property
    def outputs(self) -> list[Any]:
        """The model's outputs, flat."""
        return [resolve(out, self.values) for out in self.layout.outputs]


def run_forward(
    layout: Layout,
    inputs: Mapping[fx.Node, Tensor],
    keep: frozenset[int] | None,
    instead: Mapping[int, Tensor] | None = None,
) -> Activations:
    """One forward pass; `keep` names the slots that outlive their last reader (None: all).

    instead: slot -> the value that this node has in place of what it computes.
    """
    done = Activations(layout)
    values, shapes = done.values, done.shapes
    for node, value in inputs.items():
        values[layout.slots[node.name]] = value
    for name, parameter in layout.program.parameters.items():
        values[layout.slots[name]] = parameter.value()
    for slot, value in (instead or {}).items():
        values[slot] = value
    for slot, value in enumerate(values):
        if isinstance(value, Tensor):
            shapes[slot] = value.shape
    frees = layout.frees(keep) if keep is not None else ()
    clock = running()
    with torch.no_grad(), torch.autocast(layout.program.device.type, enabled=False):  # the trace says every dtype
        for index, step in enumerate(layout.forward):
            if instead is None or step.slot not in instead:
                if clock is not None:
                    clock.start(layout.program.device)
                values[step.slot] = step.run(values)
                if clock is not None:
                    clock.stop("forward", step.node, _kind(layout, step), values[step.slot], layout.program.device)
            value = values[step.slot]
            shapes[step.slot] = value.shape if isinstance(value, Tensor) else _shapes(value)
            if frees:
                for slot in frees[index]:
                    values[slot] = None
    return done


def _kind(layout: Layout, step: ForwardStep) -> str:
    row = layout.rows[step.slot]
    return "constant" if row is None else row.kind


def _shapes(value: Any) -> Any:
    if isinstance(value, (tuple, list)):
        return tuple(v.shape if isinstance(v, Tensor) else None for v in value)
    return None


def run_relevance(
    plan: Plan,
    activations: Activations,
    seeds: Mapping[int, Tensor],
    *,
    keep: frozenset[int],
    books: Books | None,
    saving: Thrift | None = None,
    through: Through | None = None,
    before: Activations | None = None,
    watch: Mapping[int, Callable[[Tensor], Tensor]] | None = None,
    until: int | None = None,
) -> dict[Any, Any]:
    """One relevance pass: seeds by slot in, relevance by slot out for the slots in `keep`.

    books: where the sums go (None: no check). saving: what was kept of the activations; the rest is made again, and
    each value is freed after its last reader. through: what does not go on; it is booked under ``through:<node>``.
    before: the values one point earlier, for a plan of differences. watch: slot -> what of its relevance is kept, under
    `watched(slot)`. until: the slot at which the plan ends before the inputs; what came there is kept and not booked.
    """
    pending: dict[int, Any] = dict(seeds)
    kept: dict[Any, Any] = {}
    values = activations.values if saving is None else list(activations.values)
    if saving is not None:
        activations.values = []
    shapes, device = activations.shapes, plan.layout.program.device
    clock = running()
    slots_of_steps = {step.slot for step in plan.steps}
    with torch.no_grad(), torch.autocast(plan.layout.program.device.type, enabled=False):
        for index, step in enumerate(plan.steps):
            if clock is not None:
                clock.start(device)
            if saving is not None:
                for again, passed in saving.rebuild[index]:
                    values[again.slot] = again.run(values)
                    for slot in passed:
                        values[slot] = None
                if index:
                    for slot in saving.frees[index - 1]:
                        values[slot] = None
            r = pending.pop(step.slot, None)
            if r is None:
                continue
            if isinstance(r, list):
                r = _filled(r, activations.shapes[step.slot], plan.dtype, activations)
            if books is not None and books.detail:
                books.relevance("in", step.slot, r)
            if through is not None:
                r = _masked(step.slot, r, through, books)
            if step.slot in keep:
                kept[step.slot] = r
            if watch is not None and step.slot in watch:
                kept[watched(step.slot)] = watch[step.slot](r)
            about = (shapes, plan.dtype, device)
            call = Call(step.node, step.bound, step.slot, step.receivers, values, *about)
            call.shared = activations.shared
            if before is not None:
                call.before = Call(step.node, step.bound, step.slot, step.receivers, before.values, *about)
            try:
                shares = step.formula.run(step.row.view(call), r, step.mode)
            except Exception as error:
                error.add_note(f"in the rule for {_where(step)}")
                raise
            if not isinstance(shares, Shares):
                raise RuleError(
                    f"the rule for {_where(step)} returned {type(shares).__name__}: "
                    "return Shares({operand: relevance})"
                )
            _deliver(step, shares, pending, activations.shapes, books, through)
            if clock is not None:
                clock.stop("relevance", step.node, step.row.kind, dict(shares.relevance), device)
    for slot, r in pending.items():  # what is left lies on inputs
        if slot == until:
            kept[slot] = r
        elif slot not in slots_of_steps:
            if through is not None:
                r = _masked(slot, r, through, books)
            if books is not None:
                books.relevance("input", slot, r)
            if slot in keep:
                kept[slot] = r
    return kept


def watched(slot: int) -> tuple[str, int]:
    """The key under which a pass keeps what was watched of a slot."""
    return "watched", slot


def _masked(slot: int, r: Any, through: Through, books: Books | None) -> Any:
    """What goes on through the chosen channels; the rest is booked."""
    mask = through.masks.get(slot)
    if mask is None:
        return r
    if books is not None:
        books.booked(slot, through.accounts[slot], r * (1 - mask))
    return r * mask


def _deliver(
    step: RelevanceStep,
    shares: Shares,
    pending: dict[int, Any],
    shapes: Sequence[Any],
    books: Books | None,
    through: Through | None,
) -> None:
    for name, share in shares.relevance.items():
        if share is None:
            continue
        target = step.targets.get(name)
        if target is None:
            raise RuleError(
                f"the rule for {_where(step)} gave relevance to {name!r}; its operands are {list(step.targets)}"
            )
        if target.slot is None:
            if books is not None:
                books.booked(step.slot, target.account, share)
            continue
        share = _fitted(share, target.complex)
        _check_shape(step, name, share, shapes[target.slot])
        if through is not None and (account := through.cuts.get((step.slot, target.slot))) is not None:
            _drop(step.slot, account, share, books)
            continue
        if books is not None and books.detail:
            books.relevance("out", step.slot, share, target.slot)
        before = pending.get(target.slot)
        pending[target.slot] = share if before is None else _added(before, share)
    if books is not None:
        for name, amount in shares.accounts.items():
            books.booked(step.slot, _account(step, name), amount)


def _drop(slot: int, account: str, share: Any, books: Books | None) -> None:
    """Books what takes a way that passes no chosen node."""
    for part in share if isinstance(share, (tuple, list)) else (share,):
        if part is not None and books is not None:
            books.booked(slot, account, part)


def _fitted(share: Any, wanted: bool) -> Any:
    """Relevance as real or complex as its operand: a real one gets what came through both parts of the output."""
    if not isinstance(share, Tensor) or share.is_complex() == wanted:
        return share
    return torch.complex(share, torch.zeros_like(share)) if wanted else share.real + share.imag


def _account(step: RelevanceStep, name: str) -> str:
    """An account that names an operand, alone or as ``bias:<operand>``, is that operand's."""
    prefix, _, operand = name.rpartition(":")
    target = step.targets.get(operand)
    if target is None or not target.account:
        return name
    return f"{prefix}:{target.account.partition(':')[2]}" if prefix else target.account


def _added(a: Any, b: Any) -> Any:
    if isinstance(a, Tensor):
        return a + b
    return [y if x is None else x if y is None else x + y for x, y in zip(a, b, strict=True)]


def _filled(r: list[Any], shapes: Any, dtype: torch.dtype, activations: Activations) -> tuple[Any, ...]:
    """The relevance of a node with several outputs; zeros for outputs that nobody asked about."""
    device = activations.layout.program.device
    return tuple(
        torch.zeros(shape, dtype=dtype, device=device) if part is None and shape is not None else part
        for part, shape in zip(r, shapes, strict=True)
    )


def _check_shape(step: RelevanceStep, name: str, share: Any, shape: Any) -> None:
    if isinstance(share, Tensor) and share.shape != shape:
        raise RuleError(
            f"the rule for {_where(step)} returned shape {list(share.shape)} for operand {name!r} "
            f"of shape {list(shape)}; sum broadcast dimensions back"
        )


def _where(step: RelevanceStep) -> str:
    pack = f"pack {step.row.pack}" if step.row.pack else "in no pack"
    return f"{op_name(step.node.target)} at node {step.node.name!r} ({pack}, kind {step.row.kind})"
