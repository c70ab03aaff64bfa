"""Every row shares changes: units are conserved, and a small change's relevance is the change times the gradient."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

from dlb_core.kernel.books import Books
from dlb_core.kernel.call import resolve
from dlb_core.kernel.differences import HELD, of_differences
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.plan import build_plan
from dlb_core.kernel.run import run_forward, run_relevance
from dlb_core.kernel.settle import raise_on_loss, settle
from dlb_core.rules import Normalise, NormaliseView
from dlb_ops_builtin.rows import ALL

from .case import Case
from .cases import CASES
from .harness import pack, parts
from .tensors import Tensors

#: Ops whose relevance of a small change is no gradient, and why.
NO_GRADIENT = {
    "aten::index_put": "of values for one place the last is kept; autograd gives all of them its gradient",
    "aten::put": "the same",
    "aten::as_strided_scatter": "the same",
    "aten::scatter.reduce": "a rule of its own, which reads the values",
    "aten::scatter.value_reduce": "the same",
    "aten::index_reduce": "the same",
    "aten::scatter_reduce": "the same",
    "aten::logcumsumexp": "its groups overlap, so it shares as values do",
    "aten::cumprod": "the same",
    "aten::ctc_loss": "torch cannot differentiate it where points run at once, so it shares as values do",
    "aten::_weight_norm": "identity, its norm is not told apart",
}


class Change:
    """A case at two points: its arguments that receive differ by noise of this size."""

    def __init__(self, case: Case, mode: str, size: float, **options: Any) -> None:
        bound = case.bind(case.arguments(Tensors(1)), (mode, None))
        self.layout = bound.layout
        differences = of_differences(pack().bind(mode, **options))
        self.plan = build_plan(self.layout, pack(), differences, [bound.end], bound.plan.dtype)
        noise = Tensors(2)
        self.then = dict(bound.inputs)
        self.now = {node: x + size * like(x, noise) if flows(x) else x for node, x in self.then.items()}
        self.values = [run_forward(self.layout, inputs, None) for inputs in (self.then, self.now)]
        self.end = self.layout.slots[bound.end.name]
        self.names = {entry.node.name: entry.name for entry in self.layout.program.inputs if entry.node is not None}

    @property
    def output(self) -> Any:
        """How much the output changed."""
        before, after = (done.values[self.end] for done in self.values)
        return pytree.tree_map(lambda a, b: a - b if flows(a) else torch.zeros(a.shape), after, before)

    def back(self, seed: Any) -> tuple[dict[str, Tensor], Ledger]:
        """Relevance of the arguments by placeholder, and the books, which are checked at every node."""
        books = Books()
        books.relevance("seed", self.end, seed)
        before, after = self.values
        slots = {name: self.layout.slots[name] for name in self.names}
        seeds = {self.end: list(seed) if isinstance(seed, (tuple, list)) else seed}
        keep = frozenset(slots.values())
        kept = run_relevance(self.plan, after, seeds, keep=keep, books=books, before=before)
        ledger = settle(books.entries, books.stacked().tolist(), self.plan, self.names, after.shapes)
        raise_on_loss(ledger, nodes=True)
        return {name: kept[slot] for name, slot in slots.items() if slot in kept}, ledger

    def gradients(self, weights: Tensor) -> dict[fx.Node, Tensor]:
        """The gradient of the weighted output by each argument, midway; none where autograd has none."""
        leaves = {n: ((self.now[n] + x) / 2).requires_grad_() for n, x in self.then.items() if flows(x)}
        values: list[Any] = list(self.values[0].values)
        for node, leaf in leaves.items():
            values[self.layout.slots[node.name]] = leaf
        with torch.enable_grad():
            for step in self.layout.forward:
                row = self.layout.rows[step.slot]
                function: Any = step.node.target if row is None or row.forward is None else row.forward
                values[step.slot] = function(*resolve(step.args, values), **resolve(step.kwargs, values))
        output = values[self.end]
        if not leaves or not output.requires_grad:
            return {}
        try:
            grads = torch.autograd.grad(output, [*leaves.values()], weights, materialize_grads=True)
        except RuntimeError as error:
            if not any(words in str(error) for words in ("invalid gradient", "not implemented")):
                raise
            return {}
        return dict(zip(leaves, grads, strict=True))


def flows(x: Any) -> bool:
    return isinstance(x, Tensor) and (x.is_floating_point() or x.is_complex())


def like(x: Tensor, noise: Tensors) -> Tensor:
    drawn = noise.normal(*x.shape).to(x.dtype)
    return drawn + 1j * noise.normal(*x.shape).to(x.dtype) if x.is_complex() else drawn


def units(change: Any) -> Any:
    noise = Tensors(3)
    return pytree.tree_map_only(Tensor, lambda c: noise.normal(*c.shape).to(c.dtype), change)


@pytest.mark.parametrize("case", CASES, ids=str)
def test_units_are_conserved_and_finite(case: Case) -> None:
    for mode in ("epsilon", "default"):
        change = Change(case, mode, 0.01)
        relevance, _ = change.back(units(change.output))
        for value in relevance.values():
            assert bool(torch.isfinite(parts(value)).all())


def has_gradient(case: Case) -> bool:
    names = {pack().find(case.op).op} if case.program is None else set()
    return not any(name == known or name.startswith(f"{known}.") for name in names for known in NO_GRADIENT)


@pytest.mark.parametrize("case", [case for case in CASES if has_gradient(case)], ids=str)
def test_a_small_change_gets_its_gradient_times_itself(case: Case) -> None:
    """In epsilon, whatever the kind: of what is not held, R = m dy at the output gives dx times the gradient of m y."""
    change = Change(case, "epsilon", 1e-5, eps=1e-30)
    dy = change.output
    values = change.values[0].values[change.end]
    if not isinstance(values, Tensor) or values.dtype != torch.float64:
        return  # several outputs, or complex ones: conserved, above
    m = units(dy)
    relevance, ledger = change.back(m * dy)
    if HELD in ledger.accounts:
        return  # a normaliser: tests/paths has the network with detached statistics
    gradients = change.gradients(m)
    for node, gradient in gradients.items():
        expected = (change.now[node] - change.then[node]) * gradient
        if expected.numel() and not expected.is_complex():
            found = relevance.get(node.name, torch.zeros_like(expected))
            assert float((found - expected).abs().max()) <= 1e-3 * float(expected.abs().max()) + 1e-15


NORMS = [case for case in CASES if isinstance(row := pack().find(case.op), Normalise) and row.scale is not None]


@pytest.mark.parametrize("case", NORMS, ids=str)
def test_a_normaliser_is_its_scale_times_what_lies_off_the_mean(case: Case) -> None:
    """y = scale * (x - mean) + shift, the mean being that of all that lies along the last dimension at least."""
    bound = case.bind(case.arguments(Tensors(1)))
    call, row = bound.call(), pack().find(case.op)
    assert isinstance(row, Normalise)
    assert row.scale is not None
    x, y = getattr(call, row.x), call.output
    view = NormaliseView(row, call)
    shift = 0 if view.shift is None else view.shift
    along = call.dim if call.takes("dim") else -1
    mean = x - (y - shift) / row.scale(call)
    torch.testing.assert_close(mean, mean.mean(along, keepdim=True).expand_as(mean))


def test_every_norm_has_a_scale() -> None:
    without = {row.op for row in ALL if isinstance(row, Normalise) and row.scale is None}
    assert without == {"aten::_weight_norm"}
