"""The plan: every node bound to one rule, what each step reads, and when a tensor is freed."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import fx

from dlb_core.errors import RuleError
from dlb_core.kernel.call import Ref, references
from dlb_core.kernel.composites import AnyMode, BoundComposite
from dlb_core.kernel.facts import constant_name, facts, operand_nodes, row_of
from dlb_core.kernel.kinds import Constant, Elementwise, Row, Site, argument, for_complex, is_complex
from dlb_core.kernel.layout import Layout, type_of
from dlb_core.kernel.modes import BoundMode, Formula
from dlb_core.kernel.ops import bound_arguments, module_path, op_name
from dlb_core.kernel.places import survey
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry
from dlb_core.table import Table

log = logging.getLogger("dlb")


@dataclass(frozen=True)
class Target:
    """Where an operand's share goes: to the node at `slot`, or into an account."""

    slot: int | None
    account: str
    complex: bool = False


@dataclass(frozen=True, eq=False)
class RelevanceStep:
    """Take the relevance of the node at `slot` through `formula` to its `targets`."""

    node: fx.Node
    slot: int
    row: Row
    formula: Formula
    bound: Mapping[str, Any]
    receivers: frozenset[str]
    targets: Mapping[str, Target]
    reads: frozenset[int]
    declared: Row  # the row before it was narrowed
    mode: BoundMode  # of this node: a composite has several


@dataclass(frozen=True, eq=False)
class Plan:
    """A layout bound to a mode, a device and a dtype; the order in which relevance flows."""

    layout: Layout
    mode: AnyMode
    steps: tuple[RelevanceStep, ...]  # last node first
    dtype: torch.dtype
    memo: dict[str, Any] = field(default_factory=dict, repr=False)  # what others found out about this plan

    @cached_property
    def reads(self) -> frozenset[int]:
        """The slots whose values the relevance steps read."""
        return frozenset().union(*(step.reads for step in self.steps))

    @property
    def dynamic(self) -> bool:
        """Does a step have shapes that depend on data?"""
        return any(step.row.dynamic for step in self.steps)

    def table(self) -> Table:
        """Which rule runs at which node, in forward order."""
        rows = []
        for step in reversed(self.steps):
            node, gets = step.node, ", ".join(sorted(step.receivers)) or "-"
            named = (node.name, op_name(node.target), step.declared.kind, self.rule(step))
            rows.append((*named, gets, ", ".join(facts(node).folded), step.row.pack, module_path(node)))
        columns = ("node", "op", "kind", "rule", "relevance goes to", "folded", "pack", "module")
        return Table(columns, rows, title=f"plan: {self.mode!r}")

    def rule(self, step: RelevanceStep) -> str:
        """A step's rule in a word: ``epsilon/linear``, or the formula that every mode shares."""
        of_mode = step.formula in step.mode.formulas.values()
        return f"{step.mode.label}/{step.row.kind}" if of_mode else step.formula.name.strip("_")


def build_plan(layout: Layout, registry: Registry, mode: AnyMode, ends: Iterable[fx.Node], dtype: torch.dtype) -> Plan:
    """Binds a rule to every node that relevance can reach from `ends`, walking back once."""
    if mode.options.get("router") is not None and not any(facts(node).routers for node in layout.nodes):
        option = f"router={mode.options['router']!r}"
        raise ValueError(f"{option}: no loaded pack knows a router of experts in this model; see `dlb plugins`")
    places = survey(layout) if isinstance(mode, BoundComposite) else {}
    reached: set[fx.Node] = {node for node in ends if facts(node).active}
    steps: list[RelevanceStep] = []
    for node in reversed(layout.nodes):
        if node.op != "call_function" or node not in reached:
            continue
        step = _bind(node, layout, registry, mode.at(places[node]) if isinstance(mode, BoundComposite) else mode, dtype)
        steps.append(step)
        reached.update(layout.nodes[t.slot] for t in step.targets.values() if t.slot is not None)
    log.info("bound %d relevance steps for mode %r", len(steps), mode)
    return Plan(layout, mode, tuple(steps), dtype)


