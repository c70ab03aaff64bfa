"""`DLBacktrace`: trace a model once, predict, and explain what it predicted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, fx, nn
from torch.export import ExportedProgram

from dlb_core.errors import NonFiniteError, StaleActivationsError
from dlb_core.explanation import Explanation
from dlb_core.kernel.call import resolve
from dlb_core.kernel.facts import facts
from dlb_core.kernel.ledger import CHECKS
from dlb_core.kernel.modes import BoundMode
from dlb_core.kernel.packs import registry as load
from dlb_core.kernel.plan import Plan, build_plan
from dlb_core.kernel.prepare import prepare
from dlb_core.kernel.run import Activations, run_forward
from dlb_core.kernel.thrift import thrift
from dlb_core.kernel.trace import trace_export
from dlb_core.propagation import propagate
from dlb_core.relevance import Relevance
from dlb_core.targets import Context, Request, make_seed

if TYPE_CHECKING:
    import networkx as nx

TRACERS = ("auto", "export")


class NodeIO(NamedTuple):
    """What went into a node (its tensors, in order) and what came out."""

    inputs: tuple[Any, ...]
    output: Any


class _Prediction(NamedTuple):
    activations: Activations
    versions: list[int | None]
    temperature: float


class DLBacktrace:
    """Explains a PyTorch model by relevance propagation: every unit of relevance accounted for.

    model: an `nn.Module` in eval mode that `torch.export` can trace, or an `ExportedProgram`; it is left as it was
    found. input_for_graph: example inputs, a tensor, a tuple of positional or a dict of keyword arguments. device:
    "auto" (where the model is) or a device its parameters are copied to. dynamic_shapes: "auto" (batch and sequence
    length may change), None (fixed), or input name -> further dimensions that may change. output: which output to
    explain, by name or index (default: the first floating tensor). explain_inputs: which inputs receive relevance
    (default: the floating ones and the ids that a lookup reads). fold: fold BatchNorm into the layer before it.
    check: "raise" (every node), "warn", "ends" (seed against inputs and accounts), "off". relevance_dtype: default
    the model's dtype, float32 for half-precision models.

    Raises `TraceError` and `UnsupportedOpError` (naming all ops without a rule) before any work.
    """

    def __init__(
        self,
        model: nn.Module | ExportedProgram,
        input_for_graph: Any,
        *,
        device: str | torch.device = "auto",
        dynamic_shapes: Any = "auto",
        tracer: str = "auto",
        output: str | int | None = None,
        explain_inputs: Iterable[str] | None = None,
        fold: bool = True,
        check: str = "raise",
        relevance_dtype: torch.dtype | None = None,
    ) -> None:
        if tracer not in TRACERS:
            raise ValueError(f"tracer={tracer!r}: choose one of {', '.join(map(repr, TRACERS))}")
        if check not in CHECKS:
            raise ValueError(f"check={check!r}: choose one of {', '.join(map(repr, CHECKS))}")
        if relevance_dtype is not None and not relevance_dtype.is_floating_point:
            raise ValueError(f"relevance_dtype={relevance_dtype}: must be a floating dtype")
        self.check = check
        self._registry = load()
        args, kwargs = _as_call(input_for_graph)
        program = trace_export(
            model,
            args,
            kwargs,
            dynamic_shapes=dynamic_shapes,
            device=None if device == "auto" else torch.device(device),
        )
        self._layout = prepare(program, self._registry, switches={"fold": fold}, explain_inputs=explain_inputs)
        self._program = program
        self._output_index = _choose_output(program.outputs, program.output_names, output)
        self._output_node: fx.Node = program.outputs[self._output_index]
        self._dtype = relevance_dtype or _relevance_dtype(self._output_node)
        self._causal = _is_causal(model)
        self._plans: dict[tuple[Any, ...], Plan] = {}
        self._last: _Prediction | None = None

    # what a user calls

    def predict(self, *inputs: Any, temperature: float = 1.0, **kwargs: Any) -> dict[str, NodeIO]:
        """Runs the model and keeps every activation for the evaluations that follow.

        inputs: like the traced ones; free dimensions may have other sizes. temperature: divides the chosen output
        (> 0). Returns node name -> `NodeIO` in execution order: the inputs first, the model's output last under
        ``output``. The tensors belong to the engine until the next predict. Raises `InputMismatchError`,
        `NonFiniteError`.
        """
        prediction = self._forward(inputs, kwargs, temperature, keep=None)
        self._last = prediction
        values = prediction.activations.values
        node_io: dict[str, NodeIO] = {}
        for entry in self._program.inputs:
            if entry.node is not None:
                node_io[entry.name] = NodeIO((), values[self._layout.slots[entry.node.name]])
        for step in self._layout.forward:
            arguments = resolve((step.args, tuple(step.kwargs.values())), values)
            node_io[step.node.name] = NodeIO(_tensors(arguments), values[step.slot])
        final = _output_of(prediction, self._output_index)
        node_io["output"] = NodeIO((prediction.activations.outputs[self._output_index],), final)
        return node_io

    def evaluation(
        self,
        mode: str = "default",
        multiplier: float = 100.0,
        task: str = "auto",
        *,
        target: Any = None,
        targets: Sequence[Any] | None = None,
        seed: str = "multiplier",
        scaler: float = 1.0,
        thresholding: float = 0.5,
        bias: str | None = None,
        through: Mapping[str, Any] | None = None,
        model_type: str | None = None,
        **mode_options: Any,
    ) -> Relevance:
        """Relevance of the last predict's output at every node, with its ledger.

        mode: see `dlb modes`; further keyword arguments are options of the mode. multiplier: units per sample at the
        output, times `scaler`. target: a class, a (position, class), a list with one per sample, a weight tensor of
        the output's shape, or a callable that gets the output and returns one of these (default: what `task` means).
        targets: several seeds at once, a leading axis on everything. seed: "multiplier", "logit" (the output's own
        value) or "probability". bias: "absorb" or "redistribute". through: node or module -> channels; only
        relevance through them goes on, the rest is booked under ``through:<node>``. Raises ValueError for what is
        unknown or out of range, `ConservationError` when the books do not close.
        """
        if self._last is None:
            raise RuntimeError("evaluation explains the last predict: call predict(...) first, or explain(...)")
        self._check_versions(self._last)
        request = Request(task, target, seed, multiplier, scaler, thresholding, model_type)
        bound = self._mode(mode, bias, mode_options)
        return self._relevance(self._last, bound, request, targets, through, keep="all", at=None, consume=False)

    def explain(
        self,
        *inputs: Any,
        mode: str = "default",
        target: Any = None,
        targets: Sequence[Any] | None = None,
        task: str = "auto",
        multiplier: float = 100.0,
        seed: str = "multiplier",
        scaler: float = 1.0,
        thresholding: float = 0.5,
        bias: str | None = None,
        through: Mapping[str, Any] | None = None,
        model_type: str | None = None,
        temperature: float = 1.0,
        keep: str | Sequence[str] = "inputs",
        at: str | None = None,
        mode_options: Mapping[str, Any] | None = None,
        **kwargs: Any,
    ) -> Explanation:
        """Predict and evaluation at once, keeping only what is asked for; the state of `predict` is not touched.

        keep: "inputs", "all", or names of nodes and modules. at: start at this node or module instead of the output;
        `target` then indexes its value. mode_options: options of the mode, since keyword arguments that are not
        named here go to the model. Other arguments: see `evaluation`.
        """
        request = Request(task, target, seed, multiplier, scaler, thresholding, model_type)
        bound = self._mode(mode, bias, mode_options or {})
        start = self._output_node if at is None else self._node(at)
        plan = self._plan(bound, start)
        keep_slots = thrift(plan).keep | {self._layout.slots[start.name]} | self._last_position_slots()
        prediction = self._forward(inputs, kwargs, temperature, keep=frozenset(keep_slots))
        output = _output_of(prediction, self._output_index)
        relevance = self._relevance(prediction, bound, request, targets, through, keep=keep, at=at, consume=True)
        return Explanation(relevance=relevance, output=output, options=dict(bound.options))

    def plan(self, mode: str = "default", **options: Any) -> Plan:
        """What will run where in a mode, before running anything: `dlb.plan("epsilon").table()`."""
        bias = options.pop("bias", None)
        return self._plan(self._mode(mode, bias, options), self._output_node)

    def graph(self, mode: str = "default") -> nx.DiGraph:
        """The program as a NetworkX graph in topological order: op, kind, rule, pack, hyperparameters, shapes."""
        from dlb_core.graph_view import graph_view

        return graph_view(self._layout, self._registry, self.plan(mode))

    @property
    def modes(self) -> list[str]:
        """The names that `mode=` takes."""
        return sorted(self._registry.modes)

    @property
    def input_names(self) -> list[str]:
        """The names of the tensor inputs, as `predict` takes them."""
        return [i.name for i in self._program.inputs if i.node is not None]

    def __repr__(self) -> str:
        return f"DLBacktrace({len(self._layout.forward)} ops, inputs {self.input_names}, relevance in {self._dtype})"

    # how it is done

    def _mode(self, mode: str, bias: str | None, options: Mapping[str, Any]) -> BoundMode:
        settled = dict(options) if bias is None else {**options, "bias": bias}
        return self._registry.mode(mode).bind(**settled)

    def _plan(self, mode: BoundMode, start: fx.Node) -> Plan:
        key = (mode.key, start.name)
        if key not in self._plans:
            self._plans[key] = build_plan(self._layout, self._registry, mode, [start], self._dtype)
        return self._plans[key]

    def _forward(
        self, inputs: tuple[Any, ...], kwargs: Mapping[str, Any], temperature: float, keep: frozenset[int] | None
    ) -> _Prediction:
        if not temperature > 0 or temperature == float("inf"):
            raise ValueError(f"temperature={temperature!r}: must be a positive finite number")
        if len(inputs) == 1 and not kwargs and isinstance(inputs[0], (tuple, dict)):
            inputs, kwargs = _as_call(inputs[0])
        tensors = self._program.bind_inputs(inputs, kwargs)
        activations = run_forward(self._layout, tensors, keep)
        output = activations.outputs[self._output_index]
        if not bool(torch.isfinite(output).all()):
            raise NonFiniteError(self._first_bad_node(tensors))
        return _Prediction(activations, [_version(v) for v in activations.values], temperature)

    def _first_bad_node(self, tensors: Mapping[fx.Node, Tensor]) -> str:
        values = run_forward(self._layout, tensors, None).values
        for node in self._layout.nodes:
            value = values[self._layout.slots[node.name]]
            if facts(node).active and isinstance(value, Tensor) and not bool(torch.isfinite(value).all()):
                what = "input" if node.op == "placeholder" else "node"
                return (
                    f"the forward pass has NaN or infinite values, first at {what} {node.name!r}: look at what feeds it"
                )
        return (
            "the model's output has NaN or infinite values that do not come from an explained input: check its weights"
        )

    def _check_versions(self, prediction: _Prediction) -> None:
        values = prediction.activations.values
        for node, value, version in zip(self._layout.nodes, values, prediction.versions, strict=True):
            if version is not None and _version(value) != version:
                what = self._program.parameters[node.name].name if node.name in self._program.parameters else node.name
                raise StaleActivationsError(f"{what!r} was changed in place since predict: call predict again")

    def _relevance(
        self,
        prediction: _Prediction,
        mode: BoundMode,
        request: Request,
        targets: Sequence[Any] | None,
        through: Mapping[str, Any] | None,
        *,
        keep: str | Sequence[str],
        at: str | None,
        consume: bool,
    ) -> Relevance:
        start = self._output_node if at is None else self._node(at)
        if not facts(start).active:
            raise ValueError(
                f"{start.name!r} does not depend on an explained input: choose another output or explain_inputs="
            )
        plan = self._plan(mode, start)
        slot = self._layout.slots[start.name]
        activations = prediction.activations
        value = activations.values[slot] if at is not None else _output_of(prediction, self._output_index)
        context = self._context(activations, start)
        seeds = self._seeds(value, request, targets, context)
        several = targets is not None
        tensor = torch.stack([s.relevance for s in seeds]) if several else seeds[0].relevance
        names = {i.node.name: i.name for i in self._program.inputs if i.node is not None}
        masks = self._masks(through or {}, activations)
        kept, ledgers = propagate(
            plan,
            activations,
            slot,
            tensor,
            several=several,
            keep=self._kept(keep, plan, slot),
            check=self.check,
            input_names=names,
            consume=consume,
            through=masks,
        )
        tensors = self._named(kept, names, activations.shapes, (len(seeds),) if several else ())
        tensors["output"] = tensor
        return Relevance(
            tensors,
            ledgers,
            inputs=tuple(n for n in names.values() if n in tensors),
            target=[s.target for s in seeds] if several else seeds[0].target,
            mode=mode.name,
            several=several,
            resolve=self._program.resolve,
            why_not=self._why_not,
        )

    def _seeds(self, value: Tensor, request: Request, targets: Sequence[Any] | None, context: Context) -> list[Any]:
        if targets is None:
            return [make_seed(value, request, context, self._dtype)]
        if request.target is not None:
            raise ValueError("give target= for one seed or targets=[...] for several, not both")
        if len(targets) == 0:
            raise ValueError("targets=[] is empty: give at least one target")
        fields = {f: getattr(request, f) for f in request.__dataclass_fields__ if f != "target"}
        return [make_seed(value, Request(target=t, **fields), context, self._dtype) for t in targets]

    def _kept(self, keep: str | Sequence[str], plan: Plan, start: int) -> frozenset[int]:
        inputs = {self._layout.slots[i.node.name] for i in self._program.inputs if i.node is not None}
        if keep == "inputs":
            return frozenset(inputs)
        if keep == "all":
            return frozenset({step.slot for step in plan.steps} | inputs)
        if isinstance(keep, str):
            raise ValueError(f'keep={keep!r}: choose "inputs", "all", or a list of node and module names')
        return frozenset(inputs | {self._layout.slots[self._node(name).name] for name in keep})

    def _named(
        self, kept: Mapping[int, Any], names: Mapping[str, str], shapes: Sequence[Any], leading: tuple[int, ...]
    ) -> dict[str, Any]:
        """Relevance by name: inputs first, nodes in execution order; an explained input nobody read got zero."""
        tensors: dict[str, Any] = {}
        for node in self._layout.nodes:
            slot = self._layout.slots[node.name]
            if slot in kept:
                tensors[names.get(node.name, node.name)] = kept[slot]
            elif node.name in names and facts(node).active:
                zeros = torch.zeros((*leading, *shapes[slot]), dtype=self._dtype, device=self._program.device)
                tensors[names[node.name]] = zeros
        return tensors

    def _masks(self, through: Mapping[str, Any], activations: Activations) -> dict[int, Tensor]:
        """Slot -> what of its relevance goes on: 1 on the chosen channels, 0 elsewhere."""
        masks = {}
        for name, channels in through.items():
            node = self._node(name)
            slot = self._layout.slots[node.name]
            shape = activations.shapes[slot]
            axis = 1 if len(shape) == 4 else len(shape) - 1
            mask = torch.zeros(shape[axis], dtype=self._dtype, device=self._program.device)
            for channel in channels:
                if not 0 <= channel < shape[axis]:
                    raise ValueError(f"through[{name!r}] names channel {channel}: choose from 0 .. {shape[axis] - 1}")
                mask[channel] = 1
            masks[slot] = mask.reshape(-1, *[1] * (len(shape) - axis - 1))
        return masks

    def _node(self, name: str) -> fx.Node:
        resolved = self._program.resolve(name)
        if resolved not in self._layout.slots:
            raise ValueError(f"{name!r} is no node or module of this model; see dlb.graph() for the names")
        return self._layout.nodes[self._layout.slots[resolved]]

    def _why_not(self, name: str) -> str:
        for entry in self._program.inputs:
            if entry.name == name:
                return "this input is not explained (integers that no lookup reads): list it in explain_inputs="
        if name not in self._layout.slots:
            return "no such node, module or input; see dlb.graph() for the names"
        node = self._layout.nodes[self._layout.slots[name]]
        if not facts(node).active:
            return "this node depends on no explained input, so it carries no relevance"
        return "no relevance reaches this node in this mode (or it was not asked for with keep=)"

    def _context(self, activations: Activations, start: fx.Node) -> Context:
        row = self._registry.find(start.target) if start.op == "call_function" else None
        probability = row is not None and "gate" in row.tags
        last = None
        for slot in self._last_position_slots():
            mask = activations.values[slot]
            if isinstance(mask, Tensor) and mask.dim() == 2:
                positions = torch.arange(mask.shape[1], device=mask.device)
                last = (positions * (mask != 0)).argmax(1)
        return Context(causal=self._causal, last=last, probability=probability)

    def _last_position_slots(self) -> set[int]:
        found = {i.name: i.node for i in self._program.inputs if i.node is not None}
        node = found.get("attention_mask")
        return {self._layout.slots[node.name]} if node is not None else set()


def _as_call(inputs: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(inputs, Mapping):
        return (), dict(inputs)
    if isinstance(inputs, (tuple, list)):
        return tuple(inputs), {}
    return (inputs,), {}


def _output_of(prediction: _Prediction, index: int) -> Tensor:
    output: Tensor = prediction.activations.outputs[index]
    return output if prediction.temperature == 1.0 else output / prediction.temperature


def _version(value: Any) -> int | None:
    if not isinstance(value, Tensor) or value.is_inference():
        return None
    return value._version


def _tensors(arguments: Any) -> tuple[Any, ...]:
    found: list[Any] = []
    for a in arguments:
        if isinstance(a, Tensor):
            found.append(a)
        elif isinstance(a, (tuple, list)):
            found += _tensors(a)
    return tuple(found)


def _choose_output(outputs: tuple[Any, ...], names: tuple[str, ...], wanted: str | int | None) -> int:
    floating = [
        i
        for i, node in enumerate(outputs)
        if isinstance(node, fx.Node) and isinstance(v := node.meta.get("val"), Tensor) and v.is_floating_point()
    ]
    choices = ", ".join(f"{i}{f' ({names[i]})' if names[i] else ''}" for i in floating)
    if wanted is None and floating:
        return floating[0]
    if isinstance(wanted, int) and wanted in floating:
        return wanted
    if isinstance(wanted, str) and wanted in names and names.index(wanted) in floating:
        return names.index(wanted)
    raise ValueError(f"output={wanted!r}: the model's floating outputs are {choices or 'none'}")


def _relevance_dtype(node: fx.Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype


def _is_causal(model: Any) -> bool:
    """Does the model predict the next token? Read off transformers' class names."""
    name = type(model).__name__
    return name.endswith(("ForCausalLM", "LMHeadModel"))
