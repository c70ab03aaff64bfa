"""Answers: from a prediction and a question to relevance by name."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from dlb_core.conditions import conditions
from dlb_core.engine import Engine, Prediction, Start
from dlb_core.experts import ExpertLayer
from dlb_core.inside import inner_target
from dlb_core.kernel.composites import AnyMode
from dlb_core.kernel.facts import facts
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.plan import Plan
from dlb_core.kernel.run import Activations
from dlb_core.kernel.thrift import Thrift
from dlb_core.naming import Naming
from dlb_core.outputs import each_target
from dlb_core.paths import Bound
from dlb_core.propagation import propagate
from dlb_core.relevance import Relevance
from dlb_core.targets import Request, Seed, Targets, against_seed, make_seeds, measure
from dlb_core.walks import Walk, follow

Seeds = dict[int, Tensor]  # by slot


def answer(
    engine: Engine,
    prediction: Prediction,
    mode: AnyMode | Bound,
    request: Request,
    *,
    targets: Targets | None,
    through: Mapping[str, Any] | None,
    keep: str | Sequence[str],
    at: str | None,
    memory: str | None,
) -> Relevance:
    """Relevance by name for one request, or for several targets at once.

    memory: what the prediction kept, see `Engine.saving`; None: all of it, and it stays.
    """
    starts = engine.starts(at, request.target, targets)
    for start in starts:
        if not facts(start.node).active:
            name = engine.input_names.get(start.node.name, start.node.name)
            raise ValueError(f"{name!r} depends on no explained input: choose another output, or explain_inputs=")
    if at is not None and starts[0].node is not engine.output_node:
        request = request.at(inner_target(request.target, at, engine.inside))
        targets = each_target(targets, lambda target: inner_target(target, at, engine.inside))
    several = targets is not None
    question = _Question(engine, prediction, starts, several, keep, through)
    made = [question.seeds(start, request, targets) for start in starts]
    seeds = question.by_slot([[seed.relevance for seed in each] for each in made])
    target = _by_name([start.name for start in starts], [[seed.target for seed in each] for each in made], several)
    if isinstance(mode, Bound):
        return question.along(mode, request, made, seeds, target)
    whole, plan = engine.plans_of(mode, starts)
    if whole is None:
        del made  # an explanation's peak is the first step back: nothing of the output's size twice
        saving = engine.saving(plan, memory, alone=True)
        return question.back(plan, seeds, target, mode.name, saving=saving)
    against = question.by_slot(
        [
            [against_seed(engine.value_at(prediction, s), seed, request, mode.options["against"]) for seed in each]
            for s, each in zip(starts, made, strict=True)
        ]
    )
    del made
    added = {slot: seed.clamp_min(0) + against[slot] for slot, seed in seeds.items()}
    told_apart = {slot: seed.clamp_min(0) - against[slot] for slot, seed in seeds.items()}
    savings = [engine.saving(each, memory, alone=False) for each in (whole, plan)]
    with nullcontext() if memory == "low" else prediction.activations.sharing():
        total = question.back(whole, added, target, mode.name, saving=savings[0], again=True)
        return question.back(plan, told_apart, target, mode.name, saving=savings[1], total=total)


class _Question:
    """What stays the same over the passes that answer one question."""

    def __init__(
        self,
        engine: Engine,
        prediction: Prediction,
        starts: Sequence[Start],
        several: bool,
        keep: str | Sequence[str],
        through: Mapping[str, Any] | None,
    ) -> None:
        self.engine = engine
        self.prediction = prediction
        self.starts = starts
        self.several = several
        self.keep = keep
        self.through = through
        self.names = Naming(engine)
        self.routing = engine.routing_of(prediction)

    @property
    def activations(self) -> Activations:
        return self.prediction.activations

    def seeds(self, start: Start, request: Request, targets: Targets | None) -> list[Seed]:
        """The seeds at one start, one for each target."""
        value = self.engine.value_at(self.prediction, start)
        context = self.engine.context_at(self.prediction, start, value)
        return make_seeds(value, request, targets, start.name, context, self.engine.dtype)

    def by_slot(self, parts: Sequence[Sequence[Tensor]]) -> Seeds:
        """One tensor for each start, with a leading axis over several seeds; two outputs may be one node."""
        seeds: Seeds = {}
        for start, part in zip(self.starts, parts, strict=True):
            slot = self.engine.layout.slots[start.node.name]
            seed = self._stacked(part)
            seeds[slot] = seeds[slot] + seed if slot in seeds else seed
        return seeds

    def back(
        self,
        plan: Plan,
        seeds: Seeds,
        target: Any,
        name: str,
        *,
        saving: Thrift | None = None,
        again: bool = False,
        total: Relevance | None = None,
    ) -> Relevance:
        """One relevance pass, its results by name. again: another one follows over the same values."""
        shapes = self.activations.shapes
        routing = self.routing
        kept, ledgers = propagate(
            plan,
            copy.copy(self.activations) if again else self.activations,
            seeds,
            several=self.several,
            keep=self.names.kept(self.keep, plan),
            check=self.engine.check,
            input_names=self.engine.input_names,
            saving=saving,
            through=conditions(self.through, self.engine.inside, plan, [*seeds], shapes, routing),
            watch=routing.watch,
        )
        experts = routing.read(kept, ledgers, self.several)
        return self._relevance(kept, ledgers, seeds, target, name, total, experts)

    def along(
        self, mode: Bound, request: Request, made: Sequence[Sequence[Seed]], seeds: Seeds, target: Any
    ) -> Relevance:
        """A mode at more than one point of the input's space."""
        if len(self.starts) > 1:
            raise ValueError(f"{mode.name} explains one output; the target names {len(self.starts)}")
        chosen = [name for name, parts in (self.through or {}).items() if parts not in (True, None)]
        if routed := [name for name in chosen if name in self.routing.layers]:
            raise ValueError(f"through names experts of {routed[0]!r}: {mode.name} has points that may choose others")
        (start,), (found,), (slot,) = self.starts, made, seeds
        engine = self.engine
        _, plan = engine.plans_of(mode, self.starts)
        value = engine.value_at(self.prediction, start)
        context = engine.context_at(self.prediction, start, value)
        divisor = 1.0 if start.index is None else self.prediction.temperature
        walk = Walk(
            plan,
            self.activations.values,
            {n: engine.input_names[n.name] for n in engine.layout.nodes if n.name in engine.input_names},
            slot,
            lambda value: measure(value if divisor == 1 else value / divisor, found[0].task, request, context),
            self._stacked([seed.weights for seed in found]),
            seeds[slot] if mode.fixes_units(request) else None,
            self.several,
            self.names.kept(self.keep, plan),
            conditions(self.through, engine.inside, plan, [slot], self.activations.shapes),
            detail=None if engine.check == "off" else engine.check != "ends",
        )
        about: dict[str, Any] = {"check": engine.check, "input_names": engine.input_names}
        kept, ledgers, seed = follow(walk, mode.run, **about, shapes=self.activations.shapes)
        return self._relevance(kept, ledgers, {slot: seed}, target, mode.name)

    def _relevance(
        self,
        kept: Mapping[int, Any],
        ledgers: tuple[Ledger, ...],
        seeds: Seeds,
        target: Any,
        mode: str,
        total: Relevance | None = None,
        experts: dict[str, ExpertLayer] | None = None,
    ) -> Relevance:
        starting = tuple(seeds.values())
        leading = tuple(starting[0].shape[:1]) if self.several else ()
        tensors = self.names.named(kept, self.activations.shapes, leading)
        tensors["output"] = starting[0] if len(starting) == 1 else starting
        return Relevance(
            tensors,
            ledgers,
            inputs=tuple(n for n in self.engine.input_names.values() if n in tensors),
            target=target,
            mode=mode,
            several=self.several,
            total=total,
            resolve=self.names.key,
            why_not=self.names.why_not,
            part=self.names.part,
            experts=experts if experts is not None or self.routing.layers else {},
        )

    def _stacked(self, parts: Sequence[Tensor]) -> Tensor:
        return torch.stack([*parts]) if self.several else parts[0]


def _by_name(names: Sequence[str | int | None], chosen: Sequence[Sequence[Any]], several: bool) -> Any:
    """The targets as data: one, or one for each of several seeds; by output where outputs were named."""
    per_seed: list[Any] = (
        [*chosen[0]]
        if names[0] is None
        else [
            {name: target for name, target in zip(names, targets, strict=True) if target is not None}
            for targets in zip(*chosen, strict=True)
        ]
    )
    return per_seed if several else per_seed[0]