def _bind(node: fx.Node, layout: Layout, registry: Registry, mode: BoundMode, dtype: torch.dtype) -> RelevanceStep:
    fact = facts(node)
    slots = layout.slots
    declared = row_of(node, layout.program, registry, mode.name)
    if declared is None or isinstance(declared, Constant):
        raise RuleError(
            f"no rule for {op_name(node.target)} (node {node.name!r}) in mode {mode.name!r}: its rows are for other "
            "modes; use one of those, or add a row without modes="
        )
    bound = bound_arguments(node)
    if fact.source is not None:
        row: Row = declared.become(Elementwise, x=("source",))
        bound = {"source": fact.source}
        receivers = frozenset({"source"})
        sources = {"source": fact.source}
    else:
        sources = operand_nodes(node, declared)
        silent = fact.statistics | mode.withheld(fact.gates, fact.routers)
        active = frozenset(n for n, s in sources.items() if facts(s).active and n not in silent)
        row = for_complex(
            declared.narrow(Site(node, bound, active, silent, mode, registry, dtype, layout.program.device)), node
        )
        operands = row.operands(bound)
        receivers = active & frozenset(operands)
        sources = {name: s for name, s in sources.items() if name in operands}
    found = row.formula(mode.formulas)
    if found is None:
        raise RuleError(
            f"mode {mode.name!r} has no formula for kind {row.kind!r} (node {node.name!r}, {op_name(node.target)}); "
            f"add one to the mode's formulas"
        )
    targets = {}
    bias = getattr(row, "bias", None)
    for name in dict.fromkeys((*row.operands(bound), *((bias,) if bias else ()))):
        source = sources.get(name) or _node_or_none(argument(bound, name))
        if name in receivers and source is not None:
            targets[name] = Target(slots[source.name], "", is_complex(source))
        else:
            targets[name] = Target(None, _account(row, name, source, node, layout.program))
    templates = {name: _slotted(value, slots) for name, value in bound.items()}
    needed = [n for role in found.needs(mode) for n in _spread(row.role(role), bound)] + list(row.reads)
    reads = {slots[node.name]} if "output" in (*found.needs(mode), *row.reads) else set()
    for name in needed:
        if name != "output" and name.partition(".")[0] in bound:
            reads.update(references(_slotted(argument(bound, name), slots)))
    # numbers that come out of the graph (sizes) are read by any rule that looks at its arguments
    reads.update(s for t in templates.values() for s in references(t) if _is_number(layout.nodes[s]))
    return RelevanceStep(
        node, slots[node.name], row, found, templates, receivers, targets, frozenset(reads), declared, mode
    )


def _node_or_none(value: Any) -> fx.Node | None:
    return value if isinstance(value, fx.Node) else None


def _is_number(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return node.op == "call_function" and not isinstance(value, (torch.Tensor, tuple, list))


def _spread(names: Iterable[str], bound: Mapping[str, Any]) -> list[str]:
    """Argument names; a list argument gives one per element."""
    spread: list[str] = []
    for name in names:
        value = bound.get(name)
        if isinstance(value, (list, tuple)):
            spread += [f"{name}.{i}" for i in range(len(value))]
        else:
            spread.append(name)
    return spread


def _slotted(a: Any, slots: Mapping[str, int]) -> Any:
    if isinstance(a, fx.Node):
        return Ref(slots[a.name])
    if isinstance(a, (tuple, list)):
        return type_of(a)(_slotted(item, slots) for item in a)
    return a


def _account(row: Row, name: str, source: fx.Node | None, node: fx.Node, program: Program) -> str:
    """The account of an operand that receives nothing: a bias by its parameter, else a constant."""
    is_bias = name == getattr(row, "bias", None)
    label = node.name if source is None else constant_name(source, program)
    return f"{'bias' if is_bias else 'constant'}:{label}"
