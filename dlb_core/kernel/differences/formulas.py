"""A formula for changes for every kind but those that go through a softmax."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.differences.changes import (
    HELD,
    Flow,
    OfDifferences,
    Sharing,
    before,
    change,
    changed,
    masked_change,
    midway,
    moving,
    steered,
)
from dlb_core.kernel.facts import facts
from dlb_core.kernel.kinds import AccumulateView, Linear, LinearView, Move, NormaliseView, Share, SumView
from dlb_core.kernel.kinds.moves import call_arguments, move_back
from dlb_core.kernel.kinds.shares import by_weight


class _Accumulated(AccumulateView):
    """The change of what flows into places of one tensor; a constant there has none."""

    def __init__(self, view: AccumulateView, mode: OfDifferences) -> None:
        super().__init__(view.row, view.call)
        self._change = change(mode, view.x, AccumulateView(view.row, before(view.call)).x)

    @property
    def x(self) -> Tensor:
        return self._change

    @property
    def bias(self) -> None:
        return None

    @property
    def output(self) -> Tensor:
        return self.apply(self._change, None)


def linear(view: Any, r: Tensor, mode: OfDifferences) -> Shares:
    """The mode's formula on the change of x; what the change of the map itself did, if it receives nothing, is held."""
    if isinstance(view, AccumulateView):
        return mode.base.formulas["linear"].run(_Accumulated(view, mode), r, mode.base)
    call, row, may_move = view.call, view.row, moving(view.call)
    flow = Flow(row, call, changed(call, row.x, mode), view.weight)
    terms = {row.x: flow.output}
    if not {row.weight, *row.reads}.isdisjoint(may_move) or steered(call, row.reads):
        x, at_both = getattr(before(call), row.x), [LinearView(row, at) for at in (call, before(call))]
        terms[HELD] = change(mode, *(row.apply(x, at.weight, at.call) for at in at_both))
        if row.bias_at is not None and row.bias not in may_move:  # its values are the same, but others are chosen
            now, then = (at.bias for at in at_both)
            terms[HELD] += 0 if now is None or then is None else change(mode, now, then)
    return Sharing(mode, call).divide(r, terms | _bias(view, mode, may_move), {row.x: flow}, view)


def bilinear(view: tuple[LinearView, LinearView], r: Tensor, mode: OfDifferences) -> Shares:
    """dy = A(da, mean b) + A(mean a, db), each by the mode's formula for linear maps."""
    call, may_move = view[0].call, moving(view[0].call)
    flows = {}
    for one in view:
        weight = midway(one.weight, LinearView(one.row, before(call)).weight)
        flows[one.name] = Flow(one.row, call, changed(call, one.row.x, mode), weight)
    terms = {name: flow.output for name, flow in flows.items()}
    return Sharing(mode, call).divide(r, terms | _bias(view[0], mode, may_move), flows, view[0])


def _bias(view: LinearView, mode: OfDifferences, may_move: Iterable[str]) -> dict[str, Tensor]:
    name, now, then = view.row.bias, view.bias, LinearView(view.row, before(view.call)).bias
    if name is None or name not in may_move or now is None or then is None:
        return {}
    return {name: change(mode, now, then)}


def sum_(view: SumView, r: Tensor, mode: OfDifferences) -> Shares:
    """The mode's formula on the changes of the addends; constants have none."""
    now, then = view.terms, SumView(view.row, before(view.call)).terms
    may_move = moving(view.call)
    terms = {name: masked_change(mode, now[name], then[name]) for name in now if name in may_move}
    return Sharing(mode, view.call).divide(r, terms)


def pointwise(view: tuple[Any, Call], r: Tensor, mode: OfDifferences) -> Shares:
    """R_x = R_y; where several operands change, by what each of them did."""
    name, call = view
    alone = isinstance(name, str) and (facts(call.node).source is not None or len(moving(call)) < 2)
    return Sharing(mode, call).divide(r, {name: r} if alone else _by_corner(call, moving(call), mode))


