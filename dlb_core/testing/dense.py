"""Places: what each operand must get, from the op alone, as dense matrices in float64.

The weights of a map are read off the op by unit vectors, the origins of a move by its values; nothing of the row but
its kind and its operands' names is used. Kinds without an entry here have no oracle.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.kernel.kinds import (
    Bilinear,
    Elementwise,
    Linear,
    Lookup,
    Move,
    Normalise,
    NormaliseView,
    Product,
    Row,
    Softmax,
    Sum,
    sum_to,
)
from dlb_core.testing import oracle
from dlb_core.testing.bound import Bound
from dlb_core.testing.case import Arguments
from dlb_core.testing.laws import declared_row, get, has_complex, outputs, put
from dlb_core.testing.trial import NotAsked, Trial, finite

Expected = dict[str, Tensor]
Dense = Callable[[Trial, Bound, Arguments, Any], Expected]
LARGEST = 4096  # entries of a matrix of contributions


def places(trial: Trial) -> None:
    """What the operands get is what the dense oracle says, element by element."""
    moved = isinstance(declared_row(trial), Move)
    for sign in (1, -1) if moved else (1,):
        arguments = trial.arguments(trial.tensors(2, "distinct" if moved else "mixed"))
        if sign < 0:
            arguments = negated(arguments, trial.case.active)
        bound = trial.bind(arguments)
        oracle_of = ORACLES.get(type(bound.row))
        if oracle_of is None or (trial.case.program is not None and not moved):
            raise NotAsked(f"kind {bound.row.kind} has no dense oracle here")
        if not finite(bound.output):
            raise NotAsked("the op gives nothing finite here")
        if has_complex(arguments, bound.output):
            raise NotAsked("complex values have no dense oracle here")
        _asks_of_mode(trial, bound)
        r = trial.seed(bound, 3)
        done = bound.back(r)
        for name, expected in oracle_of(trial, bound, arguments, r).items():
            if name not in trial.case.active:
                continue  # a constant: what it takes is booked
            got = done.relevance.get(name)
            if got is None:
                got = torch.zeros_like(expected)
            flows = max((float(v.abs().max()) for v in pytree.tree_leaves(r) if v.numel()), default=0.0)
            trial.close(got, expected, f"relevance of {name}, against the dense oracle", scale=flows)


def negated(arguments: Arguments, names: tuple[str, ...]) -> Arguments:
    """Those of the tensors that are floating, with the other sign."""
    for name in names:
        x = get(arguments, name)
        arguments = put(arguments, name, -x) if x.is_floating_point() else arguments
    return arguments


def _asks_of_mode(trial: Trial, bound: Bound) -> None:
    """Kinds with a formula of the mode's own: only the modes that the oracle has written out."""
    mode = bound.plan.steps[0].mode
    if type(bound.row) in (Linear, Bilinear, Sum, Normalise):
        if isinstance(trial.mode, str) or trial.mode[1] is None or mode.name not in oracle.MODES:
            raise NotAsked(f"the oracle does not know mode {mode.name}")
        if getattr(bound.row, "magnitudes_only", False) and mode.name in ("alpha-beta", "z-plus"):
            raise NotAsked("its weights have no halves: it shares by magnitude")
    elif bound.row.kind in mode.formulas:
        raise NotAsked(f"mode {mode.name} has a formula of its own for kind {bound.row.kind}")


def _policy(trial: Trial) -> tuple[str, str]:
    assert isinstance(trial.mode, tuple)
    name, bias = trial.mode
    assert bias is not None  # every mode that the oracle knows has one
    return name, bias


def _of(trial: Trial, arguments: Arguments, name: str) -> Callable[[Tensor], Tensor]:
    """The op as a function of one operand."""
    like = get(arguments, name)
    return lambda x: outputs(trial.run(put(arguments, name, x.to(like))))


def _weights(trial: Trial, arguments: Arguments, name: str) -> tuple[Tensor, Tensor]:
    """The matrix of the op in one operand, and what it gives at zero: its bias."""
    x, function = get(arguments, name), _of(trial, arguments, name)
    origin = function(torch.zeros(x.shape, dtype=torch.float64))
    if x.numel() * origin.numel() > LARGEST:
        raise NotAsked("too large for a dense matrix")
    return oracle.matrix(function, x.shape).cpu(), origin.cpu()


def _flat(x: Tensor) -> Tensor:
    return x.double().flatten().cpu()


