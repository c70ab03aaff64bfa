"""The engine behind the façade: a bound program, its plans, one forward pass, and where relevance starts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from numbers import Real
from typing import Any, NamedTuple

import torch
from torch import Tensor, fx

from dlb_core.choices import MEMORIES, choose
from dlb_core.errors import NonFiniteError, StaleActivationsError
from dlb_core.inside import Heads, Inside, did_you_mean
from dlb_core.kernel.axes import Axes
from dlb_core.kernel.checkpoints import checkpoints
from dlb_core.kernel.composites import AnyMode
from dlb_core.kernel.facts import facts
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.modes import EVERY, BoundMode
from dlb_core.kernel.ops import module_path
from dlb_core.kernel.plan import Plan, build_plan
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry
from dlb_core.kernel.run import Activations, run_forward
from dlb_core.kernel.thrift import Thrift, thrift
from dlb_core.outputs import Says, asked_outputs, choose_output, context_of, mask_names
from dlb_core.paths import Bound
from dlb_core.routing import Routing, slots_read
from dlb_core.targets import Context, Targets


@dataclass(frozen=True)
class Start:
    """Where relevance starts: a node; the index of an output, and its name where the target gave one."""

    node: fx.Node
    index: int | None = None
    name: str | int | None = None


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
    says: Says
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

    @property
    def explained(self) -> list[str]:
        """The names of the inputs that receive relevance."""
        return [i.name for i in self.program.inputs if i.node is not None and facts(i.node).active]

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

    def starts(self, at: str | None, target: Any, targets: Targets | None) -> tuple[Start, ...]:
        """Where relevance starts: the explained output, an inner node (`at`), or the outputs that the target names."""
        named = asked_outputs(target, targets)
        if at is not None:
            if named is not None:
                raise ValueError(f"at={at!r} starts at a node, target names outputs: give one of them")
            asked = [target] if targets is None or callable(targets) else targets
            by_head = any(isinstance(one, Heads) for one in asked)
            return (Start(self.inside.heads(at)[0] if by_head else self.node(at)),)
        if named is None:
            return (Start(self.output_node, self.output_index),)
        found = [(choose_output(self.program, name), name) for name in named]
        return tuple(Start(self.program.outputs[index], index, name) for index, name in found)

    def plan(self, mode: AnyMode, *starts: fx.Node) -> Plan:
        """The plan of a mode from a node (or several) back to the inputs, built once."""
        key = (mode.key, *(start.name for start in starts))
        if key not in self.plans:
            self.plans[key] = build_plan(self.layout, self.registry, mode, starts, self.dtype)
        return self.plans[key]

    def plans_of(self, mode: AnyMode | Bound, starts: Sequence[Start]) -> tuple[Plan | None, Plan]:
        """The plan of the mode that is split in two (None: it is not), and the mode's own."""
        nodes = [start.node for start in starts]
        if isinstance(mode, Bound):
            return None, self.plan(mode.plan_mode, *nodes)
        split = mode.mode.splits if isinstance(mode, BoundMode) else None
        if split is None:
            return None, self.plan(mode, *nodes)
        options = {*self.registry.mode(split).options, *EVERY}
        base = self.registry.bind(split, **{n: v for n, v in mode.options.items() if n in options})
        return self.plan(base, *nodes), self.plan(mode, *nodes)

    def forward(
        self, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], temperature: float, keep: frozenset[int] | None
    ) -> Prediction:
        """One checked forward pass that keeps the slots in `keep` (None: all)."""
        temperature = _checked(temperature)
        tensors = self.program.bind_inputs(inputs, kwargs)
        activations = run_forward(self.layout, tensors, keep)
        if not bool(torch.isfinite(activations.outputs[self.output_index]).all()):
            raise NonFiniteError(self._first_bad_node(tensors))
        prediction = Prediction(activations, [_version(v) for v in activations.values], temperature)
        self.output_of(prediction)  # a temperature that does not fit is refused now
        return prediction

    def kept_for(self, mode: AnyMode | Bound, starts: Sequence[Start], memory: str) -> frozenset[int] | None:
        """What an explanation keeps from its forward pass (None: all). Raises ValueError for memory= that cannot be."""
        choose("memory", memory, MEMORIES)
        if isinstance(mode, Bound):
            if memory == "low":
                raise ValueError(f'memory="low" is for modes at one point, and {mode.name} runs at several')
            return None
        plans = [plan for plan in self.plans_of(mode, starts) if plan is not None]
        more = {self.layout.slots[start.node.name] for start in starts} | slots_read(self.layout) | self._mask_slots()
        savings = [self.saving(plan, memory, alone=len(plans) == 1) for plan in plans]
        reads = (plan.reads if s is None else s.keep for plan, s in zip(plans, savings, strict=True))
        return frozenset(more).union(*reads)

    def saving(self, plan: Plan, memory: str | None, *, alone: bool) -> Thrift | None:
        """What a pass is kept for it, and frees; None: it finds all. alone: no other pass follows over these values."""
        if memory == "low":
            return checkpoints(plan)
        return thrift(plan) if memory == "normal" and alone else None

    def output_of(self, prediction: Prediction, index: int | None = None) -> Tensor:
        """An output (default: the explained one), divided by the temperature. ValueError where that makes no sense."""
        index = self.output_index if index is None else index
        output: Tensor = prediction.activations.outputs[index]
        if prediction.temperature == 1:
            return output
        if self._is_probability(self.program.outputs[index]):
            raise ValueError(
                f"temperature={prediction.temperature!r}: the explained output is a probability already, and a "
                "temperature divides logits: choose output=, or trace the model without its last softmax or sigmoid"
            )
        divided = output / prediction.temperature
        if bool((torch.isfinite(output) & ~torch.isfinite(divided)).any()):
            raise ValueError(f"temperature={prediction.temperature!r}: so small that the divided output overflows")
        return divided

    def given_to(self, prediction: Prediction) -> dict[str, Tensor]:
        """A copy of the tensor inputs by name: what a result shows stays what was explained."""
        values = prediction.activations.values
        given = {name: values[self.layout.slots[node]] for node, name in self.input_names.items()}
        return {name: value.detach().clone() for name, value in given.items() if isinstance(value, Tensor)}

    def routing_of(self, prediction: Prediction) -> Routing:
        """Which tokens went to which experts."""
        done = prediction.activations
        inputs = (done.shapes[self.layout.slots[name]] for name in self.input_names)
        samples = next((shape[0] for shape in inputs if len(shape)), 1)
        return Routing(self.layout, done.values, done.shapes, max(samples, 1))

    def value_at(self, prediction: Prediction, start: Start) -> Tensor:
        """The value that relevance starts from."""
        if start.index is not None:
            return self.output_of(prediction, start.index)
        value: Tensor = prediction.activations.values[self.layout.slots[start.node.name]]
        return value

    def context_at(self, prediction: Prediction, start: Start, value: Tensor) -> Context:
        """What is known about that value."""
        activations = prediction.activations
        return context_of(
            value,
            start.index,
            says=self.says,
            names=self.program.output_names,
            outputs=activations.outputs,
            masks=[activations.values[slot] for slot in self._mask_slots()],
            probability=self._is_probability(start.node),
        )

    def _is_probability(self, node: fx.Node) -> bool:
        row = self.registry.row_at(node)
        return row is not None and "gate" in row.tags

    def _mask_slots(self) -> set[int]:
        """The inputs that say where each sample ends."""
        masks = mask_names([*self.input_names.values()])
        return {self.layout.slots[node] for node, name in self.input_names.items() if name in masks}

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
            if isinstance(value, (tuple, list)):
                return max((_badness(part) for part in value), default=0)
            return _badness(value)

        node = self.output_node
        while worse := [n for n in node.all_input_nodes if badness(n) and n.name not in self.program.parameters]:
            node = max(worse, key=badness)
        weights = [self.program.parameters[n.name].name for n in node.all_input_nodes if badness(n)]
        what = "input" if node.op == "placeholder" else "node"
        name = self.input_names.get(node.name, node.name)
        where = f" in module {path!r}" if (path := module_path(node)) else ""
        advice = f"its weight {weights[0]!r} is not finite" if weights else "look at what feeds it"
        return f"the forward pass has NaN or infinite values, first at {what} {name!r}{where}: {advice}"


def _checked(temperature: Any) -> float:
    """A positive finite number as a float. Raises ValueError."""
    number = isinstance(temperature, Real) and not isinstance(temperature, bool)
    if not number or not 0 < temperature < float("inf"):
        raise ValueError(f"temperature={temperature!r}: must be a positive finite number")
    return float(temperature)


def _badness(value: Any) -> int:
    """2 for NaN and infinity, 1 for minus infinity, which may be a mask, 0 for neither."""
    if not isinstance(value, Tensor) or not value.is_floating_point():
        return 0
    return 2 if bool((value.isnan() | value.isposinf()).any()) else int(bool(value.isneginf().any()))


def _version(value: Any) -> int | None:
    if not isinstance(value, Tensor) or value.is_inference():
        return None
    return value._version
