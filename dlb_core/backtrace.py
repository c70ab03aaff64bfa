"""`DLBacktrace`: trace a model once, predict, and explain what it predicted."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram

from dlb_core.answering import answer
from dlb_core.building import Settings
from dlb_core.calls import as_call, as_inputs, tensors_in
from dlb_core.choices import AUTO
from dlb_core.engine import Engine, Prediction
from dlb_core.explanation import Explanation
from dlb_core.family import family
from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.composites import AnyMode, Composite
from dlb_core.kernel.kinds import Row
from dlb_core.kernel.layers import layer_op
from dlb_core.kernel.modes import BoundMode, Mode
from dlb_core.kernel.plan import Plan
from dlb_core.paths import Bound, Wrapped
from dlb_core.profiling import Profile, profiled
from dlb_core.relevance import Relevance
from dlb_core.rules import layer_rule
from dlb_core.targets import Request, Targets
from dlb_core.viz.of_model import Drawn, Evaluated
from dlb_core.wrapped import unwrap

if TYPE_CHECKING:
    from dlb_core.generation import DLBAutoSampler
    from dlb_core.task_result import TaskResult


class NodeIO(NamedTuple):
    """What went into a node (its tensors, in order) and what came out."""

    inputs: tuple[Any, ...]
    output: Any


class DLBacktrace(Drawn):
    """Explains a PyTorch model by relevance propagation: every unit of relevance accounted for.

    model: an `nn.Module` in eval mode, or an `ExportedProgram`; it is left as it was found. Under `torch.compile`,
    `DataParallel`, `DistributedDataParallel` or PEFT's adapters the model inside is explained. input_for_graph: example
    inputs, a tensor, a tuple of positional or a dict of keyword arguments. device: "auto" (where the model is) or a
    device its parameters are copied to. dynamic_shapes: "auto" (batch and sequence length may change), None (fixed), or
    input name -> further dimensions that may change. tracer: "export" (once, for all calls), "tape" (records every call
    as it runs, whatever the model's Python decides) or "auto" (export, else the tape; the log says so). output: which
    output to explain, by name or index (default: the first floating tensor). explain_inputs: which inputs receive
    relevance (default: the floating ones and the ids that a lookup reads). fold: fold BatchNorm into the layer before
    or after it. check: "raise" (every node), "warn", "ends" (seed against inputs and accounts), "off".
    relevance_dtype: default the model's dtype, float32 for half-precision models.

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
        self._settings = Settings(device, dynamic_shapes, tracer, output, explain_inputs, fold, check, relevance_dtype)
        self.model = unwrap(model)
        self._layers: list[Row] = []
        self._tracer = tracer
        self._example = as_call(input_for_graph)
        self._engine = self._build(*self._example)
        self._last: tuple[Engine, Prediction] | None = None
        self._evaluated: Evaluated | None = None
        self._experts: dict[str, Tensor] | None = None
        self._sampler: DLBAutoSampler | None = None

    def register_layer(self, cls: type[nn.Module], rule: Row | Callable[[Call, Any, BoundMode], Shares]) -> None:
        """Gives a module class a rule: its nodes become one, here and in no other `DLBacktrace`.

        rule: a formula `(call, r, mode) -> Shares` (it may read ``input`` and ``output``), a row made by `layer_rule`,
        or a kind (`elementwise("mine")`: relevance passes). The model is traced again; call `predict` again.
        """
        row = rule if isinstance(rule, Row) else layer_rule(cls, reads=("input", "output"))(rule)
        op = layer_op(cls)
        self._layers = [known for known in self._layers if known.op != op]
        self._layers.append(dataclasses.replace(row, op=op, pack="registered here"))
        self._engine = self._build(*self._example)
        self._last = self._evaluated = self._experts = self._sampler = None

    def retraced(self, input_for_graph: Any, **changes: Any) -> DLBacktrace:
        """The same model with the same settings, traced for other inputs; `changes` are arguments of `DLBacktrace`."""
        found = DLBacktrace(self.model, input_for_graph, **{**self._settings.of_any_inputs, **changes})
        if self._layers:
            found._layers = [*self._layers]
            found._engine = found._build(*found._example)
        return found

    def predict(self, *inputs: Any, temperature: float = 1.0, **kwargs: Any) -> dict[str, NodeIO]:
        """Runs the model and keeps every activation for the evaluations that follow.

        inputs: like the traced ones; free dimensions may have other sizes. temperature: divides the chosen output
        (> 0). Returns node name -> `NodeIO` in execution order: the inputs first, the model's output last under
        ``output``. The tensors belong to the engine until the next predict. Raises `InputMismatchError`,
        `NonFiniteError`.
        """
        args, kwargs = as_inputs(inputs, kwargs)
        engine = self._engine_of(args, kwargs)
        prediction = engine.forward(args, kwargs, temperature, keep=None)
        self._last = engine, prediction
        values = prediction.activations.values
        node_io: dict[str, NodeIO] = {}
        for node, name in engine.input_names.items():
            node_io[name] = NodeIO((), values[engine.layout.slots[node]])
        for step in engine.layout.forward:
            node_io[step.node.name] = NodeIO(tensors_in(step.read(values)), values[step.slot])
        raw = prediction.activations.outputs[engine.output_index]
        node_io["output"] = NodeIO((raw,), engine.output_of(prediction))
        return node_io

    def evaluation(
        self,
        mode: str | Mode | Composite | Wrapped = "default",
        multiplier: float = 100.0,
        task: str = "auto",
        *,
        target: Any = None,
        targets: Targets | None = None,
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
        value) or "probability". bias: "absorb" or "redistribute". through: node or module -> channels (numbers),
        `Heads(0, 3)` or True for all of it; only relevance that passes them goes on, the rest is booked under
        ``through:<node>``. Of two on one path it must pass both, of two beside each other one. Raises ValueError for
        what is unknown or out of range, `ConservationError` when the books do not close.
        """
        if self._last is None:
            raise RuntimeError("evaluation explains the last predict: call predict(...) first, or explain(...)")
        request = Request(task, target, seed, multiplier, scaler, thresholding, model_type)
        bound = self._mode(mode, bias, mode_options)
        engine, prediction = self._last
        engine.check_versions(prediction)
        relevance = answer(
            engine, prediction, bound, request, targets=targets, through=through, keep="all", at=None, memory=None
        )
        self._experts = {n: layer.relevance for n, layer in relevance.experts.items()} if relevance.routed else None
        self._evaluated = Evaluated.of(engine, bound, engine.starts(None, target, targets), relevance)
        return relevance

    def explain(
        self,
        *inputs: Any,
        mode: str | Mode | Composite | Wrapped = "default",
        target: Any = None,
        targets: Targets | None = None,
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
        memory: str = "normal",
        **kwargs: Any,
    ) -> Explanation:
        """Predict and evaluation at once, keeping only what is asked for; the state of `predict` is not touched.

        keep: "inputs", "all", or names of nodes and modules. at: start at this node or module instead of the output;
        `target` is then a channel of it (at all positions, with equal shares; `seed="logit"`: by their value), a head
        where it is an attention, or an index into its value. memory: "low" keeps checkpoints of the forward pass and
        computes the rest again, with the same result. Further keyword arguments are options of the mode or
        inputs of the model; what the model's forward takes goes to the model. Other arguments: see `evaluation`.
        """
        request = Request(task, target, seed, multiplier, scaler, thresholding, model_type)
        options = {name: kwargs.pop(name) for name in [*kwargs] if not self._engine.program.takes(name)}
        bound = self._mode(mode, bias, options)
        args, kwargs = as_inputs(inputs, kwargs)
        engine = self._engine_of(args, kwargs)
        kept = engine.kept_for(bound, engine.starts(at, target, targets), memory)
        prediction = engine.forward(args, kwargs, temperature, keep=kept)
        output, given = engine.output_of(prediction), engine.given_to(prediction)
        relevance = answer(
            engine, prediction, bound, request, targets=targets, through=through, keep=keep, at=at, memory=memory
        )
        return Explanation(relevance=relevance, output=output, options=dict(bound.options), given=given)

    def run_task(
        self,
        task: str = "auto",
        inputs: Any = None,
        tokenizer: Any = None,
        *,
        mode: str | Mode | Composite | Wrapped = "default",
        target: Any = None,
        multiplier: float = 100.0,
        scaler: float = 1.0,
        thresholding: float = 0.5,
        temperature: float | None = None,
        return_scores: bool = False,
        return_relevance: bool = False,
        return_layerwise_output: bool = False,
        **options: Any,
    ) -> TaskResult:
        """Predict and evaluate, or generate, in one call; a mapping with `predictions`, `relevance`, `node_io`, ...

        task: "text-classification", "image-classification", "tabular-classification", "token-classification",
        "segmentation", "detection", "regression", "generation", or "auto": decided by the inputs and the outputs, and
        said in `decided`. inputs: as `predict` takes them, or texts with their `tokenizer`. The `return_...` and
        generation arguments (`options`) belong to a generation, whose result has `generated_ids` and the traces that
        are asked for; elsewhere `options` are those of `evaluation`. Raises ValueError for what does not belong to the
        task.
        """
        from dlb_core.tasks import Asked, run_task

        traces = {"scores": return_scores, "relevance": return_relevance, "layerwise_output": return_layerwise_output}
        asked = Asked(mode, target, multiplier, scaler, thresholding, temperature, traces, options)
        return run_task(self, task, inputs, tokenizer, asked)

    def profile(self, *inputs: Any, **options: Any) -> Profile:
        """Where the time of `explain(*inputs, **options)` goes, by node, kind, module and pass: print it.

        The plan is built, and the model run once, before anything is timed. Of `predict` and `evaluation`, or of
        several calls: ``with dlb_core.profiled() as profile: ...``.
        """
        self.explain(*inputs, **options)
        with profiled() as profile:
            self.explain(*inputs, **options)
        return profile

    def plan(self, mode: str | Mode | Composite | Wrapped = "default", **options: Any) -> Plan:
        """What will run where in a mode, before running anything: `dlb.plan("epsilon").table()`."""
        bound = self._mode(mode, options.pop("bias", None), options)
        return self._engine.plans_of(bound, self._engine.starts(None, None, None))[1]

    @property
    def all_layer_expert_relevance(self) -> dict[str, Tensor]:
        """Of the last evaluation: layer of experts -> units by expert, [E] (several targets add a leading axis).

        Empty for a model without experts; `relevance.experts` tells more. Raises RuntimeError before any evaluation,
        and after one along a path or over noise, where every point may choose other experts.
        """
        if self._experts is None:
            raise RuntimeError("no evaluation told experts apart: call evaluation(...) with a mode at one point first")
        return dict(self._experts)

    @property
    def check(self) -> str:
        """How strictly the books are checked: "raise", "warn", "ends" or "off"."""
        return self._engine.check

    @property
    def tracer(self) -> str:
        """Who wrote the program: "export", once for all calls, or "tape", anew at every call."""
        return self._tracer

    @property
    def modes(self) -> list[str]:
        """The names that `mode=` takes, beside "auto"."""
        return sorted(self._engine.registry.modes)

    @property
    def family(self) -> str:
        """What kind of model this is, read off its graph; `mode="auto"` goes by it."""
        return family(self._engine.layout, causal=self._engine.says.causal)

    @property
    def input_names(self) -> list[str]:
        """The names of the tensor inputs, as `predict` takes them."""
        return list(self._engine.input_names.values())

    def __repr__(self) -> str:
        ops = len(self._engine.layout.forward)
        return f"DLBacktrace({ops} ops, inputs {self.input_names}, relevance in {self._engine.dtype})"

    def _build(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Engine:
        engine = self._settings.build(self.model, args, kwargs, tracer=self._tracer, layers=self._layers)
        self._tracer = engine.program.tracer  # what export could not trace once it is not asked for again
        return engine

    def _engine_of(self, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Engine:
        """The engine for a call: an export serves all of them, a tape only the one that it recorded."""
        return self._build(args, kwargs) if self._tracer == "tape" else self._engine

    def _mode(
        self, mode: str | Mode | Composite | Wrapped, bias: str | None, options: Mapping[str, Any]
    ) -> AnyMode | Bound:
        settled = dict(options) if bias is None else {**options, "bias": bias}

        def bind(inner: str | Mode | Composite, **options: Any) -> AnyMode:
            registry = self._engine.registry
            return registry.bind(registry.recommended(self.family) if inner == AUTO else inner, **options)

        return mode.bind(bind, settled) if isinstance(mode, Wrapped) else bind(mode, **settled)
