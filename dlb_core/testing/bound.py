"""Runs one op (or a few, or a layer) as the engine does, with its books, but without a model around it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dlb_core.kernel.call import Call
from dlb_core.kernel.facts import note_activity
from dlb_core.kernel.layout import Layout, lay_out
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.packs import registry as installed
from dlb_core.kernel.plan import Plan, build_plan
from dlb_core.kernel.program import Input, Parameter, Program
from dlb_core.kernel.registry import Registry
from dlb_core.kernel.run import Activations, run_forward
from dlb_core.kernel.written import expand
from dlb_core.propagation import propagate

HALF = (torch.bfloat16, torch.float16)

#: A mode's name, or its name and its policy for biases (None where it has none).
ModeName = str | tuple[str, str | None]


@dataclass
class Bound:
    """A small program bound to a mode: run it forward, then send relevance back."""

    layout: Layout
    plan: Plan
    inputs: Mapping[fx.Node, Tensor]
    end: fx.Node

    @property
    def row(self) -> Any:
        """The row at the last node, narrowed to who receives there."""
        return self.plan.steps[0].row

    def forward(self, *, keep_all: bool = False) -> Activations:
        """Activations; only what the relevance steps say they read is kept, as the engine does."""
        keep = frozenset(self.plan.reads | {self.layout.slots[self.end.name]})
        return run_forward(self.layout, self.inputs, None if keep_all else keep)

    @property
    def output(self) -> Any:
        """What the last node gives."""
        return self.forward().values[self.layout.slots[self.end.name]]

    def call(self) -> Call:
        """The last node's call, with all its values."""
        step, done = self.plan.steps[0], self.forward(keep_all=True)
        where = (self.plan.dtype, self.layout.program.device)
        return Call(step.node, step.bound, step.slot, step.receivers, done.values, done.shapes, *where)

    def view(self) -> Any:
        """What the formula of the last node gets to see."""
        return self.row.view(self.call())

    def back(self, r: Any, *, several: bool = False, only_reads: bool = False) -> Outcome:
        """Relevance of the inputs and the settled books for a seed at the last node; the engine's own checks are on.

        several: the seed has a leading axis over seeds. only_reads: the op's inputs are freed as well, unless a rule
        said that it reads them.
        """
        done = self.forward()
        slots = self.layout.slots
        end = slots[self.end.name]
        output = done.values[end]
        if only_reads:
            done.values = [v if slot in self.plan.reads else None for slot, v in enumerate(done.values)]
        names = {node.name: entry.name for entry in self.layout.program.inputs if (node := entry.node) is not None}
        kept, ledgers = propagate(
            self.plan,
            done,
            {end: r},
            several=several,
            keep=frozenset(slots[name] for name in names),
            check="raise",
            input_names=names,
        )
        relevance = {label: kept[slots[name]] for name, label in names.items() if slots[name] in kept}
        return Outcome(output, r, relevance, ledgers, self.end.name)


@dataclass
class Outcome:
    """What one relevance pass gave."""

    output: Any
    seed: Any
    relevance: dict[str, Tensor]
    ledgers: tuple[Ledger, ...]
    last: str  # the last node's name: accounts of what has no name of its own carry it

    @property
    def accounts(self) -> dict[str, float]:
        """Units by account."""
        return dict(self.ledgers[0].accounts)

    def booked(self, account: str) -> float:
        """Units in one account, 0 where nothing was booked."""
        return self.accounts.get(account, 0.0)

    def __getitem__(self, name: str) -> Tensor:
        return self.relevance[name]


def bind(
    function: Callable[..., Any],
    tensors: Mapping[str, Tensor],
    active: Iterable[str],
    mode: ModeName = "default",
    *,
    passing: bool = False,
    registry: Registry | None = None,
    **options: Any,
) -> Bound:
    """A program of ATen ops, written as a function of its tensors by name; those not in `active` are parameters.

    passing: every tensor goes through a node of its own first, so its value is freed unless a rule says it reads it.
    registry: default, the one of this environment.
    """
    graph, values = fx.Graph(), {}
    tracer = fx.proxy.GraphAppendingTracer(graph)
    nodes = {name: graph.placeholder(name.replace(".", "_")) for name in tensors}
    given: dict[str, Any] = {name: fx.Proxy(node, tracer) for name, node in nodes.items()}
    if passing:
        given = {name: torch.ops.aten.alias.default(proxy) for name, proxy in given.items()}
    end = function(**given).node
    for name, node in nodes.items():
        values[node] = tensors[name]
    for node in graph.nodes:
        if node.op == "call_function":
            args, kwargs = pytree.tree_map_only(fx.Node, values.__getitem__, (tuple(node.args), dict(node.kwargs)))
            values[node] = node.target(*args, **kwargs)
        node.meta["val"] = pytree.tree_map_only(Tensor, _stand_in, values[node])
    active = list(active)
    inputs = tuple(Input(n, nodes[n], tuple(tensors[n].shape), tensors[n].dtype) for n in active)
    parameters = {nodes[n].name: Parameter(n, "parameter", t) for n, t in tensors.items() if n not in active}
    spec = pytree.tree_structure(((), {}))
    device = next((t.device for t in tensors.values()), torch.device("cpu"))
    program = Program(graph, inputs, spec, None, parameters, (end,), ("",), None, device=device)
    expand(program, installed() if registry is None else registry)
    (end,) = program.outputs
    return bound(program, {nodes[n]: tensors[n] for n in active}, end, active, mode, registry=registry, **options)


