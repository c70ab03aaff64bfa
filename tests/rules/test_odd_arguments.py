"""Unusual spellings of a call: each gives what its plain spelling gives, in every mode."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch

from .harness import MODE_NAMES, MODES, ModeName, bind, bind_op
from .spelled import assert_same, back, floating
from .tensors import Tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)
Arguments = dict[str, Any]
T = Tensors(1)
X, Y = T(2, 3, 4), T(2, 3, 4)
Spelling = tuple[Any, Arguments, Arguments]  # the op, its arguments, and those that the plain spelling has instead


def spelled(spellings: Mapping[str, Spelling]) -> Any:
    return pytest.mark.parametrize(("op", "odd", "plain"), spellings.values(), ids=spellings)


NEGATIVE: dict[str, Spelling] = {
    "linear": (aten.sum.dim_IntList, {"self": X, "dim": [-1, -3]}, {"dim": [2, 0]}),
    "running": (aten.cumsum.default, {"self": X, "dim": -2}, {"dim": 1}),
    "softmax": (aten.softmax.int, {"self": X, "dim": -2}, {"dim": 1}),
    "elementwise": (aten.log_softmax.int, {"self": X, "dim": -1}, {"dim": 2}),
    "share": (aten.logsumexp.default, {"self": X, "dim": [-2]}, {"dim": [1]}),
    "compound": (aten.glu.default, {"self": X, "dim": -3}, {"dim": 0}),
    "cat": (aten.cat.default, {"tensors": [X, Y], "dim": -1}, {"dim": 2}),
    "stack": (aten.stack.default, {"tensors": [X, Y], "dim": -1}, {"dim": 3}),
    "split": (aten.split.Tensor, {"self": X, "split_size": 2, "dim": -1}, {"dim": 2}),
    "transpose": (aten.transpose.int, {"self": X, "dim0": -1, "dim1": -3}, {"dim0": 2, "dim1": 0}),
    "permute": (aten.permute.default, {"self": X, "dims": [-1, 0, -2]}, {"dims": [2, 0, 1]}),
    "squeeze": (aten.unsqueeze.default, {"self": X, "dim": -2}, {"dim": 2}),
    "flip": (aten.flip.default, {"self": X, "dims": [-1]}, {"dims": [2]}),
    "winners": (aten.max.dim, {"self": X, "dim": -2}, {"dim": 1}),
    "waves": (aten.fft_rfft.default, {"self": X, "dim": -2}, {"dim": 1}),
    "index": (aten.select.int, {"self": X, "dim": -1, "index": -3}, {"dim": 2, "index": 1}),
    "slice": (aten.slice.Tensor, {"self": X, "dim": -1, "start": -3, "end": -1}, {"dim": 2, "start": 1, "end": 3}),
    "beyond": (aten.slice.Tensor, {"self": X, "dim": 1, "start": -99, "end": 99}, {"start": 0, "end": 3}),
}


@every_mode
@spelled(NEGATIVE)
def test_dims_and_slices_from_the_right(op: Any, odd: Arguments, plain: Arguments, mode: ModeName) -> None:
    active = floating(odd)
    assert_same(*(back(bind_op(op, arguments, active, mode)) for arguments in (odd, {**odd, **plain})))


WHOLE = torch.tensor([[2, -1, 3, 1]])
BITS = torch.tensor([[True], [False], [True]])
OTHER_DTYPES: dict[str, Spelling] = {
    "sum of integers": (aten.add.Tensor, {"self": X, "other": WHOLE, "alpha": 2}, {"other": WHOLE.double()}),
    "sum of bits": (aten.add.Tensor, {"self": BITS, "other": X}, {"self": BITS.double()}),
    "difference": (aten.sub.Tensor, {"self": WHOLE, "other": X}, {"self": WHOLE.double()}),
    "product with integers": (aten.mul.Tensor, {"self": WHOLE, "other": X}, {"self": WHOLE.double()}),
    "product with bits": (aten.mul.Tensor, {"self": X, "other": BITS}, {"other": BITS.double()}),
    "quotient": (aten.div.Tensor, {"self": X, "other": WHOLE}, {"other": WHOLE.double()}),
    "power": (aten.pow.Tensor_Tensor, {"self": X.abs(), "exponent": WHOLE}, {"exponent": WHOLE.double()}),
    "winners": (aten.maximum.default, {"self": X, "other": WHOLE}, {"other": WHOLE.double()}),
    "fill": (aten.masked_fill.Scalar, {"self": X, "mask": BITS, "value": 3}, {"value": 3.0}),
    "choice": (aten.where.self, {"condition": BITS, "self": X, "other": WHOLE}, {"other": WHOLE.double()}),
    "compound": (
        aten.addcmul.default,
        {"self": X, "tensor1": Y, "tensor2": WHOLE, "value": 2},
        {"tensor2": WHOLE.double(), "value": 2.0},
    ),
}


@every_mode
@spelled(OTHER_DTYPES)
def test_integer_and_bool_operands(op: Any, odd: Arguments, plain: Arguments, mode: ModeName) -> None:
    active = floating(odd)
    assert_same(*(back(bind_op(op, arguments, active, mode)) for arguments in (odd, {**odd, **plain})))


@every_mode
def test_a_bool_index_picks_as_its_numbers_do(mode: ModeName) -> None:
    bits = torch.tensor([True, False, True])
    odd, plain = ({"self": X, "indices": [None, index]} for index in (bits, bits.nonzero().flatten()))
    assert_same(*(back(bind_op(aten.index.Tensor, arguments, ["self"], mode)) for arguments in (odd, plain)))


BIAS = T(4)
ROWS, COLUMNS = T(3, 5), T(5, 4)
FACTORS: dict[str, tuple[Any, Arguments, Any, Arguments]] = {
    "add": (
        aten.add.Tensor,
        {"self": X, "other": Y, "alpha": -0.5},
        aten.sub.Tensor,
        {"self": X, "other": Y, "alpha": 0.5},
    ),
    "rsub": (
        aten.rsub.Scalar,
        {"self": X, "other": 2.0, "alpha": 3},
        aten.add.Scalar,
        {"self": -3 * X, "other": 2.0, "alpha": 1},
    ),
    "addmm": (
        aten.addmm.default,
        {"self": BIAS, "mat1": ROWS, "mat2": COLUMNS, "beta": -2, "alpha": 0.5},
        aten.addmm.default,
        {"self": -2 * BIAS, "mat1": ROWS, "mat2": 0.5 * COLUMNS},
    ),
    "baddbmm": (
        aten.baddbmm.default,
        {"self": BIAS, "batch1": ROWS[None], "batch2": COLUMNS[None], "beta": 3, "alpha": -1},
        aten.baddbmm.default,
        {"self": 3 * BIAS, "batch1": ROWS[None], "batch2": -COLUMNS[None]},
    ),
}


@every_mode
@pytest.mark.parametrize(("op", "odd", "plain_op", "plain"), FACTORS.values(), ids=FACTORS)
def test_factors(op: Any, odd: Arguments, plain_op: Any, plain: Arguments, mode: ModeName) -> None:
    assert_same(back(bind_op(op, odd, floating(odd), mode)), back(bind_op(plain_op, plain, floating(odd), mode)))


def _call(op: Any, *args: Any, **kwargs: Any) -> Callable[..., Any]:
    """The op in a graph exactly as it is spelled; names of tensors stand for them."""

    def use(**given: Any) -> Any:
        def fill(value: Any) -> Any:
            if isinstance(value, list):
                return [fill(item) for item in value]
            return given.get(value, value) if isinstance(value, str) else value

        arguments = [fill(a) for a in args], {name: fill(a) for name, a in kwargs.items()}
        return next(iter(given.values())).tracer.create_proxy("call_function", op, tuple(arguments[0]), arguments[1])

    return use


KEYWORDS: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = {
    "sum": (_call(aten.add.Tensor, other="y", self="x", alpha=2), _call(aten.add.Tensor, "x", "y", alpha=2)),
    "linear": (
        _call(aten.linear.default, bias="b", weight="w", input="x"),
        _call(aten.linear.default, "x", "w", "b"),
    ),
    "reduction": (
        _call(aten.sum.dim_IntList, keepdim=True, dim=[1], self="x"),
        _call(aten.sum.dim_IntList, "x", [1], True),
    ),
    "bilinear": (_call(aten.matmul.default, other="v", self="x"), _call(aten.matmul.default, "x", "v")),
    "product": (_call(aten.mul.Tensor, other="y", self="x"), _call(aten.mul.Tensor, "x", "y")),
    "elementwise": (
        _call(aten.gelu.default, approximate="tanh", self="x"),
        _call(aten.gelu.default, "x", approximate="tanh"),
    ),
    "softmax": (_call(aten.softmax.int, dim=1, self="x"), _call(aten.softmax.int, "x", 1)),
    "normalise": (
        _call(aten.layer_norm.default, bias="b4", weight="w4", normalized_shape=[4], input="x"),
        _call(aten.layer_norm.default, "x", [4], "w4", "b4"),
    ),
    "move": (_call(aten.cat.default, dim=1, tensors=["x", "y"]), _call(aten.cat.default, ["x", "y"], 1)),
    "share": (
        _call(aten.var.correction, self="x", dim=[1], correction=0),
        _call(aten.var.correction, "x", [1], correction=0),
    ),
    "attention": (
        _call(aten.scaled_dot_product_attention.default, value="y", key="y", query="x", is_causal=True),
        _call(aten.scaled_dot_product_attention.default, "x", "y", "y", None, 0.0, True),
    ),
    "compound": (_call(aten.glu.default, dim=2, self="x"), _call(aten.glu.default, "x", 2)),
}


@every_mode
@pytest.mark.parametrize(("odd", "plain"), KEYWORDS.values(), ids=KEYWORDS)
def test_keyword_arguments_in_any_order(odd: Callable[..., Any], plain: Callable[..., Any], mode: ModeName) -> None:
    t = Tensors(3)
    tensors = {"x": X, "y": Y, "w": t(5, 4), "b": t(5), "v": t(4, 2), "w4": t(4), "b4": t(4)}
    assert_same(*(back(bind(function, tensors, ["x", "y"], mode)) for function in (odd, plain)))
