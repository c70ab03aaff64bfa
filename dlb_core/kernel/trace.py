"""The export tracer: `torch.export`, then decompositions that make the graph functional."""

from __future__ import annotations

import contextlib
import inspect
import io
import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.export import Dim, ExportedProgram, ShapesCollection
from torch.export.graph_signature import ConstantArgument, InputKind, OutputKind
from torch.utils import _pytree as pytree

from dlb_core.errors import ExportError, TraceError
from dlb_core.kernel.fakes import Fakes, standing_in
from dlb_core.kernel.ops import traced_shape
from dlb_core.kernel.program import Input, Parameter, Program, canonical_call, input_names
from dlb_core.kernel.registry import Lend
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

Dynamic = str | Mapping[str, Any] | None


def trace_export(
    model: nn.Module | ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    *,
    dynamic_shapes: Dynamic = "auto",
    device: torch.device | None = None,
    fakes: Fakes | None = None,
    lends: Sequence[Lend] = (),
) -> Program:
    """A functional graph of ATen ops with named inputs and parameters.

    dynamic_shapes: ``"auto"`` (dimension 0; dimension 1 of integer inputs and their masks), None (fixed), or
    input name -> dimensions to keep free beside the automatic ones. fakes: shape functions for some ops. lends: what
    packs change about the model meanwhile. The model, the
    examples and torch's settings are left as they were found. Raises `TraceError`.
    """
    with tracing(), standing_in(fakes or {}):
        if isinstance(model, ExportedProgram):
            exported = model
            specs = model.graph_signature.input_specs
            names = [str(s.arg.name) for s in specs if s.kind is InputKind.USER_INPUT]
            signature = _signature_of(model, names)
            if dynamic_shapes != "auto":
                raise ValueError("dynamic_shapes= is for tracing: an ExportedProgram has its shapes already")
        else:
            check_module(model)
            signature = inspect.signature(model.forward)
            args, kwargs = canonical_call(signature, args, kwargs)
            names = ["output_" if name == "output" else name for name in input_names(signature, args, kwargs)]
            with contextlib.ExitStack() as lent:
                for lend in lends:
                    lent.enter_context(lend(model))
                exported = _export(model, args, dict(kwargs), names, dynamic_shapes)
        try:
            exported = exported.run_decompositions({})
        except Exception as error:
            kind = TraceError if isinstance(model, ExportedProgram) else ExportError
            raise kind(f"torch could not make the exported program functional: {error}") from error
    program = _read(exported, names, signature, device)
    if isinstance(model, ExportedProgram) and (args or kwargs):
        program.bind_inputs(args, kwargs)  # an example that does not fit is told now, not at the first call
    log.info("traced %d nodes, %d inputs", len(program.graph.nodes), len(program.inputs))
    return program


