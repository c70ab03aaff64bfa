"""Arguments for ops that add into places of a tensor (`SUMS`), share there (`SHARED`), or write over them (`MOVES`)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten
Make = Callable[[Tensors], Arguments]


def _along(name: str, **more: Any) -> Make:
    """Two of the three slices go to the same place."""
    index = torch.tensor([3, 0, 3])
    return lambda t: {"self": t(2, 4), "dim": -1, "index": index, name: t(2, 3), **more}


def _scattered(dtype: Any = None, **more: Any) -> Make:
    """The source is larger than the index, which hits some places twice and some never."""
    index = torch.tensor([[0, 3], [3, 3]])
    return lambda t: {"self": t(2, 4), "dim": 1, "index": index, "src": t(3, 2), **more}


def _indexed(*values: int, **more: Any) -> Make:
    rows, columns = torch.tensor([[1], [0], [1]]), torch.tensor([0, 2])
    return lambda t: {"self": t(2, 3, 2), "indices": [rows, columns], "values": t(*values), **more}


def _put(**more: Any) -> Make:
    return lambda t: {"self": t(2, 3), "index": torch.tensor([[0, -1], [3, 0]]), "source": t(2, 2), **more}


def _apart(make: Make) -> Make:
    """The same arguments with values of which none comes twice."""

    def distinct(t: Tensors) -> Arguments:
        arguments = make(t)
        shapes = {n: v.shape for n, v in arguments.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
        return {**arguments, **{name: t.distinct(*shape) for name, shape in shapes.items()}}

    return distinct


def _mixed(make: Make) -> Make:
    """Values of which none comes twice, and neither operand has all the greater ones."""

    def distinct(t: Tensors) -> Arguments:
        arguments = make(t)
        found = {n: v for n, v in arguments.items() if isinstance(v, torch.Tensor) and v.is_floating_point()}
        sizes = [v.numel() for v in found.values()]
        mixed = torch.randperm(sum(sizes), generator=t.generator).to(t.dtype) + 1
        parts = zip(found.items(), mixed.split(sizes), strict=True)
        return {**arguments, **{name: part.reshape(v.shape) for (name, v), part in parts}}

    return distinct


def _each(op: Any, make: Make, second: str, label: str = "") -> list[Case]:
    return [Case(op, make, active, label) for active in (("self", second), ("self",), (second,))]


def _masked(t: Tensors) -> Arguments:
    mask = torch.tensor([[True, False, True], [False, True, True]])
    return {"self": t.distinct(2, 3), "mask": mask, "source": t.distinct(5)}


FILL = {"dim": -1, "index": torch.tensor([3, 0, 3])}
ONCE = {"dim": 0, "index": torch.tensor([2, 0])}

SUMS: list[Case] = [
    *_each(aten.index_add.default, _along("source"), "source"),
    *_each(aten.index_add.default, _along("source", alpha=-2.0), "source", "alpha"),
    Case(
        aten.index_add.default,
        lambda t: {"self": t(), "dim": 0, "index": torch.tensor([0]), "source": t()},
        ("self", "source"),
        "no dimension",
    ),
    *_each(aten.scatter_add.default, _scattered(), "src"),
    *(
        case
        for reduce in ("sum", "mean")
        for stays in (True, False)
        for op, make, name in (
            (aten.scatter_reduce.two, _scattered(reduce=reduce, include_self=stays), "src"),
            (aten.index_reduce.default, _along("source", reduce="mean", include_self=stays), "source"),
        )
        for case in _each(op, make, name, f"{reduce}, {stays}")
        if op is aten.scatter_reduce.two or reduce == "mean"
    ),
    *_each(aten.index_put.default, _indexed(3, 2, 2, accumulate=True), "values"),
    *_each(aten.index_put.default, _indexed(2, accumulate=True), "values", "broadcast"),
    *_each(aten.put.default, _put(accumulate=True), "source"),
]
SHARED: list[Case] = [
    case
    for reduce in ("amax", "amin", "prod")
    for stays in (True, False)
    for op, make, name in (
        (aten.scatter_reduce.two, _scattered(reduce=reduce, include_self=stays), "src"),
        (aten.index_reduce.default, _along("source", reduce=reduce, include_self=stays), "source"),
    )
    for case in _each(op, _mixed(make), name, f"{reduce}, {stays}")
]
MOVES: list[Case] = [
    *_each(aten.index_put.default, _apart(_indexed(3, 2, 2)), "values"),
    Case(aten.index_put.default, _apart(_indexed(2, 1)), ("self", "values"), "broadcast"),
    *_each(aten.put.default, _apart(_put()), "source"),
    *_each(aten.scatter.src, _apart(_scattered()), "src"),
    *_each(
        aten.index_copy.default,
        lambda t: {"self": t.distinct(3, 4), **ONCE, "source": t.distinct(2, 4)},
        "source",
    ),
    *_each(aten.masked_scatter.default, _masked, "source"),
    *_each(aten.index_fill.int_Tensor, lambda t: {"self": t.distinct(2, 4), **FILL, "value": t.distinct()}, "value"),
    Case(aten.index_fill.int_Scalar, lambda t: {"self": t.distinct(2, 4), **FILL, "value": -5.0}, ("self",)),
    Case(aten.take.default, lambda t: {"self": t.distinct(2, 3), "index": torch.tensor([[5, 0], [5, 1]])}, ("self",)),
]
COLUMNS = {"output_size": [4, 5], "kernel_size": [2, 3], "dilation": [1, 1], "padding": [1, 0], "stride": [2, 1]}
FOLDED = Case(aten.col2im.default, lambda t: {"self": t(2, 18, 9), **COLUMNS}, ("self",))
CASES: list[Case] = [*SUMS, *SHARED, *MOVES, FOLDED]
