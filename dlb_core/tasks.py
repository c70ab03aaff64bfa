"""`run_task`: what a model is for, decided or said; then predict and evaluate, or generate, in one call."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlb_core.captions import class_names, fitting
from dlb_core.choices import choose
from dlb_core.engine import Engine, Start
from dlb_core.explanation import Explanation
from dlb_core.outputs import mask_names
from dlb_core.targets import Context
from dlb_core.task_result import TaskResult

if TYPE_CHECKING:
    from dlb_core.backtrace import DLBacktrace
    from dlb_core.pipeline.words import Pieces

log = logging.getLogger("dlb")

CLASSIFICATIONS = ("text-classification", "image-classification", "tabular-classification")
GENERATION = "generation"
TASKS = ("auto", *CLASSIFICATIONS, "token-classification", "segmentation", "detection", "regression", GENERATION)
TEXTS = ("text-classification", "token-classification", GENERATION)
#: what a model's output is called where it is no answer yet
FEATURES = ("hidden_state", "hidden_states", "pooler_output", "encoder_last_hidden_state", "last_hidden_state")


@dataclass(frozen=True)
class Asked:
    """The arguments of `run_task` that are no matter of the task alone."""

    mode: Any
    target: Any
    multiplier: float
    scaler: float
    thresholding: float
    temperature: float | None
    traces: Mapping[str, bool]
    options: Mapping[str, Any]


def run_task(dlb: DLBacktrace, task: str, inputs: Any, tokenizer: Any, asked: Asked) -> TaskResult:
    """See `DLBacktrace.run_task`."""
    choose("task", task, TASKS)
    if inputs is None or (isinstance(inputs, (Mapping, tuple, list)) and len(inputs) == 0):
        raise ValueError("inputs= is empty: give what predict takes, or texts with a tokenizer")
    engine = dlb._engine
    writes = engine.says.causal and _rank(engine) == 3
    generates = task == GENERATION or (task == "auto" and writes)
    texts = _texts(inputs, tokenizer)
    more: dict[str, Any] = {}
    pieces: tuple[Pieces, ...] = ()
    if texts is not None:
        from dlb_core.pipeline.encoding import encode

        encoded = encode(tokenizer, texts, takes=dlb.input_names, side="left" if generates else None)
        device = next((p.tensor.device for p in engine.program.parameters.values()), None)
        inputs = {name: tensor.to(device) for name, tensor in encoded.tensors.items()}
        pieces, more = encoded.pieces, {"texts": texts}
    if generates:
        why = "the model writes text, its output scores every next token" if task == "auto" else None
        return _told(_generated(dlb, inputs, tokenizer, asked), GENERATION, why, more)
    if tokenizer is not None and task not in ("auto", *TEXTS):
        raise ValueError(f"tokenizer= does not belong to task={task!r}: it is for text")
    for name, wanted in asked.traces.items():
        if wanted:
            raise ValueError(
                f"return_{name}= belongs to task='generation'; elsewhere the result always holds predictions, "
                "relevance and node_io"
            )
    return _predicted(dlb, task, inputs, tokenizer, asked, more, pieces)


def _generated(dlb: DLBacktrace, inputs: Any, tokenizer: Any, asked: Asked) -> dict[str, Any]:
    """Generate, with the traces that were asked for."""
    from dlb_core.generation import DLBAutoSampler

    sampler = dlb._sampler = dlb._sampler or DLBAutoSampler(dlb)  # kept: it traces the model for its own inputs
    sampler.tokenizer = tokenizer
    if asked.target is not None:
        raise ValueError("target= does not belong to task='generation': explain_tokens= says which tokens to explain")
    if asked.thresholding != 0.5:
        raise ValueError("thresholding= does not belong to task='generation'")
    traces: dict[str, Any] = {f"return_{name}": wanted for name, wanted in asked.traces.items()}
    explains = asked.traces["relevance"] or asked.traces["layerwise_output"]
    for name, differs in {"multiplier": asked.multiplier != 100.0, "scaler": asked.scaler != 1.0}.items():
        if differs and not explains:
            raise ValueError(f"{name}= is for relevance, which was not asked for: give return_relevance=True")
    sampling: dict[str, Any] = {} if asked.temperature is None else {"temperature": asked.temperature}
    each = inputs if isinstance(inputs, tuple) else (inputs,)
    given = dict(inputs) if isinstance(inputs, Mapping) else dict(zip(dlb.input_names, each, strict=False))
    if "input_ids" not in given:
        raise ValueError(f"generation needs input_ids, got {', '.join(given)}")
    units: dict[str, Any] = (
        {"mode": asked.mode, "multiplier": asked.multiplier, "scaler": asked.scaler} if explains else {}
    )
    found = sampler.generate(**given, **traces, **units, **sampling, **asked.options)
    ids, info = found if any(traces.values()) else (found, None)
    values: dict[str, Any] = {
        "generated_ids": ids,
        "relevance": None if info is None else info.relevance,
        "explanation": info,
        **(info or {}),
    }
    if tokenizer is not None:
        values["generated_texts"] = tokenizer.batch_decode(ids, skip_special_tokens=True)
    return values


def _predicted(
    dlb: DLBacktrace,
    task: str,
    inputs: Any,
    tokenizer: Any,
    asked: Asked,
    more: Mapping[str, Any],
    pieces: Sequence[Pieces],
) -> TaskResult:
    """Predict, settle the task by what came out, and evaluate."""
    options = dict(asked.options)
    bias = options.get("bias")
    known = {"targets", "seed", "bias", "through", "model_type"}
    bound = dlb._mode(asked.mode, bias, {n: v for n, v in options.items() if n not in known})  # refused before running
    node_io = dlb.predict(inputs, temperature=1.0 if asked.temperature is None else asked.temperature)
    assert dlb._last is not None
    engine, prediction = dlb._last
    output: Tensor = node_io["output"].output
    context = engine.context_at(prediction, Start(engine.output_node, engine.output_index), output)
    tensors = {name: node_io[name].output for name in engine.input_names.values()}
    settled, why = (task, None) if task != "auto" else _decide(engine, tensors, output, context)
    _check_fit(settled, tensors, output)
    if tokenizer is not None and settled not in TEXTS:
        raise ValueError(f"tokenizer= does not belong to task={settled!r}: it is for text")
    target, note = asked.target, ""
    if settled == "token-classification" and target is None and "targets" not in options:
        target = _winners(output, tensors)
        note = " Without a target, the winning classes of all positions that are no padding share the units."
    relevance = dlb.evaluation(
        asked.mode,
        asked.multiplier,
        _evaluated_as(settled, output, context, asked),
        target=target,
        scaler=asked.scaler,
        thresholding=asked.thresholding,
        **options,
    )
    explanation = Explanation(relevance, output, dict(bound.options), engine.given_to(prediction))
    values: dict[str, Any] = {"node_io": node_io, "predictions": output, "relevance": relevance}
    config = getattr(dlb.model, "config", None)
    names: dict[str, Any] = {"model": getattr(config, "name_or_path", None) or None}
    if settled != "regression":
        names["classes"] = fitting(class_names(config), output)
    if tokenizer is not None:
        if (name := _ids(tensors)) is None:
            raise ValueError(f"tokenizer=: no input holds ids of tokens ({_shapes(tensors)})")
        values["tokens"] = [[*tokenizer.convert_ids_to_tokens(row)] for row in tensors[name].tolist()]
        if pieces and name in relevance.inputs and not relevance.several:
            values["words"] = tuple(p.words(row) for p, row in zip(pieces, relevance[name], strict=True))
        if name in relevance.inputs:
            names["tokens"] = {name: [p.shown() for p in pieces] or values["tokens"]}
    values["explanation"] = explanation.captioned(**names)
    return _told(values, settled, why, more, note)


def _told(values: Mapping[str, Any], task: str, why: str | None, more: Mapping[str, Any], note: str = "") -> TaskResult:
    decided = f"task {task!r}: {why}." if why else f"task {task!r}, as asked."
    log.info("%s%s", decided, note)
    return TaskResult({"task": task, "decided": decided + note, **values, **more})


def _rank(engine: Engine) -> int:
    return int(engine.output_node.meta["val"].dim())


def _decide(engine: Engine, tensors: Mapping[str, Tensor], output: Tensor, context: Context) -> tuple[str, str]:
    """The task that the inputs and the output of a model say, and why."""
    name = engine.program.output_names[engine.output_index]
    shape = list(output.shape)
    if name.rpartition(".")[2] in FEATURES:
        raise ValueError(
            f"the output {name!r} {shape} holds features, no classes or tokens: a model without a head decides "
            "nothing. Load it with the head that it was trained with, or explain a feature with dlb.explain(target=...)"
        )
    if context.scores is not None or context.boxes:
        return "detection", f"the outputs are scores and boxes of {shape[1]} queries"
    if output.dim() == 4:
        return "segmentation", f"the output {shape} has classes at pixels"
    text = _text(tensors)
    if output.dim() == 3:
        if not text:
            raise ValueError(
                f"nothing says what the output {shape} is: give task= (one of {', '.join(map(repr, TASKS[1:]))})"
            )
        return "token-classification", f"{text!r} holds a text and the output {shape} has classes at positions"
    if output.dim() > 2:
        raise ValueError(f"no task fits an output of shape {shape}: use dlb.explain with target= as a weight tensor")
    ends = "one decision" if output.dim() < 2 or shape[1] == 1 else f"{shape[1]} classes"
    if text:
        return "text-classification", f"{text!r} holds a text and the output {shape} is {ends} a sample"
    if image := _image(tensors):
        return "image-classification", f"{image!r} holds images and the output {shape} is {ends} a sample"
    return "tabular-classification", f"the inputs are numbers and the output {shape} is {ends} a sample"


def _ids(tensors: Mapping[str, Tensor]) -> str | None:
    """The input that holds the ids of tokens; a table has numbers beside its categories."""
    if any(tensor.is_floating_point() and tensor.dim() == 2 for tensor in tensors.values()):
        return None
    plain = {name: t for name, t in tensors.items() if not name.endswith("mask") and t.dtype is not torch.bool}
    return next((name for name, t in plain.items() if not t.is_floating_point() and t.dim() == 2), None)


def _text(tensors: Mapping[str, Tensor]) -> str | None:
    """The input that holds a text: ids, or what a model of transformers calls embeddings."""
    return _ids(tensors) or next((name for name in tensors if name.endswith("inputs_embeds")), None)


def _image(tensors: Mapping[str, Tensor]) -> str | None:
    return next((n for n, t in tensors.items() if t.is_floating_point() and t.dim() >= 4), None)


def _check_fit(task: str, tensors: Mapping[str, Tensor], output: Tensor) -> None:
    """Raises ValueError where the task that was said is not what the model does."""
    shape, rank = list(output.shape), output.dim()
    wanted = {"token-classification": 3, "detection": 3, "segmentation": 4}.get(task)
    if wanted is not None and rank != wanted:
        raise ValueError(f"task={task!r} expects an output of {wanted} dimensions, got {shape}: try task='auto'")
    if task in CLASSIFICATIONS and rank > 2:
        raise ValueError(f"task={task!r} expects an output [B], [B, 1] or [B, C], got {shape}: try task='auto'")
    floating = [t.dim() for t in tensors.values() if t.is_floating_point()]
    if task == "image-classification" and not any(dims >= 3 for dims in floating):
        raise ValueError(f"task={task!r}: no input is an image ({_shapes(tensors)})")
    if task == "text-classification" and all(t.is_floating_point() and t.dim() != 3 for t in tensors.values()):
        raise ValueError(f"task={task!r}: no input holds ids or embeddings ({_shapes(tensors)})")


def _shapes(tensors: Mapping[str, Tensor]) -> str:
    return ", ".join(f"{name} {str(t.dtype).removeprefix('torch.')} {list(t.shape)}" for name, t in tensors.items())


def _evaluated_as(task: str, output: Tensor, context: Context, asked: Asked) -> str:
    """The task in the words of `evaluation`."""
    several = asked.target is not None or "targets" in asked.options
    if task in CLASSIFICATIONS:
        if several:
            return "auto"  # a target says all
        one = output.dim() < 2 or output.shape[1] == 1
        return "binary-classification" if one or _two_by_threshold(output, asked) else "multi-class classification"
    if task == "detection":
        return "auto" if context.boxes else task
    return task


def _two_by_threshold(output: Tensor, asked: Asked) -> bool:
    return output.shape[1] == 2 and asked.thresholding != 0.5


def _winners(output: Tensor, tensors: Mapping[str, Tensor]) -> Tensor:
    """Weights of the winning class at every position that is no padding; a sample's sum to 1."""
    weights = torch.zeros_like(output).scatter_(2, output.argmax(2, keepdim=True), 1)
    for name in mask_names([*tensors]):
        if (mask := tensors[name]).shape == output.shape[:2]:
            weights = weights * (mask != 0).unsqueeze(2)
    return weights / weights.sum((1, 2), keepdim=True).clamp_min(1)


def _texts(inputs: Any, tokenizer: Any) -> list[str] | None:
    """The inputs where they are texts."""
    texts = [inputs] if isinstance(inputs, str) else inputs
    if not isinstance(texts, (list, tuple)) or not all(isinstance(text, str) for text in texts):
        return None
    if tokenizer is None:
        raise ValueError("inputs are texts: give the tokenizer that belongs to the model")
    return [*texts]