def _linear(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    row = bound.row
    assert isinstance(row, Linear)
    w, addend = _weights(trial, arguments, row.x)
    receives = row.bias is not None and row.bias in bound.plan.steps[0].receivers
    x = get(arguments, row.x)
    fixed = row.weight is None and row.weights is None
    shared = oracle.linear(w, _flat(x), addend, _flat(r), _policy(trial), addend_receives=receives, fixed=fixed)
    expected = {row.x: shared.x.reshape(x.shape)}
    if row.bias is not None and receives:
        expected[row.bias] = _lowered(trial, shared.addend, arguments, row.bias)
    return expected


def _bilinear(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    row = bound.row
    assert isinstance(row, Bilinear)
    receives = row.bias is not None and row.bias in bound.plan.steps[0].receivers
    expected: Expected = {}
    for name in (row.a, row.b):
        w, addend = _weights(trial, arguments, name)
        x = get(arguments, name)
        half = oracle.linear(w, _flat(x), addend, _flat(r) / 2, _policy(trial), addend_receives=receives)
        expected[name] = half.x.reshape(x.shape)
        if row.bias is not None and receives:
            part = _lowered(trial, half.addend, arguments, row.bias)
            expected[row.bias] = expected.get(row.bias, torch.zeros_like(part)) + part
    return expected


def _lowered(trial: Trial, addend: Tensor, arguments: Arguments, bias: str) -> Tensor:
    """What the bias gets at every output, added up where it comes from: the op says what of it reaches which output."""
    reaches, _ = _weights(trial, arguments, bias)
    return ((reaches != 0).double().T @ addend).reshape(get(arguments, bias).shape)


def _sum(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    row, mode = bound.row, _policy(trial)
    assert isinstance(row, Sum)
    receivers = bound.plan.steps[0].receivers
    names = [name for name in row.operands(bound.plan.steps[0].bound) if _is_tensor(arguments, name)]
    if len(names) != len(row.x):
        raise NotAsked("a term is a number")
    nothing = arguments
    for name in names:
        nothing = put(nothing, name, torch.zeros_like(get(arguments, name)))
    terms = [outputs(trial.run(put(nothing, name, get(arguments, name)))).cpu() for name in names]
    counted = [mode[1] == "absorb" or name in receivers for name in names]
    shares, _ = oracle.addends(terms, counted, _flat(r), mode)
    shape = bound.output.shape
    return {
        name: sum_to(share.reshape(shape), get(arguments, name).shape)
        for name, share in zip(names, shares, strict=True)
        if name in receivers
    }


def _is_tensor(arguments: Arguments, name: str) -> bool:
    return isinstance(arguments.get(name), Tensor)


def _passes(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    chosen = bound.view()[0]
    others = bound.plan.steps[0].receivers - {chosen}
    nothing = {name: torch.zeros_like(get(arguments, name)) for name in others}
    return {chosen: sum_to(r, get(arguments, chosen).shape), **nothing}


def _halves(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    row = bound.row
    assert isinstance(row, Product)
    return {name: sum_to(r / 2, get(arguments, name).shape) for name in (row.a, row.b)}


def _ranked(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    row = bound.row
    assert isinstance(row, Softmax)
    return {row.x: r}


def _normalised(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    view: NormaliseView = bound.view()
    y, shift = bound.output.cpu(), view.shift
    lifted = None if shift is None else shift.cpu().expand(y.shape)
    scaled = y if lifted is None else y - lifted
    rx, _, _ = oracle.normaliser(scaled, lifted, r.cpu(), _policy(trial))
    return {view.name: rx}


def _looked_up(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    row = bound.row
    assert isinstance(row, Lookup)
    inner = range(get(arguments, row.ids).dim(), r.dim())
    return {row.ids: r.sum([*inner]) if inner else r}


def _came_from(trial: Trial, bound: Bound, arguments: Arguments, r: Any) -> Expected:
    """By the values, of which no two are equal."""
    names = [n for n in arguments if _is_tensor(arguments, n) and n in trial.case.active]
    names += [n for n in trial.case.active if "." in n]
    values = torch.cat([_flat(get(arguments, name)) for name in names])
    if len(values.unique()) != len(values):
        raise NotAsked("the case's values are not distinct: make them with t(...) or t.distinct(...)")
    pairs = zip(_leaves(bound.output), _leaves(r), strict=True)
    units = torch.cat([_flat(part) for value, part in pairs if value.is_floating_point()])
    y = outputs(bound.output).cpu()
    return {
        name: (oracle.origins(y, get(arguments, name).double().cpu()).T @ units).reshape(get(arguments, name).shape)
        for name in names
    }


def _leaves(value: Any) -> list[Tensor]:
    return [v for v in pytree.tree_leaves(value) if isinstance(v, Tensor)]


ORACLES: dict[type[Row], Dense] = {
    Linear: _linear,
    Bilinear: _bilinear,
    Sum: _sum,
    Elementwise: _passes,
    Product: _halves,
    Softmax: _ranked,
    Normalise: _normalised,
    Lookup: _looked_up,
    Move: _came_from,
}