@contextlib.contextmanager
def _asides() -> Iterator[None]:
    """A failing export prints its half-made graph to stderr; that goes to the debug log."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            yield
    finally:
        if said.getvalue().strip():
            log.debug("while exporting: %s", said.getvalue())


def _export(
    model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], names: list[str], dynamic: Dynamic
) -> ExportedProgram:
    """Dynamic with sizes of at least two first, since export fixes every size it sees as one."""
    tries: list[tuple[str, bool, bool]] = [("dynamic", True, True), ("dynamic, sizes as given", True, False)]
    if dynamic is None or dynamic == "static":
        tries = []
    tries.append(("with fixed shapes", False, False))
    last: Exception | None = None
    for label, free, enlarge in tries:
        leaves, spec = pytree.tree_flatten((args, kwargs))
        leaves = [leaf.detach().clone() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        dims = free_dimensions(names, leaves, dynamic) if free else {}
        if enlarge:
            leaves = [_at_least_two(leaf, dims.get(i, {})) for i, leaf in enumerate(leaves)]
        if label == "dynamic, sizes as given" and all(
            leaf.shape[d] > 1 for i, ds in dims.items() for d in ds if isinstance(leaf := leaves[i], Tensor)
        ):
            continue  # the first try was this one
        shapes = ShapesCollection()
        for i, ds in dims.items():
            shapes[leaves[i]] = dict(ds)
        call_args, call_kwargs = pytree.tree_unflatten(leaves, spec)
        try:
            with as_found(model), without_cache(model), _asides():
                return torch.export.export(
                    model, call_args, call_kwargs, dynamic_shapes=cast(Any, shapes if dims else None), strict=False
                )
        except Exception as error:  # noqa: BLE001 - torch.export raises a dozen unrelated types
            last = error
            log.info("export %s failed: %s", label, first_line(error))
    raise _trace_error(model, args, kwargs, last) from last


def free_dimensions(names: list[str], leaves: list[Any], dynamic: Dynamic) -> dict[int, dict[int, Any]]:
    """Leaf -> the dimensions that may change from call to call."""
    if isinstance(dynamic, str) and dynamic != "auto":
        raise ValueError(f'dynamic_shapes={dynamic!r}: choose "auto", "static", None, or name -> dimensions')
    asked = dict(dynamic) if isinstance(dynamic, Mapping) else {}
    if unknown := sorted(set(asked) - set(names)):
        raise ValueError(f"dynamic_shapes names {', '.join(unknown)}: the inputs are {', '.join(names)}")
    tensors = {i: leaf for i, leaf in enumerate(leaves) if isinstance(leaf, Tensor)}
    sequences = {tuple(t.shape[:2]) for t in tensors.values() if not t.is_floating_point() and t.dim() >= 2}
    dims: dict[int, dict[int, Any]] = {}
    for i, tensor in tensors.items():
        free: dict[int, Any] = {0: Dim.AUTO} if tensor.dim() else {}
        if tensor.dim() >= 2 and tuple(tensor.shape[:2]) in sequences:
            free[1] = Dim.AUTO
        more = asked.get(names[i], ())
        free |= dict(more) if isinstance(more, Mapping) else {int(d): Dim.AUTO for d in more}
        if wrong := [d for d in free if not 0 <= d < tensor.dim()]:
            raise ValueError(f"dynamic_shapes[{names[i]!r}] names dimension {wrong[0]} of a tensor with {tensor.dim()}")
        if free:
            dims[i] = free
    return dims


def _at_least_two(leaf: Any, dims: Mapping[int, Any]) -> Any:
    """The example with every free dimension of size one repeated to two."""
    for dim in dims:
        if isinstance(leaf, Tensor) and leaf.shape[dim] == 1:
            leaf = leaf.repeat_interleave(2, dim)
    return leaf


def _trace_error(model: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], last: Exception | None) -> TraceError:
    return own_failure(model, args, kwargs) or ExportError(
        f"torch.export cannot trace this model: {type(last).__name__}: {first_line(last)}{place(last)}\n"
        'What to try: tracer="tape" records every call as it runs; or give tensors instead of Python numbers, avoid '
        "`if` on tensor values and `.item()`, split the part that does not export from the model and explain the rest."
    )


def _signature_of(exported: ExportedProgram, names: list[str]) -> inspect.Signature | None:
    """A program that takes plain tensors by position can be called by their names too."""
    positional = pytree.tree_structure((tuple(names), {}))
    if exported.call_spec.in_spec != positional or not all(name.isidentifier() for name in names):
        return None
    return inspect.Signature([inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names])


_KINDS = {InputKind.PARAMETER: "parameter", InputKind.BUFFER: "buffer", InputKind.CONSTANT_TENSOR: "constant"}


def _read(
    exported: ExportedProgram, names: list[str], signature: inspect.Signature | None, device: torch.device | None
) -> Program:
    """The exported program as ours: inputs and parameters by name, outputs flat."""
    graph = exported.graph
    nodes = {n.name: n for n in graph.nodes if n.op == "placeholder"}
    tensors: dict[str, Any] = {**exported.constants, **exported.state_dict}
    inputs: list[Input] = []
    parameters: dict[str, Parameter] = {}
    for spec in exported.graph_signature.input_specs:
        if spec.kind is InputKind.USER_INPUT:
            inputs.append(_input(names[len(inputs)], spec.arg, nodes))
        elif spec.kind in _KINDS:
            tensor = tensors[str(spec.target)].detach()
            parameters[spec.arg.name] = Parameter(str(spec.target), _KINDS[spec.kind], tensor)
        else:
            raise ExportError(f"the exported program takes {spec.kind.name.lower()} inputs, which dlb does not support")
    if device is None:
        device = next((p.tensor.device for p in parameters.values()), torch.device("cpu"))
    else:
        move_to(device, graph, parameters)
    out_node = next(n for n in graph.nodes if n.op == "output")
    flat = out_node.args[0]
    outputs: list[Any] = []
    for spec, value in zip(exported.graph_signature.output_specs, flat, strict=True):
        if spec.kind is OutputKind.USER_OUTPUT:
            outputs.append(value)
        elif spec.kind is not OutputKind.BUFFER_MUTATION:
            raise ExportError(
                f"the exported program has outputs of kind {spec.kind.name.lower()}, which dlb does not support"
            )
    out_node.args = (tuple(outputs),)  # what a buffer would become is nobody's output here
    return Program(
        graph=graph,
        inputs=tuple(inputs),
        in_spec=exported.call_spec.in_spec,
        signature=signature,
        parameters=parameters,
        outputs=tuple(outputs),
        output_names=output_names(exported.call_spec.out_spec),
        out_spec=exported.call_spec.out_spec,
        upper_bounds=_upper_bounds(exported),
        device=device,
    )


def _input(name: str, arg: Any, nodes: Mapping[str, fx.Node]) -> Input:
    if isinstance(arg, ConstantArgument):
        return Input(name, None, constant=arg.value)
    node = nodes[arg.name]
    value = node.meta["val"]
    if not isinstance(value, Tensor):
        return Input(name, None, constant=value)
    return Input(name, node, traced_shape(value), value.dtype)


def _upper_bounds(exported: ExportedProgram) -> dict[str, int]:
    """The largest size of each symbol, where the model bounds it (position embeddings)."""
    unbounded = 2**40  # torch writes its own infinity, or the largest integer
    ranges = {str(symbol): interval.upper for symbol, interval in exported.range_constraints.items()}
    return {symbol: int(upper) for symbol, upper in ranges.items() if upper.is_number and upper < unbounded}
