"""What changed between two points, and the two ways to share it: between addends, and back through a linear map."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import cached_property
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.kernel.call import Call, Shares
from dlb_core.kernel.facts import facts
from dlb_core.kernel.kinds import Linear, LinearView, Sum, SumView, sum_to, vjp
from dlb_core.kernel.modes import BoundMode, Formula, Mode
from dlb_core.kernel.ops import bound_arguments, is_active_dtype

HELD = "held"


class OfDifferences(BoundMode):
    """A mode that shares changes: `base` is the mode whose formulas it asks, `factor` how often changes count."""

    __slots__ = ("base", "factor")
    differs = True

    def __init__(self, base: BoundMode, factor: float, formulas: Mapping[str, Formula]) -> None:
        self.base = base
        self.factor = factor
        super().__init__(Mode(base.name, {**base.formulas, **formulas}, gates=False), base.options, base.given)

    @property
    def key(self) -> tuple[Any, ...]:
        return ("differences", self.factor, *self.base.key)


def before(call: Call) -> Call:
    """The call one point earlier."""
    assert call.before is not None
    return call.before


def change(mode: OfDifferences, now: Tensor, then: Tensor) -> Tensor:
    """How much a value changed."""
    return (now - then) * mode.factor


def masked_change(mode: OfDifferences, now: Tensor, then: Tensor) -> Tensor:
    """How much a score changed; one that is masked, minus infinity at both points, did not."""
    return torch.where(now == then, 0, change(mode, now, then))


def changed(call: Call, name: str, mode: OfDifferences) -> Tensor:
    """How much an argument changed."""
    return change(mode, getattr(call, name), getattr(before(call), name))


def midway(now: Any, then: Any) -> Any:
    """The mean of a value at both points; what is no floating tensor is the same at both."""
    flows = isinstance(now, Tensor) and (now.is_floating_point() or now.is_complex())
    return (now + then) / 2 if flows else now


def moving(call: Call) -> list[str]:
    """The arguments that may change, elements of a list as ``tensors.0``."""
    named: list[tuple[str, Any]] = []
    for name, value in bound_arguments(call.node).items():
        several = isinstance(value, (list, tuple))
        named += [(f"{name}.{i}", part) for i, part in enumerate(value)] if several else [(name, value)]
    return [name for name, node in named if isinstance(node, fx.Node) and facts(node).active and is_active_dtype(node)]


def steered(call: Call, names: Iterable[str]) -> bool:
    """May any of these, ids or masks that say which elements meet, differ between the points?

    Asked of the graph, not of values: points that run at once have several.
    """
    nodes = (bound_arguments(call.node).get(name) for name in names)
    return any(isinstance(node, fx.Node) and not is_active_dtype(node) and _hangs_on_inputs(node) for node in nodes)


def _hangs_on_inputs(node: fx.Node) -> bool:
    """Does a node's value, of whatever dtype, depend on an explained input?"""
    seen: set[fx.Node] = set()
    waiting = [node]
    while waiting:
        here = waiting.pop()
        if facts(here).active:
            return True
        more = [source for source in here.all_input_nodes if source not in seen]
        seen.update(more)
        waiting += more
    return False


class Terms(SumView):
    """Addends of the output's own shape, all of which receive."""

    def __init__(self, call: Call, terms: Mapping[str, Tensor]) -> None:
        super().__init__(Sum(op="", x=tuple(terms)), call)
        self.receivers = frozenset(terms)
        self._terms = terms

    @property
    def terms(self) -> dict[str, Any]:
        return dict(self._terms)

    def back(self, name: str, r: Tensor) -> Tensor:
        return r


class Flow(LinearView):
    """A linear map that takes the change `x` on."""

    def __init__(self, row: Linear, call: Call, x: Tensor, weight: Any = None) -> None:
        super().__init__(row, call)
        self.receivers = frozenset({row.x})
        self._x, self._weight = x, weight

    @property
    def x(self) -> Tensor:
        return self._x

    @property
    def weight(self) -> Any:
        return self._weight

    @property
    def bias(self) -> None:
        return None

    @property
    def output(self) -> Tensor:
        return self._output

    @cached_property
    def _output(self) -> Tensor:
        """What the map makes of x: not the output's change, which rounds otherwise."""
        return self.apply(self._x, self._weight)

    def shape(self) -> torch.Size:
        return self._x.shape

    def transpose(self, s: Tensor, weight: Any) -> Tensor:
        if self.row.transpose is not None:
            return self.row.transpose(s, weight, self.call)
        return vjp(lambda x: self.apply(x, weight), self._x.shape, s)

    def bias_shares(self, s: Tensor, bias: Tensor | None) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        return {}, {}


def _pairs(x: Tensor) -> Tensor:
    """Real and imaginary parts in a last dimension; those of a real tensor are zero."""
    return torch.view_as_real(x.resolve_conj() if x.is_complex() else torch.complex(x, torch.zeros_like(x)))


class Sharing:
    """One step: relevance by operand and units by account, added up over its parts."""

    def __init__(self, mode: OfDifferences, call: Call) -> None:
        self.mode = mode
        self.call = call
        self._relevance: dict[str, Tensor] = {}
        self._accounts: dict[str, Tensor] = {}

    def split(self, r: Tensor, terms: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """R divided between addends, by the mode's formula for sums; one alone takes all."""
        if len(terms) == 1:
            return dict.fromkeys(terms, r)
        if r.is_complex():
            pairs = self.split(
                torch.view_as_real(r), {name: _pairs(term.expand(r.shape)) for name, term in terms.items()}
            )
            return {name: torch.view_as_complex(part.contiguous()) for name, part in pairs.items()}
        view = Terms(self.call, {name: term.expand(r.shape) for name, term in terms.items()})
        shares = self.mode.base.formulas["sum"].run(view, r, self.mode.base)
        self._book(shares.accounts)
        return shares.relevance

    def through(self, r: Tensor, flow: Flow) -> Tensor:
        """R back through a map, by the mode's formula for linear maps."""
        shares = self.mode.base.formulas["linear"].run(flow, r, self.mode.base)
        self._book(shares.accounts)
        back: Tensor = shares.relevance[flow.name]
        return back

    def give(self, name: str, r: Tensor) -> None:
        """R to an operand; of one that receives nothing it is held."""
        if name not in self.call.receivers:
            self._book({HELD: r.sum()})
            return
        r = sum_to(r, self.call.shape(name))
        self._relevance[name] = self._relevance[name] + r if name in self._relevance else r

    def divide(
        self,
        r: Tensor,
        terms: Mapping[str, Tensor],
        flows: Mapping[str, Flow] | None = None,
        view: LinearView | None = None,
    ) -> Shares:
        """R split between operands, and taken on to those whose addend is what a map made of their change.

        view: says where the bias lies, if there is one among them.
        """
        for name, part in self.split(r, terms).items():
            if flows and name in flows:
                part = self.through(part, flows[name])
            elif view is not None and name == view.row.bias:
                part = view.lower_bias(part)
            self.give(name, part)
        return self.shares()

    def shares(self) -> Shares:
        """What was given and booked."""
        return Shares(self._relevance, self._accounts)

    def _book(self, accounts: Mapping[str, Tensor]) -> None:
        for name, units in accounts.items():
            self._accounts[name] = self._accounts[name] + units if name in self._accounts else units
