"""Batch members do not see each other, and their order does not matter."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from .harness import MODE_NAMES, MODES, Bound, ModeName, bind
from .tensors import Tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def dense(x: Any, w: Any, b: Any) -> Any:
    return aten.linear.default(aten.relu.default(x), w, b)


def convolution(x: Any, w: Any, b: Any, mean: Any, var: Any) -> Any:
    y = aten.batch_norm.default(
        aten.conv2d.default(x, w, b, [1, 1], [1, 1]), None, b, mean, var, False, 0.1, 1e-5, False
    )
    return aten.max_pool2d.default(aten.relu.default(y), [2, 2])


def pooled(x: Any, w: Any) -> Any:
    return aten.linear.default(aten.mean.dim(aten.avg_pool2d.default(x, [2, 2]), [2, 3]), w)


def residual(x: Any, w: Any, b: Any) -> Any:
    return aten.add.Tensor(aten.group_norm.default(x, 2, None, b), aten.sub.Tensor(x, aten.mul.Tensor(x, w)))


def self_attention(x: Any, w: Any, b: Any) -> Any:
    y = aten.layer_norm.default(x, [4], None, b)
    k = aten.linear.default(y, w)
    return aten.add.Tensor(x, aten.scaled_dot_product_attention.default(y, k, y, is_causal=True))


def eager_attention(x: Any, w: Any) -> Any:
    q = aten.linear.default(x, w)
    weights = aten.softmax.int(aten.bmm.default(q, aten.transpose.int(x, 1, 2)), -1)
    return aten.cat.default([aten.bmm.default(weights, x), q], 2)


def similarity(x: Any) -> Any:
    return aten.matmul.default(x, aten.transpose.int(x, -1, -2))


def lookup(x: Any, table: Any, w: Any) -> Any:
    return aten.linear.default(aten.sum.dim_IntList(aten.embedding.default(table, x), [1]), w)


def gated(x: Any, w: Any) -> Any:
    halves = aten.chunk.default(aten.linear.default(x, w), 2, -1)
    return aten.mul.Tensor(aten.tanh.default(halves[0]), aten.sigmoid.default(halves[1]))


# function, shape of x without the batch, shapes of the parameters
PROGRAMS: dict[Any, tuple[tuple[int, ...], dict[str, tuple[int, ...]]]] = {
    dense: ((4,), {"w": (3, 4), "b": (3,)}),
    convolution: ((2, 4, 4), {"w": (3, 2, 3, 3), "b": (3,), "mean": (3,), "var": (3,)}),
    pooled: ((3, 4, 4), {"w": (2, 3)}),
    residual: ((4, 3), {"w": (3,), "b": (4,)}),
    self_attention: ((5, 4), {"w": (4, 4), "b": (4,)}),
    eager_attention: ((5, 4), {"w": (4, 4)}),
    similarity: ((3, 4), {}),
    lookup: ((5,), {"table": (7, 4), "w": (3, 4)}),
    gated: ((4,), {"w": (6, 4)}),
}
every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda program: program.__name__)


def made(program: Any, t: Tensors, mode: ModeName) -> tuple[Any, Tensor]:
    """A function from a batch to the bound program, and a batch of four."""
    shape, parameters = PROGRAMS[program]
    fixed = {name: t.positive(*size) if name == "var" else t(*size) for name, size in parameters.items()}
    x = t.ids(7, 4, *shape) if program is lookup else t(4, *shape)

    def of(batch: Tensor) -> Bound:
        return bind(program, {"x": batch, **fixed}, ["x"], mode)

    return of, x


@every_mode
@every_program
def test_a_member_alone_is_as_in_its_batch(program: Any, mode: ModeName) -> None:
    t = Tensors(1)
    of, x = made(program, t, mode)
    bound = of(x)
    r = t.normal(*bound.output.shape)
    together = bound.back(r)
    parts = [of(x[i : i + 1]).back(r[i : i + 1]) for i in range(len(x))]
    torch.testing.assert_close(together["x"], torch.cat([part["x"] for part in parts]))
    for account, units in together.accounts.items():
        assert units == pytest.approx(sum(part.booked(account) for part in parts), rel=1e-7, abs=1e-9)


@every_mode
@every_program
def test_units_of_one_member_stay_with_it(program: Any, mode: ModeName) -> None:
    t = Tensors(2)
    of, x = made(program, t, mode)
    bound = of(x)
    r = torch.zeros(bound.output.shape, dtype=torch.float64)
    r[2] = t.normal(*r.shape[1:])
    got = bound.back(r)["x"]
    assert bool(got[2].any())
    assert not bool(got[[0, 1, 3]].any())


@every_mode
@every_program
def test_a_permuted_batch_permutes_relevance(program: Any, mode: ModeName) -> None:
    t = Tensors(3)
    of, x = made(program, t, mode)
    bound = of(x)
    r = t.normal(*bound.output.shape)
    order = torch.tensor([2, 0, 3, 1])
    torch.testing.assert_close(of(x[order]).back(r[order])["x"], bound.back(r)["x"][order])
