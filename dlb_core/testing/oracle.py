"""The formulas as dense matrices of contributions, in float64, for one flat vector of inputs and one of outputs.

Nothing here calls a pack: the modes `MODES` are written out again, neuron by neuron, with their default options.
`matrix` reads the weights w[j, i] off a linear function by unit vectors.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

EPS = 1e-6  # what the signed modes add
TINY = 1e-150  # what `default` adds to magnitudes in float64
GAMMA, ALPHA, BETA = 0.25, 2.0, 1.0
BOX = (-3.0, 3.0)


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


@dataclass(frozen=True)
class Neuron:
    """What flows into one output: weights, inputs, the addend, and whether the addend takes a share.

    fixed: the weights are the op's own (a mean, a pool), not learned or computed ones.
    """

    w: list[float]
    x: list[float]
    b: float = 0.0
    counted: bool = False
    fixed: bool = False

    @property
    def z(self) -> list[float]:
        """The contributions."""
        return [w * x for w, x in zip(self.w, self.x, strict=True)]

    @property
    def addend(self) -> float:
        """The addend where it counts."""
        return self.b if self.counted else 0.0


@dataclass
class Split:
    """One unit at a neuron: how much each input and the addend get, and what is booked."""

    inputs: list[float]
    addend: float = 0.0
    accounts: dict[str, float] = field(default_factory=dict)


def _by(sizes: list[float], addend: float) -> Split:
    """Shares of magnitudes; nobody's where all are zero."""
    total = sum(sizes) + addend
    if total == 0:
        return Split([0.0] * len(sizes), 0.0, {"unreached": 1.0})
    return Split([size / total for size in sizes], addend / total)


def _stabilised(parts: list[float], addend: float) -> Split:
    """Signed shares of the stabilised sum, whose rest is the stabiliser's."""
    y = sum(parts) + addend
    return Split([p / stab(y) for p in parts], addend / stab(y), {"stabiliser": 1 - y / stab(y)})


def _default(n: Neuron) -> Split:
    return _by([abs(w) * (abs(x) + TINY) for w, x in zip(n.w, n.x, strict=True)], abs(n.addend))


def _contrastive(n: Neuron) -> Split:
    """The difference of the maps: what has not the sign of the neuron's value changes sides."""
    y = 1 if sum(n.z) + n.b >= 0 else -1
    whole = _default(n)
    signs = [y * (1 if w >= 0 else -1) * (1 if x >= 0 else -1) for w, x in zip(n.w, n.x, strict=True)]
    shares = [s * share for s, share in zip(signs, whole.inputs, strict=True)]
    addend = whole.addend * y * (1 if n.b >= 0 else -1)
    against = sum(share for s, share in zip(signs, whole.inputs, strict=True) if s < 0)
    against += whole.addend if addend < 0 else 0.0
    return Split(shares, addend, {**whole.accounts, "crossed": 2 * against})


def _epsilon(n: Neuron) -> Split:
    return _stabilised(n.z, n.addend)


def _gamma(n: Neuron) -> Split:
    up = sum(n.z) + n.addend >= 0

    def favoured(z: float) -> float:
        return z * (1 + GAMMA) if (z > 0) == up and z else z

    return _stabilised([favoured(z) for z in n.z], favoured(n.addend))


def _alpha_beta(alpha: float, beta: float) -> Callable[[Neuron], Split]:
    def split(n: Neuron) -> Split:
        terms = [*n.z, n.addend]
        up, down = sum(t for t in terms if t > 0), -sum(t for t in terms if t < 0)
        if up == 0 and down == 0:
            return Split([0.0] * len(n.z), 0.0, {"unreached": 1.0})
        for_up, for_down = (alpha, -beta) if up and down else (1.0, 0.0) if up else (0.0, 1.0)
        shares = [for_up * t / up if t > 0 else -for_down * t / down if t < 0 else 0.0 for t in terms]
        return Split(shares[:-1], shares[-1])

    return split


def _w_square(n: Neuron) -> Split:
    return _by([w if n.fixed else w**2 for w in n.w], n.b**2 if n.counted else 0.0)


def _flat(n: Neuron) -> Split:
    return _by([w if n.fixed else float(w != 0) for w in n.w], float(n.counted and n.b != 0))


def _z_box(n: Neuron) -> Split:
    low, high = BOX
    parts = [w * x - low * max(w, 0.0) - high * min(w, 0.0) for w, x in zip(n.w, n.x, strict=True)]
    return _stabilised(parts, n.addend)


