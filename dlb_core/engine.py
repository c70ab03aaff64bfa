"""The engine behind the façade: a bound program, its plans, one forward pass, relevance by name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from dlb_core.conditions import conditions
from dlb_core.errors import NonFiniteError, StaleActivationsError
from dlb_core.inside import Heads, Inside, did_you_mean, inner_target
from dlb_core.kernel.axes import Axes, Axis
from dlb_core.kernel.composites import AnyMode
from dlb_core.kernel.facts import facts
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.modes import BoundMode
from dlb_core.kernel.plan import Plan, build_plan
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry
from dlb_core.kernel.run import Activations, run_forward
from dlb_core.kernel.thrift import thrift
from dlb_core.paths import Bound
from dlb_core.propagation import propagate
from dlb_core.relevance import Relevance
from dlb_core.targets import Context, Request, Seed, against_seed, make_seed, measure
from dlb_core.walks import Walk, follow


class Prediction(NamedTuple):
    """One forward pass that is kept: its activations, their versions, and what divides the output."""

    activations: Activations
    versions: list[int | None]
    temperature: float


@dataclass
class Engine:
    """A program that was prepared once; plans are built when a mode is first asked for."""

    registry: Registry
    layout: Layout
    output_index: int
    dtype: torch.dtype
    causal: bool
    check: str
    plans: dict[tuple[Any, ...], Plan] = field(default_factory=dict)

    @property
    def program(self) -> Program:
        """The traced program after its passes."""
        return self.layout.program

    @property
    def output_node(self) -> fx.Node:
        """The node whose value is explained."""
        node: fx.Node = self.program.outputs[self.output_index]
        return node

    @property
    def input_names(self) -> dict[str, str]:
        """Placeholder name -> the name that the caller knows."""
        return {i.node.name: i.name for i in self.program.inputs if i.node is not None}

    def node(self, name: str) -> fx.Node:
        """The node behind a node name, an input name or a module path; ValueError when there is none."""
        inputs = {i.name: i.node.name for i in self.program.inputs if i.node is not None}
        resolved = self.program.resolve(inputs.get(name, name))
        if name == "output" and resolved not in self.layout.slots:
            return self.output_node
        if resolved not in self.layout.slots:
            known = (*inputs, *self.layout.slots, *self.program.modules, *self.program.aliases)
            near = did_you_mean(name, known)
            raise ValueError(f"{name!r} is no node or module of this model; {near}see dlb.graph() for the names")
        return self.layout.nodes[self.layout.slots[resolved]]

    @cached_property
    def inside(self) -> Inside:
        """Where the nodes have their channels and heads."""
        return Inside(Axes(self.layout), self.node, lambda node: self.input_names.get(node.name, node.name))

    def start(self, at: str | None, targets: Sequence[Any]) -> fx.Node:
        """The node that a relevance pass starts from: the output, or what `at` names."""
        if at is None:
            return self.output_node
        by_head = any(isinstance(target, Heads) for target in targets)
        return self.inside.heads(at)[0] if by_head else self.node(at)

    def plan(self, mode: AnyMode, start: fx.Node) -> Plan:
        """The plan of a mode from a node back to the inputs, built once."""
        key = (mode.key, start.name)
        if key not in self.plans:
            self.plans[key] = build_plan(self.layout, self.registry, mode, [start], self.dtype)
        return self.plans[key]

    def plans_of(self, mode: AnyMode | Bound, start: fx.Node) -> tuple[Plan | None, Plan]:
        """The plan of the mode that is split in two (None: it is not), and the mode's own."""
        if isinstance(mode, Bound):
            return None, self.plan(mode.plan_mode, start)
        split = mode.mode.splits if isinstance(mode, BoundMode) else None
        if split is None:
            return None, self.plan(mode, start)
        options = self.registry.mode(split).options
        base = self.registry.bind(split, **{n: v for n, v in mode.options.items() if n in options})
        return self.plan(base, start), self.plan(mode, start)

    # forward

    def forward(
        self, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], temperature: float, keep: frozenset[int] | None
    ) -> Prediction:
        """One checked forward pass that keeps the slots in `keep` (None: all)."""
        if not 0 < temperature < float("inf"):
            raise ValueError(f"temperature={temperature!r}: must be a positive finite number")
        tensors = self.program.bind_inputs(inputs, kwargs)
        activations = run_forward(self.layout, tensors, keep)
        if not bool(torch.isfinite(activations.outputs[self.output_index]).all()):
            raise NonFiniteError(self._first_bad_node(tensors))
        return Prediction(activations, [_version(v) for v in activations.values], temperature)

    def kept_for(self, mode: AnyMode | Bound, start: fx.Node, *, several: bool) -> tuple[frozenset[int] | None, bool]:
        """What an explanation keeps from its forward pass (None: all); and does one relevance pass follow, that may
        consume it?
        """
        if isinstance(mode, Bound):
            return None, False
        whole, plan = self.plans_of(mode, start)
        once = whole is None and not (several and plan.dynamic)
        read = thrift(plan).keep if once else plan.reads | (whole.reads if whole else frozenset())
        return read | {self.layout.slots[start.name]} | self._mask_slots(), once

    def output_of(self, prediction: Prediction) -> Tensor:
        """The explained output, divided by the temperature."""
        output: Tensor = prediction.activations.outputs[self.output_index]
        return output if prediction.temperature == 1.0 else output / prediction.temperature

    def check_versions(self, prediction: Prediction) -> None:
        """Raises `StaleActivationsError` when something kept was changed in place."""
        values = prediction.activations.values
        for node, value, version in zip(self.layout.nodes, values, prediction.versions, strict=True):
            if version is not None and _version(value) != version:
                parameter = self.program.parameters.get(node.name)
                what = parameter.name if parameter else self.input_names.get(node.name, node.name)
                raise StaleActivationsError(f"{what!r} was changed in place since predict: call predict again")

    def _first_bad_node(self, tensors: Mapping[fx.Node, Tensor]) -> str:
        """Walks back from the output through bad values to where they began; a masked score is not on that way."""
        values = run_forward(self.layout, tensors, None).values

        def badness(node: fx.Node) -> int:
            value = values[self.layout.slots[node.name]]
            if not isinstance(value, Tensor) or not value.is_floating_point():
                return 0
            return 2 if bool((value.isnan() | value.isposinf()).any()) else int(bool(value.isneginf().any()))

        node = self.output_node
        while worse := [n for n in node.all_input_nodes if badness(n) and n.name not in self.program.parameters]:
            node = max(worse, key=badness)
        weights = [self.program.parameters[n.name].name for n in node.all_input_nodes if badness(n)]
        what = "input" if node.op == "placeholder" else "node"
        name = self.input_names.get(node.name, node.name)
        advice = f"its weight {weights[0]!r} is not finite" if weights else "look at what feeds it"
        return f"the forward pass has NaN or infinite values, first at {what} {name!r}: {advice}"

    # relevance

    def relevance(
        self,
        prediction: Prediction,
        mode: AnyMode | Bound,
        request: Request,
        *,
        targets: Sequence[Any] | None,
        through: Mapping[str, Any] | None,
        keep: str | Sequence[str],
        at: str | None,
        consume: bool,
    ) -> Relevance:
        """Relevance by name for one request, or for several targets at once."""
        start = self.start(at, [request.target] if targets is None else targets)
        if not facts(start).active:
            name = self.input_names.get(start.name, start.name)
            raise ValueError(f"{name!r} depends on no explained input: choose another output, or explain_inputs=")
        whole, plan = self.plans_of(mode, start)
        slot = self.layout.slots[start.name]
        activations = prediction.activations
        value = activations.values[slot] if at is not None else self.output_of(prediction)
        if at is not None and start is not self.output_node:
            request = request.at(inner_target(request.target, at, self.inside))
            targets = None if targets is None else [inner_target(target, at, self.inside) for target in targets]
        context = self._context(activations, start)
        seeds = self._seeds(value, request, targets, context)
        several = targets is not None
        seed = _stacked([s.relevance for s in seeds], several)
        against = None
        if whole is not None:
            opposed = [against_seed(value, s, request, mode.options["against"]) for s in seeds]
            against = _stacked(opposed, several)
        chosen: Any = [s.target for s in seeds] if several else seeds[0].target
        task, weights = seeds[0].task, _stacked([s.weights for s in seeds], several)
        del value, seeds  # an explanation's peak is the first step back: nothing of the output's size twice
        how: dict[str, Any] = {
            "slot": slot,
            "several": several,
            "keep": keep,
            "through": through,
            "target": chosen,
            "name": mode.name,
        }
        if isinstance(mode, Bound):
            divisor = prediction.temperature if at is None else 1.0
            walk = Walk(
                plan,
                activations.values,
                {node: self.input_names[node.name] for node in self.layout.nodes if node.name in self.input_names},
                slot,
                lambda value: measure(value / divisor, task, request, context),
                weights,
                seed if mode.fixes_units(request) else None,
                several,
                self._kept(keep, plan),
                conditions(through, self.inside, plan, slot, activations.shapes),
                detail=None if self.check == "off" else self.check != "ends",
            )
            kept, ledgers, seed = follow(walk, mode.run, check=self.check, input_names=self.input_names)
            return self._relevance(kept, ledgers, seed, activations.shapes, several, chosen, mode.name)
        if whole is None or against is None:
            return self._back(plan, activations, seed, consume=consume, **how)
        total = self._back(whole, activations, seed.clamp_min(0) + against, consume=False, **how)
        return self._back(plan, activations, seed.clamp_min(0) - against, consume=False, total=total, **how)

    def _back(
        self,
        plan: Plan,
        activations: Activations,
        seed: Tensor,
        *,
        slot: int,
        several: bool,
        keep: str | Sequence[str],
        through: Mapping[str, Any] | None,
        target: Any,
        name: str,
        consume: bool,
        total: Relevance | None = None,
    ) -> Relevance:
        """One relevance pass, its results by name."""
        shapes = activations.shapes
        kept, ledgers = propagate(
            plan,
            activations,
            slot,
            seed,
            several=several,
            keep=self._kept(keep, plan),
            check=self.check,
            input_names=self.input_names,
            consume=consume,
            through=conditions(through, self.inside, plan, slot, shapes),
        )
        return self._relevance(kept, ledgers, seed, shapes, several, target, name, total)

    def _relevance(
        self,
        kept: Mapping[int, Any],
        ledgers: tuple[Ledger, ...],
        seed: Tensor,
        shapes: Sequence[Any],
        several: bool,
        target: Any,
        mode: str,
        total: Relevance | None = None,
    ) -> Relevance:
        tensors = self._named(kept, shapes, tuple(seed.shape[:1]) if several else ())
        tensors["output"] = seed
        return Relevance(
            tensors,
            ledgers,
            inputs=tuple(n for n in self.input_names.values() if n in tensors),
            target=target,
            mode=mode,
            several=several,
            total=total,
            resolve=self._key,
            why_not=self._why_not,
            part=self._part,
        )

    def _seeds(self, value: Tensor, request: Request, targets: Sequence[Any] | None, context: Context) -> list[Seed]:
        if targets is None:
            return [make_seed(value, request, context, self.dtype)]
        if request.target is not None:
            raise ValueError("give target= for one seed or targets=[...] for several, not both")
        if len(targets) == 0:
            raise ValueError("targets=[] is empty: give at least one target")
        return [make_seed(value, request.at(target), context, self.dtype) for target in targets]

    def _kept(self, keep: str | Sequence[str], plan: Plan) -> frozenset[int]:
        inputs = {self.layout.slots[name] for name in self.input_names}
        if keep == "inputs":
            return frozenset(inputs)
        if keep == "all":
            return frozenset({step.slot for step in plan.steps} | inputs)
        if isinstance(keep, str):
            raise ValueError(f'keep={keep!r}: choose "inputs", "all", or a list of node and module names')
        return frozenset(inputs | {self.layout.slots[self.node(name).name] for name in keep})

    def _named(self, kept: Mapping[int, Any], shapes: Sequence[Any], leading: tuple[int, ...]) -> dict[str, Any]:
        """Relevance by name: inputs first, nodes in execution order; an explained input nobody read got zero."""
        names = self.input_names
        tensors: dict[str, Any] = {}
        for node in self.layout.nodes:
            slot = self.layout.slots[node.name]
            if slot in kept:
                tensors[names.get(node.name, node.name)] = kept[slot]
            elif node.name in names and facts(node).active:
                zeros = torch.zeros((*leading, *shapes[slot]), dtype=self.dtype, device=self.program.device)
                tensors[names[node.name]] = zeros
        return tensors

    def _part(self, what: str, name: str) -> tuple[str, int, Axis]:
        """What a name's channels or heads are: the node's name, its number of dimensions, the one they lie on."""
        node, axis = self.inside.channels(name) if what == "channel" else self.inside.heads(name)
        return self.inside.label(node), node.meta["val"].dim(), axis

    def _key(self, name: str) -> str:
        """The key of results behind a name: an input's own name where a node that a pass took out was its copy."""
        resolved = self.program.resolve(name)
        return self.input_names.get(resolved, resolved)

    def _why_not(self, name: str) -> str:
        inputs = {i.name: i.node for i in self.program.inputs if i.node is not None}
        if name in inputs:
            return "this input is not explained (integers that no lookup reads): list it in explain_inputs="
        if name not in self.layout.slots:
            return "no such node, module or input; see dlb.graph() for the names"
        if not facts(self.layout.nodes[self.layout.slots[name]]).active:
            return "this node depends on no explained input, so it carries no relevance"
        return "no relevance reaches this node in this mode, or it was not asked for with keep="

    def _context(self, activations: Activations, start: fx.Node) -> Context:
        row = self.registry.row_at(start)
        last = None
        for slot in self._mask_slots():
            mask = activations.values[slot]
            if isinstance(mask, Tensor) and mask.dim() == 2:
                last = (torch.arange(mask.shape[1], device=mask.device) * (mask != 0)).argmax(1)
        return Context(causal=self.causal, last=last, probability=row is not None and "gate" in row.tags)

    def _mask_slots(self) -> set[int]:
        """The attention mask of the inputs, which says where each sample ends."""
        return {self.layout.slots[node] for node, name in self.input_names.items() if name == "attention_mask"}


def _stacked(parts: Sequence[Tensor], several: bool) -> Tensor:
    return torch.stack([*parts]) if several else parts[0]


def _version(value: Any) -> int | None:
    if not isinstance(value, Tensor) or value.is_inference():
        return None
    return value._version
