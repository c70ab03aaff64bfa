"""Arguments for reductions that are no sums, and for ops that are written with others."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten


def _x(*shape: int, **more: Any) -> Any:
    return lambda t: {"self": t(*shape), **more}


def _log_scaled(t: Tensors) -> Arguments:
    return {"self": 30 * t(2, 3, 4), "dim": 1}


def _pairs(*names: str, **more: Any) -> Any:
    return lambda t: {**{name: t(3, 4) for name in names}, **more}


def _maps(t: Tensors) -> Arguments:
    return {"input1": t(2, 3), "input2": t(2, 4), "weight": t(5, 3, 4), "bias": t(5)}


def _chain(t: Tensors) -> Arguments:
    return {"tensors": [t(2, 3), t(3, 4), t(4, 2)]}


def _fraction(t: Tensors) -> Arguments:
    return {"self": t(3, 4), "tensor1": t(3, 4), "tensor2": t.positive(1, 4), "value": 0.5}


def _weights(t: Tensors, gates: int, hidden: int = 4, size: int = 3, out: int = 0) -> list[Tensor]:
    """w_ih, w_hh, b_ih, b_hh of one lane, and the projection where there is one."""
    shapes = [(gates * hidden, size), (gates * hidden, out or hidden), (gates * hidden,), (gates * hidden,)]
    return [t(*shape) for shape in (*shapes, *([(out, hidden)] if out else []))]


WEIGHTS = ("w_ih", "w_hh", "b_ih", "b_hh")


def _item(op: Any, item: int, *args: Any, **more: Any) -> Any:
    """One output of an op that has several."""
    return lambda self: op(self, *args, **more)[item]


def _item3(op: Any) -> Any:
    return lambda query, key, value: op(query, key, value)[0]


def _step(gates: int) -> Any:
    return lambda t: {"input": t(2, 3), "hx": t(2, 4), **dict(zip(WEIGHTS, _weights(t, gates), strict=True))}


def _lstm_step(t: Tensors) -> Arguments:
    return {"x": t(2, 3), "h": t(2, 4), "c": t(2, 4), **dict(zip(WEIGHTS, _weights(t, 4), strict=True))}


def _lstm_item(item: int) -> Any:
    return lambda x, h, c, **weights: aten.lstm_cell.default(x, [h, c], *weights.values())[item]


def _run(gates: int, *, lanes: int = 1, layers: int = 1, out: int = 0, batch_first: bool = False) -> Any:
    """Three steps of two samples; layers above the first read the lanes of the one below."""

    def arguments(t: Tensors) -> Arguments:
        state, n = out or 4, lanes * layers
        sizes = [3] * lanes + [lanes * state] * (n - lanes)
        params = [w for size in sizes for w in _weights(t, gates, size=size, out=out)]
        h = t(n, 2, state)
        return {
            "input": t(2, 3, 3) if batch_first else t(3, 2, 3),
            "hx": [h, t(n, 2, 4)] if gates == 4 else h,
            "params": params,
            "has_biases": True,
            "num_layers": layers,
            "dropout": 0.0,
            "train": False,
            "bidirectional": lanes == 2,
            "batch_first": batch_first,
        }

    return arguments


def _packed(gates: int, *, lanes: int = 1) -> Any:
    """Three samples of 3, 2 and 1 steps."""

    def arguments(t: Tensors) -> Arguments:
        h = t(lanes, 3, 4)
        return {
            "data": t(6, 3),
            "batch_sizes": torch.tensor([3, 2, 1]),
            "hx": [h, t(lanes, 3, 4)] if gates == 4 else h,
            "params": [w for _ in range(lanes) for w in _weights(t, gates)],
            "has_biases": True,
            "num_layers": 1,
            "dropout": 0.0,
            "train": False,
            "bidirectional": lanes == 2,
        }

    return arguments


def _projections(t: Tensors, size: int = 4) -> list[Tensor]:
    return [t(3 * size, size), t(3 * size), t(size, size), t(size)]


def _attended(t: Tensors) -> Arguments:
    names = ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias")
    mask = torch.tensor([[False, False, True], [False, False, False]])
    return {"x": t(2, 3, 4), **dict(zip(names, _projections(t), strict=True)), "mask": mask}


def _attend(*, need_weights: bool) -> Any:
    op = aten._native_multi_head_attention.default
    return lambda x, mask, **w: op(x, x, x, 4, 2, *w.values(), mask, need_weights, True, 1)[0]


def _layer(*, norm_first: bool, use_gelu: bool) -> Any:
    def arguments(t: Tensors) -> Arguments:
        names = ("qkv_weight", "qkv_bias", "proj_weight", "proj_bias")
        norms = ("norm_weight_1", "norm_bias_1", "norm_weight_2", "norm_bias_2")
        return {
            "src": t(2, 3, 4),
            "embed_dim": 4,
            "num_heads": 2,
            **dict(zip(names, _projections(t), strict=True)),
            "use_gelu": use_gelu,
            "norm_first": norm_first,
            "eps": 1e-5,
            **{name: t(4) for name in norms},
            "ffn_weight_1": t(6, 4),
            "ffn_bias_1": t(6),
            "ffn_weight_2": t(4, 6),
            "ffn_bias_2": t(4),
        }

    return arguments


def _heads(t: Tensors) -> Arguments:
    shapes = {"query": (2, 2, 3, 4), "key": (2, 2, 5, 4), "value": (2, 2, 5, 4)}
    return {name: t(*shape).contiguous() for name, shape in shapes.items()}  # what the CPU kernel takes for granted


STATISTICS = (aten.var, aten.std)
RNNS = ((aten.rnn_tanh, 1), (aten.rnn_relu, 1), (aten.gru, 3))
CELLS = (aten.rnn_tanh_cell, aten.rnn_relu_cell)

CASES: list[Case] = [
    *(Case(op.correction, _x(2, 3, 4, dim=[1], correction=1, keepdim=True), ("self",)) for op in STATISTICS),
    *(Case(op.correction, _x(3, 4, dim=None, correction=0), ("self",), "all") for op in STATISTICS),
    *(Case(op.dim, _x(3, 4, dim=[-1]), ("self",)) for op in STATISTICS),
    *(Case(op.default, _x(3, 4), ("self",)) for op in STATISTICS),
    *(
        Case(op.correction, _x(3, 4), ("self",), str(item), program=_item(op.correction, item, [-1], correction=1))
        for op in (aten.var_mean, aten.std_mean)
        for item in (0, 1)
    ),
    Case(aten.linalg_vector_norm.default, _x(2, 3, 4, dim=[-1, 0]), ("self",)),
    *(Case(aten.linalg_vector_norm.default, _x(3, 4, ord=p, dim=[-1]), ("self",), f"{p}") for p in (0, 1, 3.5, -1)),
    *(
        Case(aten.linalg_vector_norm.default, _x(3, 4, ord=sign * float("inf")), ("self",), f"{sign} inf")
        for sign in (1, -1)
    ),
    Case(aten.norm.Scalar, _x(3, 4, p=2), ("self",)),
    Case(aten.norm.ScalarOpt_dim, _x(3, 4, p=2, dim=[0], keepdim=True), ("self",)),
    Case(aten.logsumexp.default, _x(2, 3, 4, dim=[1, -1]), ("self",)),
    Case(aten.logcumsumexp.default, _x(3, 4, dim=-1), ("self",)),
    Case(aten.logcumsumexp.default, _log_scaled, ("self",), "far apart"),
    Case(aten.logcumsumexp.default, lambda t: {"self": t(5, 5, 5) + 1e4, "dim": 1}, ("self",), "large"),
    Case(aten.prod.default, _x(3, 4), ("self",)),
    Case(aten.prod.dim_int, _x(3, 4, dim=-1, keepdim=True), ("self",)),
    Case(aten.cumprod.default, _x(3, 4, dim=0), ("self",)),
    Case(aten.glu.default, _x(2, 6, 3, dim=1), ("self",)),
    Case(aten.bilinear.default, _maps, ("input1", "input2")),
    Case(aten.bilinear.default, _maps, ("input2",)),
    Case(aten.cosine_similarity.default, _pairs("x1", "x2", dim=-1), ("x1", "x2")),
    Case(
        aten.cosine_similarity.default, lambda t: {"x1": t(1, 2, 3), "x2": t(2, 1, 3), "dim": -2}, ("x1", "x2"), "wide"
    ),
    Case(aten.cdist.default, lambda t: {"x1": t(0, 5), "x2": t(4, 5), "p": math.inf}, ("x1",), "empty"),
    Case(aten.pairwise_distance.default, _pairs("x1", "x2", p=2.0, keepdim=True), ("x1", "x2")),
    Case(aten.cdist.default, _pairs("x1", "x2", p=1.0), ("x1", "x2")),
    Case(aten._cdist_forward.default, _pairs("x1", "x2", p=2.0, compute_mode=None), ("x1",)),
    Case(aten.addcmul.default, _pairs("self", "tensor1", "tensor2", value=0.5), ("self", "tensor1", "tensor2")),
    Case(aten.addcdiv.default, _fraction, ("self", "tensor1")),
    Case(aten._transformer_encoder_layer_fwd.default, _layer(norm_first=True, use_gelu=True), ("src",)),
    Case(aten._transformer_encoder_layer_fwd.default, _layer(norm_first=False, use_gelu=False), ("src",), "norms last"),
    *(
        Case(
            aten._native_multi_head_attention.default, _attended, ("x",), str(seen), program=_attend(need_weights=seen)
        )
        for seen in (True, False)
    ),
    *(
        Case(op, _heads, ("query", "key", "value"), program=_item3(op))
        for op in (
            aten._scaled_dot_product_flash_attention_for_cpu.default,
            aten._scaled_dot_product_attention_math.default,
        )
    ),
    *(Case(op.default, _step(1), ("input", "hx")) for op in CELLS),
    Case(aten.gru_cell.default, _step(3), ("input", "hx")),
    *(
        Case(aten.lstm_cell.default, _lstm_step, ("x", "h", "c"), str(item), program=_lstm_item(item))
        for item in (0, 1)
    ),
    Case(
        aten._pack_padded_sequence.default,
        lambda t: {"input": t.distinct(3, 4, 2)},
        ("input",),
        program=lambda input: aten._pack_padded_sequence.default(input, torch.tensor([4, 2, 1]), True)[0],
    ),
    Case(
        aten._pad_packed_sequence.default,
        lambda t: {"data": t.distinct(7, 2)},
        ("data",),
        program=lambda data: aten._pad_packed_sequence.default(data, torch.tensor([3, 2, 1, 1]), True, -1.0, 6)[0],
    ),
    *(Case(op.input, _run(gates), ("input", "hx")) for op, gates in RNNS),
    *(Case(op.data, _packed(gates, lanes=2), ("data", "hx")) for op, gates in RNNS),
    Case(aten.gru.input, _run(3, lanes=2, layers=2), ("input",), "deep"),
    Case(aten.lstm.input, _run(4, lanes=2, layers=2, out=2, batch_first=True), ("input", "hx.0", "hx.1"), "deep"),
    Case(aten.lstm.input, _run(4, layers=2), ("hx.1",), "state"),
    Case(aten.lstm.input, _run(4), ("input",), "input"),
    Case(aten.lstm.data, _packed(4), ("data", "hx.0", "hx.1")),
    Case(aten.lstm.data, _packed(4, lanes=2), ("data",), "both ways"),
    Case(aten.kron.default, lambda t: {"self": t(2, 3).contiguous(), "other": t(2).contiguous()}, ("self", "other")),
    Case(aten.diff.default, _x(2, 5, n=2), ("self",)),
    Case(aten.diff.default, lambda t: {"self": t(2, 5), "n": 0, "prepend": t(2, 1)}, ("self",), "none"),
    Case(
        aten.diff.default,
        lambda t: {"self": t(2, 3), "n": 1, "dim": 0, "prepend": t(1, 3), "append": t(2, 3)},
        ("self", "prepend"),
    ),
    Case(aten.linalg_cross.default, lambda t: {"self": t(2, 3, 4), "other": t(1, 3, 1), "dim": 1}, ("self", "other")),
    Case(aten.linalg_multi_dot.default, _chain, ("tensors.0", "tensors.1", "tensors.2")),
    Case(aten.linalg_matrix_power.default, _x(3, 3, n=3), ("self",)),
]