NEURONS: Mapping[str, Callable[[Neuron], Split]] = {
    "default": _default,
    "contrastive": _contrastive,
    "epsilon": _epsilon,
    "cp-lrp": _epsilon,
    "attnlrp": _epsilon,
    "gamma": _gamma,
    "alpha-beta": _alpha_beta(ALPHA, BETA),
    "z-plus": _alpha_beta(1.0, 0.0),
    "w-square": _w_square,
    "flat": _flat,
    "z-box": _z_box,
}
MODES = tuple(NEURONS)  # what is written out here
LIKE_BIAS = ("default", "contrastive")  # a normaliser's shift has no floor under it, unlike an addend of a sum


@dataclass
class Shared:
    """Relevance of the inputs and of the addend, and units by account."""

    x: Tensor
    addend: Tensor
    accounts: dict[str, float] = field(default_factory=dict)


def linear(
    w: Tensor,
    x: Tensor,
    addend: Tensor,
    r: Tensor,
    mode: tuple[str, str],
    *,
    addend_receives: bool = False,
    fixed: bool = False,
) -> Shared:
    """y_j = sum_i w[j, i] x[i] + addend[j]; `addend` holds zeros where there is no bias.

    An addend that is itself explained counts whatever the policy says. fixed: see `Neuron`.
    """
    name, policy = mode
    counted = policy == "absorb" or addend_receives
    out = Shared(torch.zeros_like(x), torch.zeros_like(addend), {"unreached": 0.0, "stabiliser": 0.0, "crossed": 0.0})
    for j in range(len(r)):
        split = NEURONS[name](Neuron(w[j].tolist(), x.tolist(), float(addend[j]), counted, fixed))
        units = float(r[j])
        out.x += torch.tensor(split.inputs, dtype=torch.float64) * units
        out.addend[j] = split.addend * units
        for account, share in split.accounts.items():
            out.accounts[account] = out.accounts.get(account, 0.0) + share * units
    return out


def addends(
    terms: Sequence[Tensor], counted: Sequence[bool], r: Tensor, mode: tuple[str, str]
) -> tuple[list[Tensor], float]:
    """y = sum_k x_k, all of the shape of r: the relevance of every term, and what is booked.

    `counted` says which terms take a share: all of them under absorb, those that receive under redistribute. A term
    that is alone takes all.
    """
    name = "epsilon" if mode[0] == "z-box" else mode[0]  # its bounds are of inputs, not of addends
    shares = [torch.zeros_like(r) for _ in terms]
    booked = 0.0
    mine = [k for k, c in enumerate(counted) if c]
    for at in range(r.numel()):
        values = [float(t.flatten()[at]) for t in terms]
        units = float(r.flatten()[at])
        rest = sum(value for k, value in enumerate(values) if k not in mine)
        if len(mine) == 1 and name != "contrastive":
            split = Split([1.0])
        else:
            split = NEURONS[name](Neuron([1.0] * len(mine), [values[k] for k in mine], rest))
        for k, share in zip(mine, split.inputs, strict=True):
            shares[k].view(-1)[at] = share * units
        booked += sum(split.accounts.values()) * units
    return shares, booked


def normaliser(scaled: Tensor, shift: Tensor | None, r: Tensor, mode: tuple[str, str]) -> tuple[Tensor, float, float]:
    """y = scaled + shift: relevance of the normaliser's input, of the shift, and what else is booked."""
    counted = mode[1] == "absorb"
    if shift is None or not (counted or mode[0] == "contrastive"):
        return r.clone(), 0.0, 0.0
    name = "epsilon" if mode[0] == "z-box" else mode[0]
    rx, booked, rest = torch.zeros_like(r), 0.0, 0.0
    for at in range(r.numel()):
        s, b, units = float(scaled.flatten()[at]), float(shift.flatten()[at]), float(r.flatten()[at])
        if name in LIKE_BIAS:
            split = NEURONS[name](Neuron([1.0], [s], b, counted=counted))
            mine, theirs = split.inputs[0], split.addend
        else:
            split = NEURONS[name](Neuron([1.0, 1.0], [s, b]))
            mine, theirs = split.inputs
        rx.view(-1)[at] = mine * units
        booked += theirs * units
        rest += sum(split.accounts.values()) * units
    return rx, booked, rest


def origins(output: Tensor, operand: Tensor) -> Tensor:
    """The 0/1 matrix of a move, found by value: m[j, i] = 1 where output j is a copy of operand element i.

    The operand's values must be distinct, and different from those of the other operands.
    """
    return (output.flatten()[:, None] == operand.flatten()[None, :]).double()
