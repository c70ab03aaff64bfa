"""The formulas as dense matrices of contributions, in float64, for one flat vector of inputs and one of outputs.

Nothing here calls a pack: the modes `MODES` are written out again. `matrix` reads the weights w[j, i] off a linear
function by unit vectors; the rest turns contributions z[j, i] = w[j, i] * x[i] into relevance, neuron by neuron.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

EPS = 1e-6  # what `epsilon` adds
TINY = 1e-150  # what `default` adds to magnitudes in float64
MODES = ("default", "epsilon")  # what is written out here


def matrix(function: Callable[[Tensor], Tensor], shape: Sequence[int]) -> Tensor:
    """w[j, i] of a linear function: its columns are what it makes of unit vectors."""
    size = torch.Size(shape).numel()
    origin = function(torch.zeros(tuple(shape), dtype=torch.float64)).flatten()
    columns = []
    for i in range(size):
        unit = torch.zeros(size, dtype=torch.float64)
        unit[i] = 1.0
        columns.append(function(unit.reshape(tuple(shape))).flatten() - origin)
    return torch.stack(columns, 1) if columns else torch.zeros(origin.numel(), 0, dtype=torch.float64)


def stab(v: float) -> float:
    """v pushed away from zero by eps; zero counts as positive."""
    return v + EPS if v >= 0 else v - EPS


@dataclass
class Shared:
    """Relevance of the inputs and of the addend, and units by account."""

    x: Tensor
    addend: Tensor
    accounts: dict[str, float] = field(default_factory=dict)


def linear(
    w: Tensor, x: Tensor, addend: Tensor, r: Tensor, mode: tuple[str, str], *, addend_receives: bool = False
) -> Shared:
    """y_j = sum_i w[j, i] x[i] + addend[j]; `addend` holds zeros where there is no bias.

    An addend that is itself explained counts whatever the policy says.
    """
    name, policy = mode
    counts = policy == "absorb" or addend_receives
    out = Shared(torch.zeros_like(x), torch.zeros_like(addend), {"unreached": 0.0, "stabiliser": 0.0})
    for j in range(len(r)):
        b = addend[j] if counts else torch.zeros((), dtype=torch.float64)
        if name == "default":
            z = w[j].abs() * (x.abs() + TINY)
            total = z.sum() + b.abs()
            if total == 0:
                out.accounts["unreached"] += float(r[j])
                continue
            out.x += z / total * r[j]
            out.addend[j] = b.abs() / total * r[j]
        else:
            z = w[j] * x
            y = float(z.sum() + b)
            out.x += z / stab(y) * r[j]
            out.addend[j] = b / stab(y) * r[j]
            out.accounts["stabiliser"] += float(r[j]) * (1 - y / stab(y))
    return out


def addends(
    terms: Sequence[Tensor], counted: Sequence[bool], r: Tensor, mode: tuple[str, str]
) -> tuple[list[Tensor], float]:
    """y = sum_k x_k, all of the shape of r: the relevance of every term, and the stabiliser's.

    `counted` says which terms take a share: all of them under absorb, those that receive under redistribute. A term
    that is alone takes all.
    """
    shares = [torch.zeros_like(r) for _ in terms]
    stabiliser = 0.0
    for at in range(r.numel()):
        values = [float(t.flatten()[at]) if c else 0.0 for t, c in zip(terms, counted, strict=True)]
        units = float(r.flatten()[at])
        for k, value in enumerate(values):
            if not counted[k]:
                continue
            if sum(counted) == 1:
                share = 1.0
            elif mode[0] == "default":
                share = (abs(value) + TINY) / sum(abs(v) + TINY for v, c in zip(values, counted, strict=True) if c)
            else:
                share = value / stab(sum(values))
            shares[k].view(-1)[at] = share * units
        if mode[0] == "epsilon" and sum(counted) > 1:
            stabiliser += units * (1 - sum(values) / stab(sum(values)))
    return shares, stabiliser


def normaliser(scaled: Tensor, shift: Tensor | None, r: Tensor, mode: tuple[str, str]) -> tuple[Tensor, float, float]:
    """y = scaled + shift: relevance of the normaliser's input, of the shift, and the stabiliser's."""
    if shift is None or mode[1] == "redistribute":
        return r.clone(), 0.0, 0.0
    rx, booked, stabiliser = torch.zeros_like(r), 0.0, 0.0
    for at in range(r.numel()):
        s, b, units = float(scaled.flatten()[at]), float(shift.flatten()[at]), float(r.flatten()[at])
        if mode[0] == "default":
            total = abs(s) + TINY + abs(b)
            mine, theirs = (abs(s) + TINY) / total, abs(b) / total
        else:
            mine, theirs = s / stab(s + b), b / stab(s + b)
            stabiliser += units * (1 - mine - theirs)
        rx.view(-1)[at] = mine * units
        booked += theirs * units
    return rx, booked, stabiliser


def origins(output: Tensor, operand: Tensor) -> Tensor:
    """The 0/1 matrix of a move, found by value: m[j, i] = 1 where output j is a copy of operand element i.

    The operand's values must be distinct, and different from those of the other operands.
    """
    return (output.flatten()[:, None] == operand.flatten()[None, :]).double()