def _stand_in(t: Tensor) -> Tensor:
    """A meta tensor that lies in its memory as this one does: a view of a part stays one."""
    if t.layout is not torch.strided:
        return t.to("meta")
    size = t.untyped_storage().nbytes() // t.element_size()
    return torch.empty(size, dtype=t.dtype, device="meta").as_strided(t.shape, t.stride(), t.storage_offset())


def bound(
    program: Program,
    inputs: Mapping[fx.Node, Tensor],
    end: fx.Node,
    active: Iterable[str],
    mode: ModeName,
    *,
    registry: Registry | None = None,
    **options: Any,
) -> Bound:
    """A program prepared as the engine prepares one, and bound to a mode, with its seed at the node `end`."""
    found = installed() if registry is None else registry
    note_activity(program, found, active)
    for each in found.passes:
        if each.phase == "facts":
            each.run(program, found)
    layout = lay_out(program, found)
    name, bias = (mode, None) if isinstance(mode, str) else mode
    given = {**found.mode(name).example, **({} if bias is None else {"bias": bias}), **options}
    bound_mode = found.bind(name, **given)
    return Bound(layout, build_plan(layout, found, bound_mode, [end], _relevance_dtype(end)), inputs, end)


def _relevance_dtype(end: fx.Node) -> torch.dtype:
    """That of the output; float32 for half precision and for outputs that carry no relevance."""
    tensor = next((v for v in pytree.tree_leaves(end.meta["val"]) if isinstance(v, Tensor)), None)
    wide = tensor is not None and tensor.dtype in (torch.float64, torch.complex128)
    return torch.float64 if wide else torch.float32


def bind_op(
    op: Any,
    arguments: Mapping[str, Any],
    active: Iterable[str],
    mode: ModeName = "default",
    *,
    item: int | None = None,
    passing: bool = False,
    registry: Registry | None = None,
    **options: Any,
) -> Bound:
    """One op with its arguments by their schema names; elements of a list are called ``tensors.0``.

    item: read this one of its outputs.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in arguments.items():
        if isinstance(value, Tensor):
            tensors[name] = value
        elif isinstance(value, (list, tuple)):
            tensors |= {f"{name}.{i}": part for i, part in enumerate(value) if isinstance(part, Tensor)}

    def one(**proxies: Any) -> Any:
        def given(name: str, value: Any) -> Any:
            if name in proxies:
                return proxies[name]
            if isinstance(value, (list, tuple)):
                return [proxies.get(f"{name}.{i}", part) for i, part in enumerate(value)]
            return value

        tracer = next(iter(proxies.values())).tracer
        by_name = {name: given(name, value) for name, value in arguments.items()}
        out = tracer.create_proxy("call_function", op, *_as_called(op, by_name))
        return out if item is None else out[item]

    return bind(one, tensors, active, mode, passing=passing, registry=registry, **options)


def _as_called(op: Any, by_name: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and keyword arguments, as the schema wants them."""
    if not isinstance(op, torch._ops.OpOverload):
        return tuple(by_name.values()), {}
    keyword = {a.name for a in op._schema.arguments if a.kwarg_only}
    positional: list[Any] = []
    rest: dict[str, Any] = {}
    for place, argument in enumerate(op._schema.arguments):
        if argument.name not in by_name:
            continue
        if argument.name not in keyword and len(positional) == place:
            positional.append(by_name[argument.name])
        else:
            rest[argument.name] = by_name[argument.name]
    return tuple(positional), rest


def call_op(op: Any, arguments: Mapping[str, Any]) -> Any:
    """The op itself on arguments by name."""
    args, kwargs = _as_called(op, arguments)
    return op(*args, **kwargs)


def parts(t: Tensor) -> Tensor:
    """A complex tensor as real numbers: two outputs for each."""
    return torch.view_as_real(t.resolve_conj()) if t.is_complex() else t


def assert_conserved(done: Outcome) -> None:
    """What came in is what reached the operands plus what was booked, counted here and not by the ledger."""
    came = [parts(t).double() for t in pytree.tree_leaves(done.seed) if isinstance(t, Tensor)]
    went = [parts(t).double() for t in pytree.tree_leaves(list(done.relevance.values())) if isinstance(t, Tensor)]
    booked = done.accounts.values()
    residual = sum(float(t.sum()) for t in came) - sum(float(t.sum()) for t in went) - sum(booked)
    scale = sum(float(t.abs().sum()) for t in (*came, *went)) + sum(map(abs, booked))
    seeds = [t for t in pytree.tree_leaves(done.seed) if isinstance(t, Tensor)]
    allowed = 1e-9 if parts(seeds[0]).dtype == torch.float64 else 1e-5
    if any(isinstance(t, Tensor) and t.dtype in HALF for t in pytree.tree_leaves(done.output)):
        allowed = 2e-2  # a value of half precision is not quite the sum of what makes it
    if not abs(residual) <= allowed * scale:
        raise AssertionError(f"lost {residual} of {scale}; accounts {done.accounts}")
