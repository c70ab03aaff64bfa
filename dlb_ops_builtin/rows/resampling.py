"""Pooling by averages, running sums and interpolation: fixed weights, of both signs where curves are fitted."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, linear, move
from dlb_ops_builtin.rows.places import by_places

aten = torch.ops.aten


def _adaptive(dims: int) -> Row:
    pool = getattr(aten, f"adaptive_avg_pool{dims}d").default
    return linear(f"aten::adaptive_avg_pool{dims}d", x="self", apply=lambda x, w, call: pool(x, call.output_size))


def _average(dims: int) -> Row:
    pool = getattr(aten, f"avg_pool{dims}d").default

    def apply(x: Tensor, w: None, call: Call) -> Tensor:
        window = (call.kernel_size, call.stride, call.padding, call.ceil_mode, call.count_include_pad)
        y: Tensor = pool(x, *window) if dims == 1 else pool(x, *window, call.divisor_override)
        return y

    return linear(f"aten::avg_pool{dims}d", x="self", apply=apply, refuses=_turns_over)


def _turns_over(bound: Mapping[str, Any]) -> str | None:
    """The map's fixed weights must not be negative."""
    return "it divides by a negative divisor_override" if (bound.get("divisor_override") or 1) < 0 else None


def _rest(op: Any, call: Call) -> list[Any]:
    """All arguments of a call but the first, in the order of the op's schema."""
    return [getattr(call, argument.name) for argument in op._schema.arguments[1:]]


def _overloads(name: str) -> list[tuple[Any, str, str]]:
    """The overloads of an interpolation that is there in this torch: the op, its name, that of its first argument."""
    family = getattr(aten, name, None)
    ops = [] if family is None else [getattr(family, o) for o in family.overloads() if "out" not in o]
    return [(op, f"aten::{name}.{op._overloadname}", op._schema.arguments[0].name) for op in ops]


def _between(name: str) -> list[Row]:
    """Each output lies between its neighbours: weights that are not negative."""
    return [linear(label, x=x, apply=partial(_linearly, op)) for op, label, x in _overloads(name)]


def _linearly(op: Any, x: Tensor, w: None, call: Call) -> Tensor:
    y: Tensor = op(x, *_rest(op, call))
    return y


def _nearest(name: str) -> list[Row]:
    """Each output is a copy of the input element nearest to it."""
    return [
        move(label, x=x, back=by_places(partial(_copied, op), x, counts=False)) for op, label, x in _overloads(name)
    ]


def _copied(op: Any, x: Tensor, call: Call) -> Tensor:
    y: Tensor = op(x, *_rest(op, call))
    return y


def _curved(name: str) -> list[Row]:
    """Weights of both signs, a product of one per row and one per column, so that their magnitudes are one too."""
    rows: list[Row] = []
    for op, label, x in _overloads(name):
        plane = op.overloadpacket.default
        maps: dict[str, Any] = {"apply": _curve, "transpose": partial(_uncurve, x)}
        weights = partial(_curve_weights, plane, x)
        rows.append(linear(label, x=x, weights=weights, magnitudes_only=True, **maps))
    return rows


def _curve_weights(plane: Any, x: str, call: Call) -> Tensor:
    """Both matrices flat, one behind the other: what the op makes of unit vectors along each side."""
    sides = zip(call.shape(x)[-2:], call.shape("output")[-2:], _scales(call), strict=True)
    flat = []
    for size, grown, scale in sides:
        unit = torch.eye(size, dtype=call.dtype, device=call.device).reshape(1, size, size, 1)
        wide = unit.repeat(1, 1, 1, 2)  # an image one pixel wide has two readings of its strides, and torch mixes them
        flat.append(plane(wide, [grown, 2], call.align_corners, scale, None)[..., 0].flatten())
    return torch.cat(flat)


def _curve(x: Tensor, w: Tensor, call: Call) -> Tensor:
    rows, columns = _sides(x.shape[-2:], w, call)
    return rows.mT @ x @ columns


def _uncurve(x: str, s: Tensor, w: Tensor, call: Call) -> Tensor:
    rows, columns = _sides(call.shape(x)[-2:], w, call)
    return rows @ s @ columns.mT


def _scales(call: Call) -> tuple[float | None, float | None]:
    if call.takes("scale_factors"):
        return (None, None) if call.scale_factors is None else tuple(call.scale_factors)
    return call.scales_h, call.scales_w


def _sides(size: torch.Size, w: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    (height, width), (rows, columns) = size, call.shape("output")[-2:]
    first, second = w.split([height * rows, width * columns])
    return first.reshape(height, rows), second.reshape(width, columns)


def _running_sum(x: Tensor, w: None, call: Call) -> Tensor:
    return x.cumsum(call.dim)


def _running_sum_back(s: Tensor, w: None, call: Call) -> Tensor:
    return s.flip(call.dim).cumsum(call.dim).flip(call.dim) if s.dim() else s


LINES = ("upsample_linear1d", "upsample_bilinear2d", "upsample_trilinear3d", "_upsample_bilinear2d_aa")
NEAREST = ("upsample_nearest", "_upsample_nearest_exact")
CURVES = ("upsample_bicubic2d", "_upsample_bicubic2d_aa", "_upsample_lanczos2d_aa")

ROWS: list[Row] = [
    *(_adaptive(dims) for dims in (1, 2, 3)),
    *(_average(dims) for dims in (1, 2, 3)),
    *(row for name in LINES for row in _between(name)),
    *(row for dims in (1, 2, 3) for name in NEAREST for row in _nearest(f"{name}{dims}d")),
    *(row for name in CURVES for row in _curved(name)),
    linear("aten::cumsum", x="self", apply=_running_sum, transpose=_running_sum_back),
]
