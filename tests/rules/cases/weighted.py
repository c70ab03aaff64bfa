"""Arguments for norms, softmax, attention and lookups."""

from __future__ import annotations

from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten


def _layer(t: Tensors) -> Arguments:
    return {"input": t(2, 3, 4), "normalized_shape": [3, 4], "weight": t(3, 4), "bias": t(3, 4)}


def _group(t: Tensors) -> Arguments:
    return {"input": t(2, 6, 3), "num_groups": 2, "weight": t(6), "bias": t(6)}


def _batch(t: Tensors) -> Arguments:
    running = {"running_mean": t(3), "running_var": t.positive(3)}
    rest = {"training": False, "momentum": 0.1, "eps": 1e-5, "cudnn_enabled": False}
    return {"input": t(2, 3, 4), "weight": t(3), "bias": t(3), **running, **rest}


def _batch_alone(t: Tensors) -> Arguments:
    return {**_batch(t), "running_mean": None, "running_var": None, "training": True}


def _instance(t: Tensors) -> Arguments:
    return {**{k: v for k, v in _batch(t).items() if k != "training"}, "use_input_stats": False}


def _instance_alone(t: Tensors) -> Arguments:
    return {**_without(_instance, "running_mean", "running_var")(t), "use_input_stats": True}


def _without(arguments: Any, *names: str) -> Any:
    return lambda t: {name: None if name in names else value for name, value in arguments(t).items()}


def _heads(t: Tensors) -> Arguments:
    return {"query": t(2, 4, 3, 5), "key": t(2, 4, 6, 5), "value": t(2, 4, 6, 2)}


def _masked(t: Tensors) -> Arguments:
    mask = t.mask(3, 6)
    mask[:, 0] = True
    return {**_heads(t), "attn_mask": mask, "scale": 0.3}


def _grouped(t: Tensors) -> Arguments:
    shapes = {"query": (2, 4, 5, 3), "key": (2, 2, 5, 3), "value": (2, 2, 5, 3)}
    return {**{name: t(*shape) for name, shape in shapes.items()}, "is_causal": True, "enable_gqa": True}


def _bag(
    op: Any, mode: int, label: str, *, weighed: bool = False, last: bool = False, padding: int | None = None
) -> Case:
    """Bags of three, none and two ids; the ids receive, and their weights where there are any."""
    offsets, weighed = torch.tensor([0, 3, 3, 5] if last else [0, 3, 3]), label == "weights"

    def make(t: Tensors) -> Arguments:
        found = {"table": t(4, 3), "ids": torch.tensor([2, 0, 2, 3, 0]), "offsets": offsets}
        return {**found, "weights": t(5)} if weighed else found

    def bags(table: Any, ids: Any, offsets: Any, weights: Any = None) -> Any:
        rest = (padding,) if op is aten.embedding_bag.padding_idx else ()
        return op(table, ids, offsets, False, mode, False, weights, last, *rest)[0]

    return Case(op, make, ("ids", "weights") if weighed else ("ids",), label, bags)


SDPA = aten.scaled_dot_product_attention.default

CASES: list[Case] = [
    Case(aten.layer_norm.default, _layer, ("input",)),
    Case(aten.layer_norm.default, _without(_layer, "weight", "bias"), ("input",), "plain"),
    Case(aten.rms_norm.default, lambda t: {"input": t(2, 4), "normalized_shape": [4], "weight": t(4)}, ("input",)),
    Case(aten.group_norm.default, _group, ("input",)),
    Case(aten.group_norm.default, _without(_group, "bias"), ("input",), "no bias"),
    Case(aten.batch_norm.default, _batch, ("input",)),
    Case(aten.batch_norm.default, _without(_batch, "weight", "bias"), ("input",), "plain"),
    Case(aten.batch_norm.default, _batch_alone, ("input",), "own statistics"),
    Case(aten.instance_norm.default, _instance, ("input",)),
    Case(aten.instance_norm.default, _instance_alone, ("input",), "own statistics"),
    Case(aten.instance_norm.default, _without(_instance_alone, "weight", "bias"), ("input",), "plain"),
    Case(aten._weight_norm.default, lambda t: {"v": t.positive(3, 4), "g": t(3, 1)}, ("v",)),
    Case(aten.softmax.int, lambda t: {"self": t(2, 3), "dim": -1}, ("self",)),
    Case(aten._softmax.default, lambda t: {"self": t(2, 3), "dim": 0, "half_to_float": False}, ("self",)),
    Case(SDPA, _heads, ("query", "key", "value")),
    Case(SDPA, _heads, ("query",), "constant values"),
    Case(SDPA, _masked, ("query", "key", "value"), "mask"),
    Case(SDPA, _grouped, ("query", "key", "value"), "causal, grouped"),
    Case(aten.embedding.default, lambda t: {"weight": t(7, 4), "indices": t.ids(7, 2, 3)}, ("indices",)),
    _bag(aten.embedding_bag.padding_idx, 0, "sum"),
    _bag(aten.embedding_bag.padding_idx, 1, "mean, padding", padding=2),
    _bag(aten.embedding_bag.padding_idx, 2, "max, padding", padding=2, last=True),
    _bag(aten.embedding_bag.padding_idx, 0, "padding from the end", padding=-1),
    _bag(aten.embedding_bag.default, 0, "weights"),
    _bag(aten._embedding_bag.default, 1, "last", last=True),
    _bag(aten._embedding_bag_forward_only.default, 2, "max"),
]
