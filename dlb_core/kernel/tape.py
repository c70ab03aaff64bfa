"""The tape: records what a model does on one input, and writes the graph that the export tracer would write.

A dispatch mode below autograd sees the ops that `torch.export` keeps: composite ones are whole, unless they may return
what they were given (reshape, to). Everything runs eagerly, so whatever Python decides on the way is decided: a number
that `.item()` reads is a constant of this call.
"""

from __future__ import annotations

import contextlib
import inspect
import logging
import operator
import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch._ops import OpOverload
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode

from dlb_core.errors import TraceError
from dlb_core.kernel.landmarks import Landmarks
from dlb_core.kernel.memory import Memory, View, geometry
from dlb_core.kernel.ops import op_name, traced_shape
from dlb_core.kernel.program import Input, Parameter, Program, canonical_call, input_names
from dlb_core.kernel.surroundings import (
    as_found,
    check_module,
    first_line,
    move_to,
    output_names,
    own_failure,
    place,
    tracing,
    without_cache,
)

log = logging.getLogger("dlb")
aten = torch.ops.aten


def trace_tape(
    model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any], *, device: torch.device | None = None
) -> Program:
    """The functional graph of ATen ops that one call of the model was, with named inputs and parameters.

    It holds for inputs of these shapes that take the same way through the model's code. Runs the model once; the model,
    the inputs and torch's settings are left as they were found. Raises `TraceError`.
    """
    check_module(model)
    signature = inspect.signature(model.forward)
    args, kwargs = canonical_call(signature, args, kwargs)
    leaves, in_spec = pytree.tree_flatten((args, dict(kwargs)))
    home = next((t.device for t in (*model.parameters(), *model.buffers())), None)
    try:
        with tracing(), torch._C._AutoDispatchBelowAutograd():
            tape = Tape(model)
            names = input_names(signature, args, kwargs)
            inputs = [tape.input(name, leaf, home) for name, leaf in zip(names, leaves, strict=True)]
            given, named = pytree.tree_unflatten([leaf for _, leaf in inputs], in_spec)
            outputs, out_spec = pytree.tree_flatten(tape.record(given, named))
            flat = tuple(tape.node_of(leaf) if isinstance(leaf, Tensor) else leaf for leaf in outputs)
    except TraceError:
        raise
    except Exception as error:
        told = f"{type(error).__name__}: {first_line(error)}{place(error)}"
        with tracing():
            failure = own_failure(model, args, kwargs) or TraceError(f"the tape cannot record this model: {told}")
        raise failure from error
    tape.graph.output(flat)
    if device is not None and device != home:
        move_to(device, tape.graph, tape.parameters)
    log.info("recorded %d nodes, %d inputs", len(tape.graph.nodes), len(inputs))
    return Program(
        graph=tape.graph,
        inputs=tuple(entry for entry, _ in inputs),
        in_spec=in_spec,
        signature=signature,
        parameters=tape.parameters,
        outputs=flat,
        output_names=output_names(out_spec),
        out_spec=out_spec,
        tracer="tape",
        device=device or home or next((t.device for t in leaves if isinstance(t, Tensor)), torch.device("cpu")),
    )


