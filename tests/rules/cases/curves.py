"""Arguments for norms, distances, slopes, areas, quantiles, and for torch.special."""

from __future__ import annotations

import math
from typing import Any

import torch

from dlb_ops_builtin.rows import special

from ..case import Arguments, Case
from ..tensors import Tensors

aten = torch.ops.aten


def _x(*shape: int, **more: Any) -> Any:
    return lambda t: {"self": t(*shape), **more}


def _part(op: Any, item: int, **more: Any) -> Any:
    return lambda self, **tensors: op(self, **tensors, **more)[item]


def _strip(op: Any, dim: int, *shape: int) -> Case:
    """Areas over points whose widths vary."""
    return Case(op, lambda t: {"y": t(2, 4, 3), "x": t.positive(*shape).cumsum(0), "dim": dim}, ("y",), f"{shape}")


def _spaced(t: Tensors) -> Arguments:
    return {"self": t(2, 5), "at": t.positive(5).cumsum(0)}


def _quantile(t: Tensors) -> Arguments:
    return {"self": t(3, 5), "q": torch.tensor([0.0, 0.3, 1.0], dtype=t(1).dtype), "dim": -1, "keepdim": True}


def _index(t: Tensors) -> Arguments:
    return {"self": t(3, 4), "dim": 1, "index": t.ids(4, 3, 2)}


def _polynomial(name: str, number: bool) -> Case:
    op = getattr(aten, f"special_{name}")
    if number:
        return Case(op.n_scalar, lambda t: {"x": t(2, 3).tanh(), "n": 3}, ("x",))
    return Case(op.default, lambda t: {"x": t(2, 3).tanh(), "n": torch.full((3,), 2.0).to(t(1).dtype)}, ("x",))


ORDERS = (None, 1, -1, math.inf, -math.inf)
EXTRA = {"polygamma": {"n": 1}, "multigammaln": {"p": 2}}


def _function(name: str) -> Case:
    op = getattr(aten, f"special_{name}").default
    takes = next(a.name for a in op._schema.arguments if "Tensor" in str(a.type))
    draw = (lambda t: t.positive(2, 3) / 2) if name == "erfinv" else (lambda t: t.positive(2, 3) + 1)
    return Case(op, lambda t: {**EXTRA.get(name, {}), takes: draw(t)}, (takes,))


CASES: list[Case] = [
    *(Case(aten.linalg_norm.default, _x(3, 4, ord=p), ("self",), str(p)) for p in ORDERS),
    Case(aten.linalg_norm.default, _x(2, 3, 4, ord=3, dim=[1]), ("self",)),
    Case(aten.linalg_norm.ord_str, _x(3, 4, ord="fro"), ("self",)),
    Case(aten.linalg_matrix_norm.default, _x(2, 3, 4, ord=1, dim=[2, 0], keepdim=True), ("self",)),
    Case(aten.linalg_matrix_norm.str_ord, _x(2, 3, 4, ord="fro", dim=[-2, -1]), ("self",)),
    Case(aten.frobenius_norm.dim, _x(2, 3, 4, dim=[1, 2]), ("self",)),
    Case(aten.renorm.default, _x(3, 4, p=2, dim=0, maxnorm=1.0), ("self",)),
    Case(aten.dist.default, lambda t: {"self": t(3, 4), "other": t(4), "p": 2}, ("self", "other")),
    Case(aten.pdist.default, _x(4, 3, p=2.0), ("self",)),
    Case(aten._pdist_forward.default, lambda t: {"self": t(4, 3).contiguous(), "p": 1.0}, ("self",)),
    Case(
        aten.conv_tbc.default,
        lambda t: {"self": t(5, 2, 3).contiguous(), "weight": t(2, 3, 4), "bias": t(4), "pad": 1},
        ("self",),
    ),
    Case(
        aten.rrelu_with_noise_functional.default,
        lambda t: {"self": t(3, 4)},
        ("self",),
        program=lambda self: aten.rrelu_with_noise_functional.default(self, self)[0],
    ),
    Case(
        aten.gradient.scalarint,
        lambda t: {"self": t(2, 5)},
        ("self",),
        program=_part(aten.gradient.scalarint, 0, dim=1),
    ),
    Case(
        aten.gradient.scalarrayarray,
        lambda t: {"self": t(4, 5)},
        ("self",),
        program=_part(aten.gradient.scalarrayarray, 1, spacing=[0.5, 2.0], dim=[0, 1], edge_order=2),
    ),
    *(
        Case(
            aten.gradient.tensorarray,
            _spaced,
            ("self",),
            str(order),
            program=lambda self, at, order=order: aten.gradient.tensorarray(
                self, spacing=[at], dim=[1], edge_order=order
            )[0],
        )
        for order in (1, 2)
    ),
    *(
        _strip(op, dim, *shape)
        for op in (aten.trapezoid.x, aten.trapz.x, aten.cumulative_trapezoid.x)
        for dim, shape in ((1, (4,)), (-1, (3,)))
    ),
    Case(aten.trapz.dx, lambda t: {"y": t(2, 4), "dx": 0.5}, ("y",)),
    Case(aten.linalg_vander.default, lambda t: {"x": t(2, 3)}, ("x",)),
    Case(aten.linalg_vander.default, lambda t: {"x": t(), "N": 2}, ("x",), "a number"),
    Case(aten.quantile.scalar, _x(q=0.4, dim=0, keepdim=True), ("self",), "a number"),
    Case(aten.linalg_norm.default, _x(0, 3, ord=float("inf")), ("self",), "of nothing"),
    Case(aten.vander.default, lambda t: {"x": t(3), "N": 4}, ("x",)),
    *(
        Case(op.default, lambda t, how=how: {**_quantile(t), "interpolation": how}, ("self",), how)
        for op in (aten.quantile, aten.nanquantile)
        for how in ("linear", "lower", "higher", "nearest", "midpoint")
    ),
    Case(aten.quantile.scalar, _x(2, 3, q=0.4), ("self",)),
    Case(aten.nanquantile.scalar, _x(2, 3, 4, q=0.4, dim=1, keepdim=True), ("self",)),
    *(
        Case(aten.scatter.reduce, lambda t, how=how: {**_index(t), "src": t(3, 2), "reduce": how}, ("self", "src"), how)
        for how in ("add", "multiply")
    ),
    *(
        Case(aten.scatter.value_reduce, lambda t, how=how: {**_index(t), "value": 1.5, "reduce": how}, ("self",), how)
        for how in ("add", "multiply")
    ),
    *(_function(name) for name in special.OF_ONE_NUMBER),
    *(_polynomial(name, number) for name in special.POLYNOMIALS for number in (True, False)),
    Case(aten.special_xlogy.default, lambda t: {"self": t(3, 4), "other": t.positive(4)}, ("self", "other")),
    Case(aten.special_logsumexp.default, _x(3, 4, dim=[-1]), ("self",)),
]
