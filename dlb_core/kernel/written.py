"""Ops that are written with others: a torch function becomes nodes of a graph, without a value being computed."""

from __future__ import annotations

import inspect
import logging
import operator
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, cast

import torch
from torch import Tensor, fx
from torch._guards import detect_fake_mode
from torch._ops import OpOverload
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dlb_core.errors import RuleError
from dlb_core.kernel.facts import row_of
from dlb_core.kernel.kinds import Compound
from dlb_core.kernel.ops import bound_arguments, op_name
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Registry

log = logging.getLogger("dlb")

ROUNDS = 8  # a written form may use a compound op, but not itself


class _Writer(TorchDispatchMode):
    """Appends a node for every op that runs on values which have one."""

    def __init__(self, graph: fx.Graph, meta: Mapping[str, Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._graph = graph
        self._meta = meta
        self._nodes: dict[int, fx.Node] = {}
        self._alive: list[Any] = []  # an id means its object only while that lives
        self._sizes: dict[str, tuple[fx.Node, int]] = {}  # a symbol -> where to read it

    def knows(self, value: Any, node: fx.Node) -> None:
        """From now on this value stands for that node."""
        self._nodes[id(value)] = node
        self._alive.append(value)
        if isinstance(value, Tensor):
            for dim, size in enumerate(value.shape):
                if isinstance(cast(Any, size), torch.SymInt):
                    self._sizes.setdefault(str(size), (node, dim))
        elif isinstance(value, torch.SymInt):
            self._sizes[str(value)] = (node, -1)

    def node_of(self, value: Any) -> Any:
        """The node of a tensor or of a free size; anything else is itself."""
        if isinstance(value, torch.SymInt):
            return self._size(value)
        if isinstance(value, Tensor) and id(value) not in self._nodes:
            raise RuleError("a written form may only use its arguments and what it makes of them")
        return self._nodes.get(id(value), value) if isinstance(value, Tensor) else value

    def _size(self, size: torch.SymInt) -> fx.Node:
        if str(size) not in self._sizes:
            raise RuleError(f"a written form computes a size ({size}) that may change from call to call")
        node, dim = self._sizes[str(size)]
        if dim < 0:
            return node
        read = self._graph.call_function(torch.ops.aten.sym_size.int, (node, dim))
        read.meta = {**self._meta, "val": size}
        self._sizes[str(size)] = (read, -1)
        return read

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        tensors = [v for v in pytree.tree_leaves(out) if isinstance(v, Tensor)]
        if not tensors:
            return out  # a question about a tensor: its device, its size
        if not isinstance(func, OpOverload) or func._schema.is_mutable:
            raise RuleError(f"a written form must not change a tensor in place, and {op_name(func)} does")
        nodes, named = pytree.tree_map(self.node_of, (args, kwargs or {}))
        name = func._schema.name.rpartition("::")[2]  # as export names nodes: linear, linear_1
        node = self._graph.create_node("call_function", func, nodes, named, name)
        node.meta = {**self._meta, "val": out}
        if isinstance(out, Tensor):
            self.knows(out, node)
            return out
        for index, part in enumerate(out):
            if isinstance(part, Tensor):
                item = self._graph.call_function(operator.getitem, (node, index))
                item.meta = {**self._meta, "val": part}
                self.knows(part, item)
        return out


def write(graph: fx.Graph, function: Callable[..., Any], arguments: Mapping[str, Any], meta: Mapping[str, Any]) -> Any:
    """Appends what `function` does with the arguments (nodes among them) at the graph's insertion point.

    The nodes' `val`s stand in for their values. Returns the nodes of what it returned, in its structure.
    """
    writer = _Writer(graph, meta)

    def stand_in(argument: Any) -> Any:
        if not isinstance(argument, fx.Node):
            return argument
        value = argument.meta["val"]
        if isinstance(value, Tensor) and id(value) in writer._nodes:
            value = value.clone()  # two nodes with one fake value
        writer.knows(value, argument)
        return value

    values = fx.node.map_aggregate(dict(arguments), stand_in)
    fake = detect_fake_mode(pytree.tree_leaves(values)) or nullcontext()
    # below autograd a mode sees ops whole, as they are traced: linear and not its parts
    with fake, torch.no_grad(), torch._C._AutoDispatchBelowAutograd(), writer:
        out = function(**values)
    return pytree.tree_map(writer.node_of, out)


def expand(program: Program, registry: Registry) -> None:
    """Every node whose row is `Compound` becomes the nodes of its written form."""
    for _ in range(ROUNDS):
        compounds = [
            (node, row)
            for node in program.graph.nodes
            if isinstance(row := row_of(node, program, registry), Compound) and not _refused(node, row)
        ]
        if not compounds:
            return
        for node, row in compounds:
            _expand(program, node, row)
        log.info("wrote %d compound nodes with other ops", len(compounds))
    raise RuleError(f"the written form of {op_name(compounds[0][0].target)} uses that op itself")


def _refused(node: fx.Node, row: Compound) -> bool:
    """Activity is known later; if relevance needs this node, that is when it is told why."""
    return row.refuses is not None and row.refuses(bound_arguments(node)) is not None


def _expand(program: Program, node: fx.Node, row: Compound) -> None:
    meta = {key: value for key, value in node.meta.items() if key in ("nn_module_stack", "stack_trace")}
    known = {*program.graph.nodes}
    with program.graph.inserting_before(node):
        try:
            out = write(program.graph, row.written, _taken(row, bound_arguments(node)), meta)
        except Exception as error:
            error.add_note(f"in the written form of {op_name(node.target)} (pack {row.pack or '?'})")
            raise
    if isinstance(out, fx.Node):
        name, mine = node.name, out not in known
        program.drop(node, out)
        if mine:  # the last of the parts is what the op was
            program.rename(out, name)
        return
    for user in list(node.users):
        if user.target is operator.getitem:
            part = out[user.args[1]]
            if part is not None:
                program.drop(user, part)
            elif not user.users and user not in program.outputs:
                program.graph.erase_node(user)
    if node.users or node in program.outputs:
        raise RuleError(f"the written form of {op_name(node.target)} lacks an output that the model reads")
    program.graph.erase_node(node)


def _taken(row: Compound, bound: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments that the written form names, or all of them where it takes ``**`` any."""
    takes = inspect.signature(row.written).parameters
    if any(p.kind is p.VAR_KEYWORD for p in takes.values()):
        return dict(bound)
    return {name: value for name, value in bound.items() if name in takes}
