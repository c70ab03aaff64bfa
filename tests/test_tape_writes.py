"""Writes in place as the tape records them: as if the model had been written without them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, TraceError

Function = Callable[[Tensor], Tensor]


class After(nn.Module):
    """A dense layer, then a function of its output [3, 4]."""

    def __init__(self, function: Function) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.layer = nn.Linear(5, 4, dtype=torch.float64)
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x)
        return self.function(y)


# what an eager model does, and what it amounts to
PAIRS: dict[str, tuple[Function, Function]] = {}


def pair(written: Function) -> Callable[[Function], Function]:
    """Decorator: `written` is the same without writing."""

    def keep(function: Function) -> Function:
        PAIRS[function.__name__] = (function, written)
        return function

    return keep


@pair(lambda y: torch.cat([y[:, :1] + 1, y[:, 1:]], 1))
def a_column(y: Tensor) -> Tensor:
    y[:, 0] += 1
    return y


@pair(lambda y: torch.cat([y[:, :1], y[:, 1:3].relu(), y[:, 3:]], 1))
def a_slice(y: Tensor) -> Tensor:
    y[:, 1:3].relu_()
    return y


@pair(lambda y: torch.cat([y[::2], y[::2] * 3], 1))
def every_second_row(y: Tensor) -> Tensor:
    rows = y[::2]
    before = rows.clone()
    rows *= 3
    return torch.cat([before, y[::2]], 1)


@pair(lambda y: y * 2)
def through_a_view(y: Tensor) -> Tensor:
    y.view(2, -1).mul_(2)
    return y


@pair(lambda y: (y * 2).view(2, -1).relu())
def a_view_sees_it(y: Tensor) -> Tensor:
    seen = y.view(2, -1)
    y.mul_(2)
    return seen.relu()


@pair(lambda y: ((y + 1) * 2).relu() + (y + 1) * 2)
def twice(y: Tensor) -> Tensor:
    y.add_(1).mul_(2)
    kept = y.clone()
    y.relu_()
    return y + kept


@pair(lambda y: torch.stack([y[:, 0], y[:, 0], y[:, 2], y[:, 3]], 1))
def a_row_of_the_transpose(y: Tensor) -> Tensor:
    y.T[1] = y[:, 0]
    return y


@pair(lambda y: torch.cat([y[:, :2] * y[:, 2:], y[:, 2:]], 1))
def pieces(y: Tensor) -> Tensor:
    left, right = y.chunk(2, 1)
    left *= right
    return y


@pair(lambda y: torch.stack([y[0], y[0] * 2, y[2]]))
def unbound_rows(y: Tensor) -> Tensor:
    first, second, _ = y.unbind(0)
    second.copy_(first * 2)
    return y


@pair(lambda y: (y * 2)[None].expand(2, 3, 4).sum(0))
def an_expanded_view_sees_it(y: Tensor) -> Tensor:
    wide = y[None].expand(2, -1, -1)
    y.mul_(2)
    return wide.sum(0)


@pair(lambda y: y.relu())
def through_detach(y: Tensor) -> Tensor:
    y.detach().relu_()
    return y


@pair(lambda y: y.relu())
def through_data(y: Tensor) -> Tensor:
    y.data.relu_()
    return y


@pair(lambda y: (y * 2 + 1).relu())
def other_data(y: Tensor) -> Tensor:
    y.data = y * 2
    y.add_(1)
    return y.relu()


@pair(lambda y: y.masked_fill(torch.eye(3, 4, dtype=torch.bool), 0.0))
def a_diagonal(y: Tensor) -> Tensor:
    y.diagonal().zero_()
    return y


@pair(lambda y: torch.cat([y[:, :1], y[:, :1].expand(3, 3)], 1))
def a_copy_that_broadcasts(y: Tensor) -> Tensor:
    y[:, 1:] = y[:, :1].clone()
    return y


@pair(lambda y: torch.cat([y[:1], y[:1] * 2, y[2:]]))
def strides(y: Tensor) -> Tensor:
    y.as_strided((4,), (1,), 4).copy_(y[0] * 2)
    return y


@pair(lambda y: torch.cat([y[:, :2] * 3, y[:, 2:]], 1))
def strides_of_a_transpose(y: Tensor) -> Tensor:
    y.T.as_strided((3, 2), (4, 1)).mul_(3)
    return y


@pair(lambda y: (y + y * 2) * 2)
def an_out_argument(y: Tensor) -> Tensor:
    result = torch.empty(0, dtype=y.dtype)
    torch.add(y, y * 2, out=result)
    torch.mul(result, 2, out=result)
    return result


@pair(lambda y: (y.float() + y.float() * 2).double())
def another_dtype(y: Tensor) -> Tensor:
    small = y.float()
    small += small.double() * 2
    return small.double()


@pair(lambda y: y.T * 2)
def turned_in_place(y: Tensor) -> Tensor:
    z = y * 1
    z.t_()
    z.mul_(2)
    return z


@pair(lambda y: (y + 1) * 2)
def dropout_is_the_same_tensor(y: Tensor) -> Tensor:
    same = nn.functional.dropout(y, 0.5, training=False).contiguous()
    same += 1
    return y * 2


@pair(lambda y: torch.cat([y[:2], torch.tensor([[1.0, 2.0, 3.0, 4.0]], dtype=y.dtype)]))
def fresh_memory(y: Tensor) -> Tensor:
    memory = torch.zeros(3, 4, dtype=y.dtype)
    memory[:2] = y[:2]
    memory[2] = torch.tensor([1.0, 2.0, 3.0, 4.0], dtype=y.dtype)
    return memory


def explained(dlb: DLBacktrace, x: Tensor, mode: str) -> tuple[Tensor, Tensor, dict[str, float]]:
    output = dlb.predict(x)["output"].output
    weights = torch.arange(1.0, 1 + output.numel(), dtype=x.dtype).reshape(output.shape)  # every place counts
    relevance = dlb.evaluation(mode, target=weights)
    bias = {name: units for name, units in relevance.ledger.accounts.items() if name.startswith("bias")}
    return output, relevance["x"], bias


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(3, 5, dtype=torch.float64)


@pytest.mark.parametrize("name", PAIRS)
def test_a_write_is_what_it_amounts_to(name: str, x: Tensor) -> None:
    """The same output and the same relevance at every place as the model that was written without writes."""
    eager, written = (After(function).eval() for function in PAIRS[name])
    with torch.no_grad():
        reference = eager(x.clone())
    taped, exported = DLBacktrace(eager, x, tracer="tape"), DLBacktrace(written, x, tracer="export")
    for mode in ("default", "epsilon"):
        got, relevance, bias = explained(taped, x, mode)
        same, expected, expected_bias = explained(exported, x, mode)
        torch.testing.assert_close(got, reference, rtol=0, atol=0)
        torch.testing.assert_close(same, reference)
        torch.testing.assert_close(relevance, expected, rtol=1e-9, atol=1e-9 * float(expected.abs().max()), msg=mode)
        assert bias == pytest.approx(expected_bias, rel=1e-9), mode


class Inputs(nn.Module):
    def forward(self, x: Tensor, other: Tensor) -> Tensor:
        x += 1
        x[:, 0] = other[:, 0]
        other.relu_()
        return x * 2 + other


def test_the_callers_inputs_stay_as_they_are(x: Tensor) -> None:
    """Given twice, the same tensor is two inputs, as torch.export has it."""
    before = x.clone()
    dlb = DLBacktrace(Inputs().eval(), (x, x), tracer="tape")
    output = dlb.predict(x, x)["output"].output
    dlb.explain(x, x)
    assert torch.equal(x, before)
    with torch.no_grad():
        torch.testing.assert_close(output, Inputs()(x.clone(), x.clone()))


class Halves(nn.Module):
    """Two buffers on one memory."""

    def __init__(self) -> None:
        super().__init__()
        memory = torch.ones(8)
        self.register_buffer("one", memory[:4])
        self.register_buffer("two", memory[4:])

    def forward(self, x: Tensor, write: bool) -> Tensor:
        y = x * self.one + self.two
        if write:
            self.one.add_(1)
        return y


def test_parameters_on_one_memory_may_be_read_but_not_written() -> None:
    x = torch.randn(2, 4)
    DLBacktrace(Halves().eval(), (x, False), tracer="tape").explain(x, False)
    with pytest.raises(TraceError, match="memory that several of its parameters or buffers share"):
        DLBacktrace(Halves().eval(), (x, True), tracer="tape")


def test_an_op_that_only_writes_is_refused_by_name(x: Tensor) -> None:
    library = torch.library.Library("tape_test", "DEF")
    library.define("bump(Tensor(a!) x) -> ()")
    library.impl("bump", lambda t: t.add_(1), "CompositeExplicitAutograd")

    def bumped(y: Tensor) -> Tensor:
        torch.ops.tape_test.bump(y)
        return y

    try:
        with pytest.raises(TraceError, match=r"tape_test::bump.default changes its arguments"):
            DLBacktrace(After(bumped).eval(), x, tracer="tape")
    finally:
        library._destroy()


def test_a_write_to_what_is_expanded_is_refused(x: Tensor) -> None:
    def wide(y: Tensor) -> Any:
        y[:, :1].expand(3, 4)[:, 1].add_(1)
        return y

    with pytest.raises(TraceError, match="expanded tensor, in which several elements are one"):
        DLBacktrace(After(wide).eval(), x, tracer="tape")