class Tape(TorchDispatchMode):
    """Runs every op and writes it down, what is written in place as the new value it amounts to."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.graph = fx.Graph()
        self.parameters: dict[str, Parameter] = {}
        self._model = model
        self._landmarks = Landmarks(model)
        self._memory = Memory(self._emit)
        self._fakes = FakeTensorMode()
        self._inputs: list[fx.Node] = []
        self._names: set[str] = set()

    def record(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What the model returns; the graph then says how it came about."""
        try:
            with as_found(self._model), self._landmarks.watching(), without_cache(self._model), self:
                return self._model(*args, **kwargs)
        finally:
            self._memory.restore()

    def input(self, name: str, leaf: Any, device: torch.device | None) -> tuple[Input, Any]:
        """An input of the program, and what the model is given for it: a copy, which it may write to."""
        if not isinstance(leaf, Tensor):
            return Input(name, None, constant=leaf), leaf
        name = "output_" if name == "output" else name
        node = self._placeholder(name, leaf)
        self._inputs.append(node)
        copy = leaf.detach().clone()
        copy = copy if device is None else copy.to(device)
        self._memory.add(copy, node)
        return Input(name, node, traced_shape(leaf), leaf.dtype), copy

    def node_of(self, tensor: Tensor) -> fx.Node:
        """The node with a tensor's value; a tensor that no op made is the model's own, or a constant."""
        if not self._memory.knows(tensor):
            self._memory.add(tensor, self._own(tensor), leaf=True)
        return self._memory.read(tensor)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if _may_alias(func) or _hides_writes(func, args):
            with self:
                if func is aten.batch_norm.default:
                    return aten._native_batch_norm_legit.default(*args[:-1])[0]
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if torch.Tag.inplace_view in func.tags:
            return self._turn(func, args, kwargs)
        if func._schema.is_mutable:
            return self._write(func, args, kwargs)
        return self._call(func, args, kwargs)

    def _call(self, func: OpOverload, args: Any, kwargs: Any) -> Any:
        """Runs an op and writes it down, if it gives tensors at all."""
        result = func(*args, **kwargs)
        if not any(isinstance(leaf, Tensor) for leaf in pytree.tree_leaves(result)):
            return result  # Python's from here on
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        if not given and torch.Tag.nondeterministic_seeded in func.tags:
            return result  # drawn once: `node_of` takes the numbers for a constant of this call
        if isinstance(result, Tensor) and any(result is tensor for tensor in given):
            source = self.node_of(result)  # dropout in eval mode: nothing but its place in the model
            self._memory.renew(result, self._emit(aten.clone.default, (source,), {}, source.meta["val"]))
            return result
        if func is aten.as_strided.default:
            self.node_of(given[0])
            self._memory.add_strided(result, given[0])
            return result
        node = self._emit(func, self._as_nodes(args), self._as_nodes(kwargs), self._fake(result))
        self._made(result, node, given)
        return result

    def _made(
        self, result: Any, node: fx.Node, given: list[Tensor], of: fx.Node | None = None, index: Any = None
    ) -> None:
        """The tensors that an op gave, each of several by a node of its own."""
        if not isinstance(result, Tensor):
            for i, item in enumerate(result):
                if isinstance(item, (Tensor, list, tuple)):
                    piece = self._emit(operator.getitem, (node, i), {}, node.meta["val"][i])
                    self._made(item, piece, given, node, i)
            return
        source = next((tensor for tensor in given if self._memory.shares(result, tensor)), None)
        if source is None:
            self._memory.add(result, node)
        else:
            view = View(of or node, self._memory.read(source), index)
            self._memory.add_view(result, source, node, view)

    def _write(self, func: OpOverload, args: Any, kwargs: Any) -> Any:
        """An op that changes its arguments: the op that gives new values instead, and the values are put in place."""
        twin = functional(func)
        bound = dict(zip((a.name for a in func._schema.arguments), args, strict=False)) | kwargs
        written = [bound[a.name] for a in func._schema.arguments if a.alias_info and a.alias_info.is_write]
        if twin is None or any(item is None for item in written):
            raise TraceError(
                f"{op_name(func)} changes its arguments and torch has no form of it that returns them: {func._schema}"
            )
        takes = [a for a in twin._schema.arguments if a.name in bound]
        plain = [bound[a.name] for a in takes if not a.kwarg_only]
        values = self._call(twin, plain, {a.name: bound[a.name] for a in takes if a.kwarg_only})
        values = values if len(twin._schema.returns) > 1 else (values,)
        given = iter(values[: len(values) - len(written)])  # what it returns besides
        for target, value in zip(written, values[len(values) - len(written) :], strict=True):
            pairs = zip(target, value, strict=True) if isinstance(target, (list, tuple)) else [(target, value)]
            for one, new in pairs:
                self._put(one, new)
        puts = iter(written)
        results = tuple(next(given) if r.alias_info is None else next(puts) for r in func._schema.returns)
        return results[0] if len(results) == 1 else results or None

    def _put(self, target: Tensor, value: Tensor) -> None:
        node = self.node_of(value)
        if value.dtype != target.dtype:
            fake = self._fake(value.to(target.dtype))
            node = self._emit(aten._to_copy.default, (node,), {"dtype": target.dtype}, fake)
        if target.shape != value.shape:  # only `out=` may grow
            target.resize_(value.shape)
            self._memory.add(target, node)
        else:
            self.node_of(target)
            self._memory.write(target, node)
        target.copy_(value)

    def _turn(self, func: OpOverload, args: Any, kwargs: Any) -> Any:
        """An op that makes a tensor look at its memory in another way: from here on it is that view."""
        tensor, twin = args[0], functional(func)
        if twin is None or twin._schema.returns[0].alias_info is None:
            raise TraceError(f"the tape cannot follow {op_name(func)}: {func._schema}")
        source, before = self.node_of(tensor), geometry(tensor)
        func(*args, **kwargs)
        if geometry(tensor) != before:
            node = self._emit(twin, (source, *self._as_nodes(args[1:])), kwargs, self._fake(tensor))
            self._memory.add_view(tensor, tensor, node, View(node, source))
        return tensor

    def _as_nodes(self, arguments: Any) -> Any:
        return pytree.tree_map_only(Tensor, self.node_of, arguments)

    def _emit(self, target: Any, args: Any, kwargs: Any, value: Any) -> fx.Node:
        name = target.overloadpacket.__name__ if isinstance(target, OpOverload) else target.__name__
        name = name[2:-2] if name.startswith("__") else name
        node = self.graph.create_node("call_function", target, tuple(args), dict(kwargs), name=name)
        node.meta["val"] = value
        node.meta["nn_module_stack"] = self._landmarks.stack
        return node

    def _own(self, tensor: Tensor) -> fx.Node:
        """A placeholder for a tensor of the model, named as torch.export names it."""
        n = sum(p.name.startswith("lifted_tensor_") for p in self.parameters.values())
        kind, name = self._landmarks.tensors.get(id(tensor), ("constant", f"lifted_tensor_{n}"))
        first = next(iter(self.graph.nodes), None) if not self._inputs else self._inputs[0]
        node = self._placeholder(f"{kind[0]}_{name}", tensor, first)
        self.parameters[node.name] = Parameter(name, kind, tensor.detach())
        return node

    def _placeholder(self, name: str, tensor: Tensor, before: fx.Node | None = None) -> fx.Node:
        """Named as torch.export names it; fx alone would not let an input be called `input`."""
        name = re.sub(r"[^a-zA-Z0-9]", "_", name.lower())
        with self.graph.inserting_before(before) if before else contextlib.nullcontext():
            node = self.graph.placeholder(name)
        node.name = node.name if name in self._names else name
        self._names.add(node.name)
        node.meta["val"] = self._fake(tensor)
        return node

    def _fake(self, value: Any) -> Any:
        """The value without its memory."""
        return pytree.tree_map_only(Tensor, self._fake_tensor, value)

    def _fake_tensor(self, tensor: Tensor) -> FakeTensor:
        empty = torch.empty_strided(tensor.shape, tensor.stride(), dtype=tensor.dtype, device="meta")
        return FakeTensor(self._fakes, empty, tensor.device)


