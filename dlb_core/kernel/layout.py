"""The layout: the mode-independent half of a plan. Slots, forward steps, and when a value is freed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import fx

from dlb_core.kernel.call import Ref, caller, reader, references
from dlb_core.kernel.facts import row_of
from dlb_core.kernel.kinds import Row
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry


@dataclass(frozen=True, eq=False)
class ForwardStep:
    """Run the node's op on the values that its templates name; the result goes to `slot`."""

    node: fx.Node
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    slot: int
    run: Callable[[Sequence[Any]], Any]
    read: Callable[[Sequence[Any]], tuple[Any, ...]]  # the values among its arguments, in order


@dataclass
class Layout:
    """The mode-independent half: slots, forward steps, activity; made once per program."""

    program: Program
    nodes: tuple[fx.Node, ...]
    slots: Mapping[str, int]
    forward: tuple[ForwardStep, ...]
    rows: tuple[Row | None, ...]  # by slot, the row that runs forward
    outputs: tuple[Any, ...]  # Refs and constants
    _frees: dict[frozenset[int], tuple[tuple[int, ...], ...]] = field(default_factory=dict)

    def frees(self, keep: frozenset[int]) -> tuple[tuple[int, ...], ...]:
        """For every forward step, the slots that nobody reads after it."""
        if keep not in self._frees:
            stays = keep | {i for out in self.outputs for i in references(out)}
            stays |= {self.slots[n.name] for n in self.nodes if n.op == "placeholder"}  # the caller holds these
            last: dict[int, int] = {}
            for index, step in enumerate(self.forward):
                last[step.slot] = index  # a value nobody reads goes at once
                for slot in references((step.args, dict(step.kwargs))):
                    last[slot] = index
            frees: list[list[int]] = [[] for _ in self.forward]
            for slot, index in last.items():
                if slot not in stays:
                    frees[index].append(slot)
            self._frees[keep] = tuple(map(tuple, frees))
        return self._frees[keep]


def lay_out(program: Program, registry: Registry) -> Layout:
    """Slots and forward steps for a program."""
    nodes = tuple(n for n in program.graph.nodes if n.op != "output")
    slots = {node.name: i for i, node in enumerate(nodes)}

    def template(a: Any) -> Any:
        if isinstance(a, fx.Node):
            return Ref(slots[a.name])
        if isinstance(a, (tuple, list)):
            return type_of(a)(template(item) for item in a)
        if isinstance(a, dict):
            return {k: template(v) for k, v in a.items()}
        if isinstance(a, slice):
            return slice(template(a.start), template(a.stop), template(a.step))
        return a

    rows = tuple(row_of(node, program, registry) for node in nodes)

    def step(node: fx.Node) -> ForwardStep:
        row = rows[slots[node.name]]
        args, kwargs = tuple(template(node.args)), template(node.kwargs)
        target: Any = node.target
        function = target if row is None else row.runs(target)
        read = reader(tuple(map(Ref, references((args, kwargs)))))
        return ForwardStep(node, args, kwargs, slots[node.name], caller(function, args, kwargs), read)

    forward = tuple(step(node) for node in nodes if node.op == "call_function")
    return Layout(program, nodes, slots, forward, rows, tuple(template(out) for out in program.outputs))


def type_of(a: Any) -> type:
    """list for fx's immutable lists, tuple for tuples (named ones too)."""
    return list if isinstance(a, list) else tuple
