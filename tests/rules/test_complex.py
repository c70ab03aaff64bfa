"""Complex values: two outputs for each number, against the dense matrix between pairs written out."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dlb_core import DLBacktrace
from dlb_ops_builtin.rows import fourier

from . import oracle
from .case import Case
from .cases import complex_numbers as table
from .compare import assert_booked, assert_same
from .harness import ALL_MODE_NAMES, ALL_MODES, MODE_NAMES, MODES, ModeName, bind, bind_op, call_op, parts
from .tensors import Tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", ALL_MODES, ids=ALL_MODE_NAMES)
first_modes = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


def whole(flat: Tensor, like: Tensor) -> Tensor:
    """Real numbers as the tensor they are the parts of."""
    return torch.view_as_complex(flat.reshape(*like.shape, 2)) if like.is_complex() else flat.reshape(like.shape)


def units(like: Tensor, t: Tensors) -> Tensor:
    return whole(t.normal(parts(like).numel()), like)


def side(op: Any, arguments: dict[str, Any], x: str, r: Tensor, mode: ModeName) -> oracle.Shared:
    """The linear formula for one operand as real numbers, the others as they are."""
    value = arguments[x]
    w = oracle.matrix(lambda flat: parts(call_op(op, {**arguments, x: whole(flat, value)})), (parts(value).numel(),))
    return oracle.linear(w, parts(value).flatten(), torch.zeros(len(w)).double(), parts(r).flatten(), mode)


@every_mode
@pytest.mark.parametrize("case", table.MAPS, ids=str)
def test_transforms(mode: ModeName, case: Case) -> None:
    t = Tensors(1)
    arguments = case.arguments(t)
    r = units(call_op(case.op, arguments), t)
    expected = side(case.op, arguments, "self", r, mode)
    done = case.bind(arguments, mode).back(r)
    assert_same(parts(done["self"]).flatten(), expected.x, of=parts(r))
    for account, amount in expected.accounts.items():
        assert_booked(done.booked(account), amount, scale=float(parts(r).abs().sum() + expected.x.abs().sum()))


@every_mode
@pytest.mark.parametrize("active", [("self", "other"), ("self",), ("other",)], ids=str)
def test_products(mode: ModeName, active: tuple[str, ...]) -> None:
    """(a + bi)(c + di): half to each active operand, each half by the linear formula with the other as weight."""
    t = Tensors(2)
    arguments = {"self": table.z(t, 2, 3), "other": table.z(t, 3)}
    r = units(call_op(aten.mul.Tensor, arguments), t)
    done = bind_op(aten.mul.Tensor, arguments, active, mode).back(r)
    for name in active:
        expected = side(aten.mul.Tensor, arguments, name, r / len(active), mode)
        assert_same(parts(done[name]).flatten(), expected.x, of=parts(r))


@every_mode
def test_sums_go_part_by_part(mode: ModeName) -> None:
    t = Tensors(3)
    a, b = table.z(t, 2, 3), table.z(t, 3)
    r = units(a, t)
    done = bind_op(aten.sub.Tensor, {"self": a, "other": b}, ("self", "other"), mode).back(r)
    for part in (torch.real, torch.imag):
        terms = [part(a).contiguous(), -part(b).expand(2, 3).contiguous()]
        (mine, theirs), _ = oracle.addends(terms, [True, True], part(r).contiguous(), mode)
        assert_same(part(done["self"]), mine, of=parts(r))
        assert_same(part(done["other"]), theirs.sum(0), of=parts(r))


def test_each_part_goes_where_it_came_from() -> None:
    x = torch.tensor([3.0, 4.0], dtype=torch.float64)
    done = bind(lambda x: aten.abs.default(aten.view_as_complex.default(x)), {"x": x}, ["x"]).back(torch.tensor(100.0))
    assert done["x"].tolist() == pytest.approx([36.0, 64.0])
    seed = torch.tensor(5.0 + 7.0j, dtype=torch.complex128)
    done = bind_op(aten.complex.default, {"real": x[0], "imag": x[1]}, ("real", "imag")).back(seed)
    assert (float(done["real"]), float(done["imag"])) == (5.0, 7.0)
    z = torch.view_as_complex(x)
    assert bind_op(aten.imag.default, {"self": z}, ["self"]).back(torch.tensor(9.0).double())["self"].item() == 9.0j


@first_modes
def test_a_long_transform_shares_by_magnitudes_alone(mode: ModeName, monkeypatch: pytest.MonkeyPatch) -> None:
    """The signed modes stay exact; default takes |x| over all inputs of the transform."""
    t = Tensors(4)
    x = t(2, 6)
    r = units(torch.fft.rfft(x), t)
    exact = bind_op(aten.fft_rfft.default, {"self": x}, ["self"], mode).back(r)["self"]
    monkeypatch.setattr(fourier, "DENSE", 1)
    done = bind_op(aten.fft_rfft.default, {"self": x}, ["self"], mode).back(r)["self"]
    if mode[0] == "default":
        exact = x.abs() / x.abs().sum(1, keepdim=True) * parts(r).sum((1, 2)).unsqueeze(1)
    torch.testing.assert_close(done, exact, rtol=1e-6, atol=1e-8)


class Rotary(torch.nn.Module):
    """Rotary positions as complex factors."""

    def __init__(self) -> None:
        super().__init__()
        angles = torch.arange(4.0).outer(torch.tensor([1.0, 0.1, 0.01])).double()
        self.register_buffer("turns", torch.polar(torch.ones_like(angles), angles))
        self.ends = torch.nn.ModuleList([torch.nn.Linear(6, 6), torch.nn.Linear(6, 3)]).double()

    def forward(self, x: Tensor) -> Tensor:
        turned = torch.view_as_complex(self.ends[0](x).unflatten(-1, (3, 2))) * self.turns
        out: Tensor = self.ends[1](torch.view_as_real(turned).flatten(-2).mean(1))
        return out


class Mixer(torch.nn.Module):
    """Tokens mixed by a transform, as FNet does, and a filter among frequencies."""

    def __init__(self) -> None:
        super().__init__()
        self.filter = torch.nn.Parameter(torch.randn(4, 4, dtype=torch.complex128))
        self.ends = torch.nn.ModuleList([torch.nn.Linear(6, 6), torch.nn.Linear(6, 3)]).double()

    def forward(self, x: Tensor) -> Tensor:
        mixed = torch.fft.fft(torch.fft.fft(self.ends[0](x), dim=-1), dim=-2).real
        filtered = torch.fft.irfft(torch.fft.rfft(mixed, dim=-1) * self.filter, n=6, dim=-1)
        out: Tensor = self.ends[1](filtered.mean(1))
        return out


@first_modes
@pytest.mark.parametrize("kind", [Rotary, Mixer])
def test_models_with_complex_values(mode: ModeName, kind: type[torch.nn.Module]) -> None:
    torch.manual_seed(0)
    model = kind().eval()
    x = torch.randn(2, 4, 6, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    with torch.no_grad():
        torch.testing.assert_close(dlb.predict(x)["output"].output, model(x))
    ledger = dlb.explain(x, mode=mode[0], bias=mode[1], target=1).ledger
    assert ledger.seed == 200.0
    assert ledger.check() == []
    if mode == ("default", "redistribute"):
        assert sum(ledger.inputs.values()) == pytest.approx(200.0)
