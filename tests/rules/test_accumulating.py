"""What is added into places of a tensor, against the dense matrix over everything that flows in."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from . import oracle
from .case import Case
from .cases import accumulating as table
from .compare import assert_booked, assert_same
from .harness import ALL_MODE_NAMES, ALL_MODES, MODES, ModeName, call_op
from .tensors import Tensors

every_mode = pytest.mark.parametrize("mode", ALL_MODES, ids=ALL_MODE_NAMES)


def floating(arguments: dict[str, Any]) -> dict[str, Tensor]:
    return {n: v for n, v in arguments.items() if isinstance(v, Tensor) and v.is_floating_point()}


@every_mode
@pytest.mark.parametrize("signs", ["mixed", "sparse"])
@pytest.mark.parametrize("case", table.SUMS, ids=str)
def test_sums_into_places(case: Case, signs: str, mode: ModeName) -> None:
    """One neuron per output, its inputs are the elements of all operands; a constant alone keeps what is its own."""
    t = Tensors(1, signs=signs)
    arguments = case.arguments(t)
    zeros = {name: torch.zeros_like(value) for name, value in floating(arguments).items()}
    mine = {name: value for name, value in floating(arguments).items() if name in case.active}
    sizes = [value.numel() for value in mine.values()]

    def apply(flat: Tensor) -> Tensor:
        parts = dict(zip(mine, flat.split(sizes), strict=True))
        given = {name: part.reshape(mine[name].shape) for name, part in parts.items()}
        return call_op(case.op, {**arguments, **zeros, **given})

    w = oracle.matrix(apply, (sum(sizes),))
    x = torch.cat([value.flatten() for value in mine.values()])
    factors = torch.cat([torch.full((v.numel(),), f).double() for v, f in _factors(mine, arguments)])
    w, x = w / factors, x * factors  # what flows in is alpha * source, with weight one
    addend = call_op(case.op, {**arguments, **{name: zeros[name] for name in mine}}).flatten()
    r = t.normal(*call_op(case.op, arguments).shape)
    alone = (w == 0).all(1)
    expected = oracle.linear(w, x, addend, r.flatten() * ~alone, mode, fixed=True)
    done = case.bind(arguments, mode).back(r)
    for name, part in zip(mine, expected.x.split(sizes), strict=True):
        assert_same(done[name], part.reshape(mine[name].shape), of=r)
    constant = [name for name in zeros if name not in case.active]
    units = float(expected.addend.sum() + r.flatten()[alone].sum()) if constant else 0.0
    for account, amount in {**expected.accounts, f"constant:{''.join(constant)}": units}.items():
        assert_booked(done.booked(account), amount, scale=float(r.abs().sum() + expected.x.abs().sum()))


def _factors(mine: dict[str, Tensor], arguments: dict[str, Any]) -> list[tuple[Tensor, float]]:
    return [(value, arguments.get("alpha", 1.0) if name == "source" else 1.0) for name, value in mine.items()]


@every_mode
@pytest.mark.parametrize("case", table.SHARED, ids=str)
def test_shares_of_a_place(case: Case, mode: ModeName) -> None:
    """amax, amin: all to the element that has the value; prod: equal shares. Written out place by place."""
    t = Tensors(1)
    arguments = case.arguments(t)
    x, index = arguments["self"], arguments["index"]
    name = next(n for n in floating(arguments) if n != "self")
    source, output = arguments[name], call_op(case.op, arguments)
    r = t.normal(*output.shape)
    expected = {"self": torch.zeros_like(x), name: torch.zeros_like(source)}
    rows, columns = index.shape if index.dim() == 2 else source.shape
    for row in range(x.shape[0]):
        for place in range(x.shape[1]):
            hits = [
                (name, row, column)
                for column in range(columns)
                if row < rows and int(index[row, column] if index.dim() == 2 else index[column]) == place
            ]
            made = hits if hits and not arguments["include_self"] else [*hits, ("self", row, place)]
            values = [float(arguments[n][i, j]) for n, i, j in made]
            pick = {"amax": max, "amin": min}.get(arguments["reduce"])
            assert float(output[row, place]) == pytest.approx(pick(values) if pick else math.prod(values))
            winners = made if pick is None else [made[values.index(pick(values))]]
            for n, i, j in winners:
                expected[n][i, j] = r[row, place] / len(winners)
    done = case.bind(arguments, mode).back(r)
    for n, value in expected.items():
        if n in case.active:
            torch.testing.assert_close(done[n], value)
        else:
            assert done.booked(f"constant:{n}") == pytest.approx(float(value.sum()))


def test_two_that_go_to_one_place_share_it() -> None:
    """0.1 + 0.1 + 0.1 + 0.1: four equal contributions get 25 each of 100."""
    arguments = {
        "self": torch.tensor([0.1, 5.0], dtype=torch.float64),
        "dim": 0,
        "index": torch.tensor([0, 0, 0]),
        "source": torch.full((3,), 0.1, dtype=torch.float64),
    }
    case = next(c for c in table.SUMS if c.active == ("self", "source"))
    for mode in MODES:
        done = case.bind(arguments, mode).back(torch.tensor([100.0, 7.0], dtype=torch.float64))
        assert done["self"].tolist() == pytest.approx([25.0, 7.0], rel=1e-4)
        assert done["source"].tolist() == pytest.approx([25.0] * 3, rel=1e-4)