def _by_corner(call: Call, names: list[str], mode: OfDifferences) -> dict[str, Tensor]:
    """What each operand's change does to the op: what is held first, then one after the other in both orders."""
    now, then = ({name: getattr(at, name) for name in names} for at in (call, before(call)))
    held, free = ([name for name in names if (name in call.receivers) is receives] for receives in (False, True))
    function: Any = call.node.target
    parts: dict[str, Tensor] = {}
    for order in ((*held, *free), (*held, *free[::-1])):
        here = dict(then)
        value = function(**call_arguments(call, here))
        for name in order:
            here[name] = now[name]
            moved = function(**call_arguments(call, here))
            half = masked_change(mode, moved, value) / 2
            parts[name] = parts[name] + half if name in parts else half
            value = moved
    return parts


def normalise(view: NormaliseView, r: Tensor, mode: OfDifferences) -> Shares:
    """dy = scale dx, the scale that it has now, + what the statistics did, which is held."""
    call, row = view.call, view.row
    if row.scale is None:
        return Sharing(mode, call).divide(r, {row.x: r})
    signal = row.scale(call) * changed(call, row.x, mode)
    rest = masked_change(mode, call.output, before(call).output) - signal
    return Sharing(mode, call).divide(r, {row.x: signal, HELD: rest})


def share(view: tuple[Share, Call], r: Tensor, mode: OfDifferences) -> Shares:
    """The mode's formula for linear maps with the slopes midway as weights; where torch has none, as values share."""
    row, call = view
    if row.gather is None or "opaque" in row.tags:
        return by_weight(view, r, mode)
    gather = row.gather
    function: Any = call.node.target
    x = midway(getattr(call, row.x), getattr(before(call), row.x))
    y, back, *_ = torch.func.vjp(lambda x: function(**call_arguments(call, {row.x: x})), x)
    slopes = back(torch.ones_like(y))[0].nan_to_num(0.0, 0.0, 0.0)
    line = row.become(Linear, x=row.x, apply=lambda x, w, call: gather(x if w is None else x * w, call))
    dx = masked_change(mode, getattr(call, row.x), getattr(before(call), row.x))
    flow = Flow(line, call, dx, slopes)
    return Sharing(mode, call).divide(r, {row.x: flow.output}, {row.x: flow})


def move(view: tuple[Move, tuple[str, ...], Call], r: Any, mode: OfDifferences) -> Shares:
    """R goes back where the value came from: of one that rose where it is from now, of one that fell where it was from.

    So the winner of a maximum has changed by no less than the maximum itself.
    """
    row, names, call = view
    if row.back is not None and not row.reads:
        return move_back(view, r, mode)
    rs = _listed(r)
    values = zip(_listed(call.output), _listed(before(call).output), rs, strict=True)
    rose = [None if part is None else part * _rose(now, then) for now, then, part in values]
    fell = [None if part is None else part - up for part, up in zip(rs, rose, strict=True)]
    now, then = (
        move_back((row, names, at), tuple(parts) if isinstance(r, (tuple, list)) else parts[0], mode)
        for at, parts in ((call, rose), (before(call), fell))
    )
    relevance = {name: _added(part, then.relevance[name]) for name, part in now.relevance.items()}
    return Shares(relevance, {name: units + then.accounts[name] for name, units in now.accounts.items()})


def _rose(now: Tensor, then: Tensor) -> Tensor | int:
    """Complex values neither rise nor fall: they come from where they are from now."""
    return 1 if now.is_complex() else now >= then


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (tuple, list)) else [value]


def _added(a: Any, b: Any) -> Any:
    if isinstance(a, (tuple, list)):
        return [_added(x, y) for x, y in zip(a, b, strict=True)]
    return b if a is None else a if b is None else a + b


FORMULAS: Mapping[str, Callable[[Any, Any, Any], Shares]] = {
    "linear": linear,
    "bilinear": bilinear,
    "sum": sum_,
    "elementwise": pointwise,
    "product": pointwise,
    "normalise": normalise,
    "share": share,
    "move": move,
}