@lru_cache(maxsize=4096)
def _may_alias(func: OpOverload) -> bool:
    """A composite op that may return what it was given, or change it: its parts are recorded, as torch.export does."""
    composite = torch._C._dispatch_has_kernel_for_dispatch_key(func.name(), "CompositeImplicitAutograd")
    return composite and any(a.alias_info is not None for a in func._schema.arguments)


def _hides_writes(func: OpOverload, args: Any) -> bool:
    """A norm that goes by its input's statistics also writes them to its buffers, which its schema does not say."""
    return func in (aten.batch_norm.default, aten.instance_norm.default) and args[3] is not None and bool(args[5])


@lru_cache(maxsize=4096)
def functional(func: OpOverload) -> OpOverload | None:
    """The op that returns what `func` writes: its name without the underscore, its arguments without `out`."""
    namespace, name = func._schema.name.split("::")
    plain = f"__{name[3:]}" if name.startswith("__i") else name.removesuffix("_")
    wanted = [(a.name, str(a.type)) for a in func._schema.arguments if not a.is_out]
    found: list[OpOverload] = []
    for packet in (getattr(getattr(torch.ops, namespace), n, None) for n in (plain, f"{plain}_functional")):
        for overload in packet.overloads() if packet is not None else ():
            twin: OpOverload = getattr(packet, overload)
            same = [(a.name, str(a.type)) for a in twin._schema.arguments] == wanted
            if same and not twin._schema.is_mutable:
                found.append(twin)
    return next((t for t in found if t._overloadname == func._overloadname), found[0] if found else None)
