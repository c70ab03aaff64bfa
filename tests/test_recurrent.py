"""Recurrent layers: the fused op, its cells in a loop and its packed form give the same relevance, step by step."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

from dlb_core import DLBacktrace, Explanation

MODES = ("default", "epsilon")
KINDS: dict[str, tuple[type[nn.RNNBase], type[nn.RNNCellBase], dict[str, Any]]] = {
    "lstm": (nn.LSTM, nn.LSTMCell, {}),
    "gru": (nn.GRU, nn.GRUCell, {}),
    "rnn tanh": (nn.RNN, nn.RNNCell, {"nonlinearity": "tanh"}),
    "rnn relu": (nn.RNN, nn.RNNCell, {"nonlinearity": "relu"}),
}
SHAPES = [  # layers, both directions, batch first, bias
    (1, False, False, True),
    (2, True, True, True),
    (2, False, True, False),
    (1, True, False, False),
]


class Reader(nn.Module):
    """Reads a sequence [B, T, 4] and says one of three things."""

    def __init__(self, rnn: nn.RNNBase) -> None:
        super().__init__()
        self.rnn = rnn
        width = (rnn.proj_size or rnn.hidden_size) * (2 if rnn.bidirectional else 1)
        self.head = nn.Linear(width, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = x if self.rnn.batch_first else x.transpose(0, 1)
        y, _ = self.rnn(first)
        return self.head(y.mean(1 if self.rnn.batch_first else 0))


class Loops(nn.Module):
    """The same reader with its layers and directions written out in cells."""

    def __init__(self, reader: Reader, cell: type[nn.RNNCellBase], options: dict[str, Any]) -> None:
        super().__init__()
        rnn, self.head = reader.rnn, reader.head
        self.directions = 2 if rnn.bidirectional else 1
        self.cells = nn.ModuleList()
        for layer, direction in product(range(rnn.num_layers), range(self.directions)):
            size = rnn.hidden_size * self.directions if layer else rnn.input_size
            made: Any = cell(size, rnn.hidden_size, bias=rnn.bias, **options)
            suffix = f"_l{layer}" + ("_reverse" if direction else "")
            for name in ("weight_ih", "weight_hh", *(("bias_ih", "bias_hh") if rnn.bias else ())):
                setattr(made, name, getattr(rnn, name + suffix))
            self.cells.append(made)

    def forward(self, x: Tensor) -> Tensor:
        steps = list(x.unbind(1))
        for layer in range(len(self.cells) // self.directions):
            lanes = []
            for direction in range(self.directions):
                state, outputs = None, [x] * len(steps)
                for t in range(len(steps))[:: -1 if direction else 1]:
                    state = self.cells[layer * self.directions + direction](steps[t], state)
                    outputs[t] = state[0] if isinstance(state, tuple) else state
                lanes.append(outputs)
            steps = [torch.cat(parts, -1) for parts in zip(*lanes, strict=True)]
        return self.head(torch.stack(steps).mean(0))


def reader_of(kind: str, shape: tuple[int, bool, bool, bool] = SHAPES[0], **more: Any) -> Reader:
    torch.manual_seed(0)
    cls, _, options = KINDS[kind]
    layers, both, batch_first, bias = shape
    rnn = cls(4, 5, layers, bidirectional=both, batch_first=batch_first, bias=bias, **options, **more)
    return Reader(rnn).double().eval()


def sequence(batch: int = 2, steps: int = 3) -> Tensor:
    return torch.randn(batch, steps, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def biases(done: Explanation) -> float:
    """All units on biases and constants: the two forms give them other names."""
    return sum(units for name, units in done.ledger.accounts.items() if name != "stabiliser")


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_the_op_and_its_cells_in_a_loop_agree(kind: str, shape: tuple[int, bool, bool, bool]) -> None:
    whole = reader_of(kind, shape)
    loops = Loops(whole, *KINDS[kind][1:]).eval()
    x = sequence()
    fused, written = DLBacktrace(whole, x), DLBacktrace(loops, x, tracer="tape")
    for mode in MODES:
        one, other = (dlb.explain(x, mode=mode, target=1) for dlb in (fused, written))
        torch.testing.assert_close(one.output, whole(x))
        torch.testing.assert_close(one.inputs["x"], other.inputs["x"], rtol=1e-7, atol=1e-8)
        assert biases(one) == pytest.approx(biases(other), rel=1e-7, abs=1e-7)
        assert one.ledger.check() == []


@pytest.mark.parametrize("kind", KINDS)
def test_every_step_gets_its_own_and_the_future_gets_nothing(kind: str) -> None:
    """Relevance of an output in the middle reaches the steps up to it."""

    class Middle(Reader):
        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.rnn(x.transpose(0, 1))[0][1])

    model = Middle(reader_of(kind).rnn).double().eval()
    for mode in MODES:
        steps = DLBacktrace(model, sequence()).explain(sequence(), mode=mode, target=0).inputs["x"].abs().sum(-1)
        assert bool((steps[:, :2] > 0).all())
        assert not steps[:, 2:].any()


def test_biases_are_booked_under_their_names() -> None:
    model = reader_of("gru", (2, True, True, True))
    accounts = DLBacktrace(model, sequence()).explain(sequence(), mode="epsilon", target=0).ledger.accounts
    learned = {f"bias:{name}" for name, _ in model.named_parameters() if "bias" in name}
    assert learned <= set(accounts)
    assert set(accounts) <= learned | {"stabiliser", "constant:gru", "constant:zeros"}


def test_a_projection_and_another_batch_size_and_several_seeds() -> None:
    model = reader_of("lstm", (2, True, True, True), proj_size=3)
    dlb = DLBacktrace(model, sequence())
    x = sequence(5)
    for mode in MODES:
        together = dlb.explain(x, mode=mode, targets=[0, 2])
        torch.testing.assert_close(together.output, model(x))
        for i, target in enumerate((0, 2)):
            alone = dlb.explain(x, mode=mode, target=target)
            torch.testing.assert_close(together.inputs["x"][i], alone.inputs["x"], rtol=1e-9, atol=1e-9)
        first = dlb.explain(x[:1], mode=mode, target=0)
        torch.testing.assert_close(first.inputs["x"], together.inputs["x"][0, :1], rtol=1e-9, atol=1e-9)


def test_a_learned_first_state_is_explained_when_it_comes_in() -> None:
    class Started(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.rnn, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 3)

        def forward(self, x: Tensor, h: Tensor, c: Tensor) -> Tensor:
            return self.head(self.rnn(x, (h, c))[1][0][0])

    torch.manual_seed(0)
    model = Started().double().eval()
    inputs = (sequence(), torch.randn(1, 2, 5).double(), torch.randn(1, 2, 5).double())
    for mode in MODES:
        done = DLBacktrace(model, inputs).explain(*inputs, mode=mode, target=0)
        assert set(done.inputs) == {"x", "h", "c"}
        assert all(bool(r.abs().sum() > 0) for r in done.inputs.values())
        assert done.ledger.check() == []


class EveryStep(Reader):
    """Reads every step alone: what follows the recurrent layer is shaped by the number of steps."""

    def forward(self, x: Tensor) -> Tensor:
        y, _ = self.rnn(x)
        return self.head(y.reshape(y.shape[0] * y.shape[1], -1)).unflatten(0, y.shape[:2]).mean(1)


@pytest.mark.parametrize("reader", [Reader, EveryStep])
def test_the_number_of_steps_may_change_when_asked(reader: type[Reader]) -> None:
    model = reader(reader_of("lstm", (2, True, True, True)).rnn).double().eval()
    dlb = DLBacktrace(model, sequence(), dynamic_shapes={"x": [1]})
    assert all(isinstance(size, str) for size in dlb.graph().nodes["x"]["shape"][:2])
    x = sequence(3, 7)
    done = dlb.explain(x, mode="epsilon", target=0)
    torch.testing.assert_close(done.output, model(x))
    assert done.inputs["x"].shape == x.shape
    assert done.ledger.check() == []


def test_tracing_leaves_torchs_own_shape_functions_in_place() -> None:
    op = torch.ops.aten.lstm.input
    before = dict(op.py_kernels), dict(torch._decomp.decomposition_table)
    DLBacktrace(reader_of("lstm"), sequence())
    assert (op.py_kernels, torch._decomp.decomposition_table) == before


class Packed(Reader):
    """Reads padded sequences of different lengths; its last states speak."""

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        y, last = self.rnn(packed)
        states = last[0] if isinstance(last, tuple) else last
        return self.head(torch.cat(list(states[-2:]), -1) + pad_packed_sequence(y, batch_first=True)[0].sum(1))


class Whole(Reader):
    """The same reader of one sequence without padding."""

    def forward(self, x: Tensor) -> Tensor:
        y, last = self.rnn(x)
        states = last[0] if isinstance(last, tuple) else last
        return self.head(torch.cat(list(states[-2:]), -1) + y.sum(1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_packed_sequence_is_its_samples_without_padding(kind: str) -> None:
    rnn = reader_of(kind, (2, True, True, True)).rnn
    packed, whole = Packed(rnn).double().eval(), Whole(rnn).double().eval()
    whole.head = packed.head
    x, lengths = sequence(3, 4), torch.tensor([2, 4, 1])
    dlb = DLBacktrace(packed, (x, lengths), tracer="tape")
    samples = [x[sample : sample + 1, :length] for sample, length in enumerate(lengths.tolist())]
    single = [DLBacktrace(whole, one, dynamic_shapes=None) for one in samples]
    for mode in MODES:
        together = dlb.explain(x, lengths, mode=mode, target=1).inputs["x"]
        for sample, length in enumerate(lengths.tolist()):
            alone = single[sample].explain(samples[sample], mode=mode, target=1).inputs["x"]
            torch.testing.assert_close(together[sample, :length], alone[0], rtol=1e-7, atol=1e-8)
            assert not together[sample, length:].any()
