"""Tensors without dimensions or elements, broadcast ones, and one tensor in two operands, in every mode."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dlb_core.errors import UnsupportedOpError

from .harness import MODE_NAMES, MODES, ModeName, bind, bind_op, pack
from .spelled import assert_same, back, floating
from .tensors import Tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
Arguments = dict[str, Any]
T = Tensors(1)
X, Y = T(2, 3, 4), T(2, 3, 4)
BITS = torch.tensor([[True], [False], [True]])
WIDE, TALL = T(3, 1), T(2, 1, 4)
BROADCAST: dict[str, tuple[Any, Arguments]] = {
    "sum": (aten.add.Tensor, {"self": WIDE, "other": TALL}),
    "product": (aten.mul.Tensor, {"self": WIDE, "other": TALL}),
    "winners": (aten.maximum.default, {"self": WIDE, "other": TALL}),
    "choice": (aten.where.self, {"condition": BITS, "self": WIDE, "other": TALL}),
    "quotient": (aten.div.Tensor, {"self": WIDE, "other": TALL}),
    "compound": (aten.addcmul.default, {"self": TALL, "tensor1": WIDE, "tensor2": T(4)}),
    "one number": (aten.add.Tensor, {"self": T(), "other": X}),
    "maps": (aten.matmul.default, {"self": T(1, 3, 4), "other": T(2, 4, 5)}),
}


@every_mode
@pytest.mark.parametrize(("op", "arguments"), BROADCAST.values(), ids=BROADCAST)
def test_what_is_broadcast_gets_the_sum_of_its_copies(op: Any, arguments: Arguments, mode: ModeName) -> None:
    shape = (2, 3, 4)
    spread = {
        name: value.expand(2, *value.shape[1:]) if op is aten.matmul.default else value.expand(shape)
        for name, value in arguments.items()
    }
    narrow, wide = (back(bind_op(op, each, floating(each), mode)) for each in (arguments, spread))
    torch.testing.assert_close(narrow.output, wide.output)
    for name, r in narrow.relevance.items():
        torch.testing.assert_close(r, wide[name].sum_to_size(r.shape))


POINT = T()
WITHOUT_DIMENSIONS: dict[str, tuple[Any, Arguments]] = {
    "sum": (aten.add.Tensor, {"self": POINT, "other": T(), "alpha": 2}),
    "product": (aten.mul.Tensor, {"self": POINT, "other": T(3)}),
    "elementwise": (aten.tanh.default, {"self": POINT}),
    "linear": (aten.sum.default, {"self": POINT}),
    "reduction": (aten.mean.dim, {"self": POINT, "dim": [-1], "keepdim": True}),
    "running": (aten.cumsum.default, {"self": POINT, "dim": 0}),
    "bilinear": (aten.matmul.default, {"self": T(4), "other": T(4)}),
    "softmax": (aten.softmax.int, {"self": POINT, "dim": -1}),
    "share": (aten.logsumexp.default, {"self": POINT, "dim": [0]}),
    "norm": (aten.linalg_vector_norm.default, {"self": POINT}),
    "move": (aten.unsqueeze.default, {"self": POINT, "dim": -1}),
    "view": (aten.view.default, {"self": POINT, "size": [1, 1]}),
    "spread": (aten.expand.default, {"self": POINT, "size": [2, 3]}),
    "stack": (aten.stack.default, {"tensors": [POINT, T()]}),
    "winner": (aten.max.default, {"self": T(3)}),
    "winners": (aten.max.dim, {"self": POINT, "dim": 0}),
    "extreme": (aten.amax.default, {"self": POINT, "dim": [-1]}),
    "extremes": (aten.aminmax.default, {"self": POINT, "dim": 0}),
    "choice": (aten.where.self, {"condition": torch.tensor(True), "self": POINT, "other": T()}),
    "fill": (aten.masked_fill.Tensor, {"self": T(3), "mask": BITS[:, 0], "value": POINT}),
    "picked": (aten.index_select.default, {"self": POINT, "dim": 0, "index": torch.tensor([0])}),
    "compound": (aten.addcmul.default, {"self": POINT, "tensor1": T(), "tensor2": T()}),
}


@every_mode
@pytest.mark.parametrize(("op", "arguments"), WITHOUT_DIMENSIONS.values(), ids=WITHOUT_DIMENSIONS)
def test_tensors_without_dimensions(op: Any, arguments: Arguments, mode: ModeName) -> None:
    every = floating(arguments)
    for active in (every, *([name] for name in every[1:])):
        back(bind_op(op, arguments, active, mode))


EMPTY: dict[str, tuple[Any, Arguments]] = {
    "sum": (aten.add.Tensor, {"self": T(2, 0), "other": T(2, 1)}),
    "product": (aten.mul.Tensor, {"self": T(0, 3), "other": T(3)}),
    "elementwise": (aten.gelu.default, {"self": T(0)}),
    "no samples": (aten.linear.default, {"input": T(0, 4), "weight": T(3, 4), "bias": T(3)}),
    "no features": (aten.linear.default, {"input": T(2, 0), "weight": T(3, 0), "bias": T(3)}),
    "a sum of nothing": (aten.sum.dim_IntList, {"self": T(2, 0), "dim": [-1]}),
    "a product of nothing": (aten.prod.dim_int, {"self": T(2, 0), "dim": -1}),
    "products of nothing": (aten.matmul.default, {"self": T(2, 0), "other": T(0, 3)}),
    "no pictures": (aten.conv2d.default, {"input": T(0, 3, 5, 5), "weight": T(2, 3, 3, 3), "bias": T(2)}),
    "softmax": (aten.softmax.int, {"self": T(0, 3), "dim": -1}),
    "normalise": (
        aten.layer_norm.default,
        {"input": T(0, 4), "normalized_shape": [4], "weight": T(4), "bias": T(4)},
    ),
    "attention": (
        aten.scaled_dot_product_attention.default,
        {"query": T(0, 2, 3, 4), "key": T(0, 2, 3, 4), "value": T(0, 2, 3, 4)},
    ),
    "lookup": (aten.embedding.default, {"weight": T(7, 4), "indices": torch.zeros(0, 2, dtype=torch.int64)}),
    "cat": (aten.cat.default, {"tensors": [T(2, 0), T(2, 3)], "dim": -1}),
    "cat of old": (aten.cat.default, {"tensors": [T(0), T(2, 3)], "dim": -1}),
    "slice": (aten.slice.Tensor, {"self": X, "dim": 1, "start": 2, "end": 2}),
    "sort": (aten.sort.default, {"self": T(0, 3), "dim": 0}),
    "pool": (aten.max_pool2d.default, {"self": T(0, 3, 4, 4), "kernel_size": [2]}),
    "index": (aten.index_select.default, {"self": X, "dim": 0, "index": torch.zeros(0, dtype=torch.int64)}),
    "share": (aten.logsumexp.default, {"self": T(0, 3), "dim": [1]}),
    "compound": (aten.glu.default, {"self": T(0, 4), "dim": -1}),
    "choice": (aten.div.Tensor_mode, {"self": T(0, 3), "other": T(3), "rounding_mode": None}),
}


@every_mode
@pytest.mark.parametrize(("op", "arguments"), EMPTY.values(), ids=EMPTY)
def test_tensors_without_elements(op: Any, arguments: Arguments, mode: ModeName) -> None:
    every = [name for name in floating(arguments) if name not in ("weight", "bias")] or ["indices"]
    for active in (every, *([name] for name in every[1:])):
        back(bind_op(op, arguments, active, mode))


ONE = T(3, 3)
TWICE: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "x + x": (lambda x: aten.add.Tensor(x, x), lambda x: aten.mul.Tensor(x, 2)),
    "x + x, alpha": (lambda x: aten.add.Tensor(x, x, alpha=3), lambda x: aten.mul.Tensor(x, 4)),
    "x * x": (lambda x: aten.mul.Tensor(x, x), lambda x: aten.square.default(x)),
    "x / x * x": (lambda x: aten.mul.Tensor(aten.div.Tensor(x, x), x), lambda x: aten.mul.Tensor(x, 1)),
    "max(x, x)": (lambda x: aten.maximum.default(x, x), lambda x: aten.mul.Tensor(x, 1)),
    "x if c else x": (lambda x: aten.where.self(aten.gt.Scalar(x, 0), x, x), lambda x: aten.mul.Tensor(x, 1)),
    "cat": (lambda x: aten.cat.default([x, x]), lambda x: aten.repeat.default(x, [2, 1])),
    "stack": (lambda x: aten.stack.default([x, x]), lambda x: aten.expand.default(x, [2, 3, 3])),
    "x + x * x": (
        lambda x: aten.addcmul.default(x, x, x),
        lambda x: aten.add.Tensor(x, aten.square.default(x)),
    ),
}


@every_mode
@pytest.mark.parametrize(("odd", "plain"), TWICE.values(), ids=TWICE)
def test_the_same_tensor_in_two_operands(odd: Callable[..., Any], plain: Callable[..., Any], mode: ModeName) -> None:
    assert_same(*(back(bind(function, {"x": ONE}, ["x"], mode)) for function in (odd, plain)))


PRODUCTS: dict[str, tuple[Any, str, str]] = {
    "matmul": (aten.matmul.default, "self", "other"),
    "mm": (aten.mm.default, "self", "mat2"),
    "linear": (aten.linear.default, "input", "weight"),
}


@every_mode
@pytest.mark.parametrize("turned", [True, False], ids=["x @ x.T", "x @ x"])
@pytest.mark.parametrize(("op", "a", "b"), PRODUCTS.values(), ids=PRODUCTS)
def test_a_product_of_a_tensor_with_itself(op: Any, a: str, b: str, turned: bool, mode: ModeName) -> None:
    """Each of its two operands gets what it gets beside an equal tensor."""

    def once(x: Any) -> Any:
        return op(x, aten.t.default(x) if turned else x)

    both = back(bind(once, {"x": ONE}, ["x"], mode))
    apart = back(bind_op(op, {a: ONE, b: ONE.t() if turned else ONE}, [a, b], mode))
    torch.testing.assert_close(both["x"], apart[a] + (apart[b].t() if turned else apart[b]))


@pytest.mark.parametrize("part", [T(10)[5:], T(4, 2)[:, 0], T(3, 2).t()], ids=["behind", "beside", "turned"])
def test_strides_through_memory_that_is_not_the_operands(part: torch.Tensor) -> None:
    """In a graph a value has no memory around it: what eager torch reads there is not known."""
    with pytest.raises(UnsupportedOpError, match="goes through the memory"):
        bind_op(aten.as_strided.default, {"self": part, "size": [2], "stride": [1], "storage_offset": 0}, ["self"])


def test_every_kind_is_met() -> None:
    met = {pack().find(op).kind for table in (BROADCAST, WITHOUT_DIMENSIONS, EMPTY) for op, _ in table.values()}
    elsewhere = {"constant", "complex"}  # they carry nothing; torch itself transforms neither a number nor nothing
    assert met >= {row.kind for rows in pack().rows.values() for row in rows} - elsewhere
