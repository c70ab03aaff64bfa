"""Ops that add into places of a tensor, or write over them: index_add, scatter, index_put, put, masked_scatter.

Adding is linear with unit weights over everything that flows in; writing over is a move. Sums run over flat places by
`index_add`, which gives the same bits on every run.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from dlb_core.rules import Call, Row, Shares, accumulate, choice, compound, linear, move, rule
from dlb_ops_builtin.rows.places import by_numbers, by_places, constant_of

aten = torch.ops.aten
Places = Callable[[Call, torch.device], Tensor]


def _numbers(call: Call, device: torch.device) -> Tensor:
    shape = call.shape("self")
    return torch.arange(shape.numel(), device=device).reshape(shape)


def _along(call: Call, device: torch.device) -> Tensor:
    """Whole slices: `index` along `dim`."""
    numbers = _numbers(call, device)
    return numbers.index_select(call.dim, call.index) if numbers.dim() else numbers.expand(call.index.shape)


def _each(call: Call, device: torch.device) -> Tensor:
    """Element by element: `index` says the place along `dim`."""
    return _numbers(call, device).gather(call.dim, call.index)


def _indexed(call: Call, device: torch.device) -> Tensor:
    places: Tensor = aten.index.Tensor(_numbers(call, device), call.indices)
    return places


def _flat(call: Call, device: torch.device) -> Tensor:
    index: Tensor = call.index
    return torch.where(index < 0, index + call.shape("self").numel(), index)


def _added(name: str, places: Places) -> Any:
    """What the elements of `name` add to self at their places; those that have no place are left out."""

    def apply(parts: Mapping[str, Tensor], call: Call) -> Tensor:
        into, source = parts["self"], _fitting(parts[name], places(call, parts["self"].device))
        where = places(call, into.device).reshape(-1)
        return into.reshape(-1).index_add(0, where, source.reshape(-1)).reshape(into.shape)

    return apply


def _fitting(source: Tensor, places: Tensor) -> Tensor:
    """A source that is larger than its index is cut, a smaller one broadcast."""
    if source.numel() == places.numel():
        return source
    if source.dim() == places.dim() and all(s >= p for s, p in zip(source.shape, places.shape, strict=True)):
        return source[tuple(slice(n) for n in places.shape)]
    return source.expand(places.shape)


def _counts(call: Call, where: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
    """How often each place is hit, and whether its old value takes part."""
    hits = torch.zeros(call.shape("self").numel(), dtype=like.dtype, device=like.device)
    hits = hits.index_add(0, where, torch.ones_like(where, dtype=like.dtype))
    return hits, ((hits == 0) | call.include_self).to(like.dtype)


def _reduced(name: str, places: Places, *, mean: bool) -> Any:
    """Sum or mean of what is sent to a place; `include_self` says whether its old value counts."""
    add = _added(name, places)

    def apply(parts: Mapping[str, Tensor], call: Call) -> Tensor:
        into = parts["self"]
        hits, stays = _counts(call, places(call, into.device).reshape(-1), into)
        total: Tensor = add({**parts, "self": into * stays.reshape(into.shape)}, call)
        return total / (hits + stays).reshape(into.shape) if mean else total

    return apply


def _shared(op: str, name: str, places: Places) -> Row:
    """amax, amin: the winners of a place share; prod: all that is multiplied there shares equally."""

    @rule(op, reads=("self", name, "index"), operands=("self", name))
    def shared(call: Call, r: Tensor, mode: Any) -> Shares:
        """R_x = R_y / n for each of the n that made y."""
        old, flat = call.self.reshape(-1), r.reshape(-1)
        where = places(call, r.device)
        source = _fitting(getattr(call, name), where)
        new, where = source.reshape(-1), where.reshape(-1)
        _, stays = _counts(call, where, old)
        made_old, made_new = stays, torch.ones_like(new)
        if call.reduce != "prod":
            best = old.scatter_reduce(0, where, new, call.reduce, include_self=call.include_self)
            made_old, made_new = stays * (old == best), (new == best[where]).to(new.dtype)
        s = flat / made_old.index_add(0, where, made_new)
        mine = (s[where] * made_new).reshape(source.shape)
        missing = _missing(source.shape, call.shape(name))  # what has no index got nothing
        return Shares({"self": (s * made_old).reshape(call.shape("self")), name: F.pad(mine, missing)})

    return shared


def _missing(have: torch.Size, want: torch.Size) -> list[int]:
    return [n for h, w in zip(reversed(have), reversed(want), strict=True) for n in (0, w - h)]


def _reduction(op: str, name: str, places: Places) -> Row:
    operands = ("self", name)
    rows: dict[str, Row] = {
        "sum": accumulate(op, x=operands, apply=_reduced(name, places, mean=False), reads=("index",)),
        "mean": accumulate(op, x=operands, apply=_reduced(name, places, mean=True), reads=("index",)),
    }
    shared = _shared(op, name, places)
    return choice(op, operands, lambda arguments: rows.get(arguments["reduce"], shared))


def _filled(r: Tensor, call: Call) -> Shares:
    kept = r.index_fill(call.dim, call.index, 0)
    area = torch.zeros(r.shape, dtype=r.dtype, device=r.device).index_fill(call.dim, call.index, 1)
    return Shares({"self": kept}, {constant_of(call): (r * area).sum()})


def _written(op: str, name: str, moved: Callable[..., Tensor], *reads: str) -> Row:
    return move(op, x=("self", name), back=by_numbers("self", name, moved=moved), reads=reads)


def _put(op: str, name: str, places: Places, moved: Callable[..., Tensor], index: str) -> Row:
    """`accumulate=True` adds, else it writes over."""
    adds = accumulate(op, x=("self", name), apply=_added(name, places), reads=(index,))
    writes = _written(op, name, moved, index)
    return choice(op, ("self", name), lambda arguments: adds if arguments["accumulate"] else writes)


def _combined(self: Tensor, dim: int, index: Tensor, src: Tensor, reduce: str) -> Tensor:
    if reduce == "add":
        return self.scatter_add(dim, index, src)
    return self.scatter_reduce(dim, index, src, "prod")


def _combined_value(self: Tensor, dim: int, index: Tensor, value: float, reduce: str) -> Tensor:
    return _combined(self, dim, index, torch.full_like(index, value, dtype=self.dtype), reduce)


def _col2im(x: Tensor, w: None, call: Call) -> Tensor:
    y: Tensor = aten.col2im(x, call.output_size, call.kernel_size, call.dilation, call.padding, call.stride)
    return y


ROWS: list[Row] = [
    accumulate(
        "aten::index_add",
        x=("self", "source"),
        apply=_added("source", _along),
        factors=lambda call: {"source": call.alpha},
        reads=("index",),
    ),
    accumulate("aten::scatter_add", x=("self", "src"), apply=_added("src", _each), reads=("index",)),
    _reduction("aten::scatter_reduce.two", "src", _each),
    compound("aten::scatter.reduce", written=_combined),
    compound("aten::scatter.value_reduce", written=_combined_value),
    _reduction("aten::index_reduce", "source", _along),
    _put(
        "aten::index_put",
        "values",
        _indexed,
        lambda call, x, values: aten.index_put(x, call.indices, values),
        "indices",
    ),
    _put("aten::put", "source", _flat, lambda call, x, source: x.put(call.index, source), "index"),
    _written("aten::scatter.src", "src", lambda call, x, src: x.scatter(call.dim, call.index, src), "index"),
    _written("aten::index_copy", "source", lambda call, x, new: x.index_copy(call.dim, call.index, new), "index"),
    _written("aten::index_fill.int_Tensor", "value", lambda call, x, v: x.index_fill(call.dim, call.index, v), "index"),
    _written("aten::masked_scatter", "source", lambda call, x, new: x.masked_scatter(call.mask, new), "mask"),
    move("aten::index_fill.int_Scalar", x="self", back=_filled, reads=("index",)),
    move("aten::take", x="self", back=by_places(lambda x, call: x.take(call.index)), reads=("index",)),
    linear("aten::col2im", x="self", apply=_col2im),
]
