"""Recurrent layers in every configuration, cells in loops, packed sequences, and a network of images over time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from zoo import rows

from .entry import Entry, Size

LENGTH = 5
WIDTH = 4
LOOP = {"dynamic": {}, "calls": (Size(3, 0), Size(1, 0)), "note": "as many steps as were traced"}


class Sequence(nn.Module):
    """One recurrent module over [B, T, 4], whatever order it wants; all steps to a dense layer: -> [B, 3]."""

    def __init__(self, kind: Callable[..., nn.Module], options: dict[str, Any]) -> None:
        super().__init__()
        self.body = kind(WIDTH, 6, **options)
        out = options.get("proj_size") or 6
        self.head = nn.Linear(out * (2 if options.get("bidirectional") else 1), 3)

    def forward(self, x: Tensor) -> Tensor:
        if self.body.batch_first:
            return self.head(self.body(x)[0].mean(1))
        return self.head(self.body(x.transpose(0, 1))[0].mean(0))


class LastState(nn.Module):
    """What is read are the final states, h and (of an LSTM) c: -> [B, 3]."""

    def __init__(self, kind: Callable[..., nn.Module]) -> None:
        super().__init__()
        self.body = kind(WIDTH, 6, num_layers=2, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state = self.body(x)[1]
        states = state if isinstance(state, tuple) else (state,)
        return self.head(sum(s[-1] for s in states))


class Stepwise(nn.Module):
    """A cell in a Python loop over [B, T, 4]: -> [B, 3]."""

    def __init__(self, kind: type[nn.Module]) -> None:
        super().__init__()
        self.cell = kind(WIDTH, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        state: Any = None
        for step in x.unbind(1):
            state = self.cell(step, state)
        return self.head(state[0] if isinstance(state, tuple) else state)


class Packed(nn.Module):
    """Samples of different lengths, packed and padded again; the last step of each: -> [B, 3]."""

    def __init__(self, kind: Callable[..., nn.Module], bidirectional: bool) -> None:
        super().__init__()
        self.body = kind(WIDTH, 6, batch_first=True, bidirectional=bidirectional)
        self.head = nn.Linear(12 if bidirectional else 6, 3)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
        steps, _ = pad_packed_sequence(self.body(packed)[0], batch_first=True)
        return self.head(steps[torch.arange(len(x)), lengths - 1])


class Film(nn.Module):
    """Convolutions on every image, an LSTM over time: [B, T, 3, 8, 8] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.eye = nn.Sequential(
            nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        self.body = nn.LSTM(8, 6, batch_first=True)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        seen = self.eye(x.flatten(0, 1)).unflatten(0, x.shape[:2])
        return self.head(self.body(seen)[0][:, -1])


def series(batch: int, length: int) -> dict[str, Tensor]:
    return rows(length, WIDTH)(batch, length)


def film(batch: int, length: int) -> dict[str, Tensor]:
    return rows(length, 3, 8, 8)(batch, length)


def ragged(batch: int, length: int) -> dict[str, Tensor]:
    """The first sample is the longest."""
    lengths = torch.tensor([length, *(2 + i % (length - 1) for i in range(batch - 1))])
    return {**series(batch, length), "lengths": lengths}


KINDS: dict[str, Callable[..., nn.Module]] = {
    "LSTM": nn.LSTM,
    "GRU": nn.GRU,
    "RNN tanh": partial(nn.RNN, nonlinearity="tanh"),
    "RNN relu": partial(nn.RNN, nonlinearity="relu"),
}
CELLS = (nn.LSTMCell, nn.GRUCell, nn.RNNCell)


def _configurations() -> Iterator[Entry]:
    for name, kind in KINDS.items():
        for layers, both, first, bias, projected in product((1, 2), *[(False, True)] * 4):
            if projected and name != "LSTM":
                continue
            options: dict[str, Any] = {"num_layers": layers, "bidirectional": both, "batch_first": first, "bias": bias}
            words = [f"{layers} layers"] if layers > 1 else []
            words += ["both ways"] if both else []
            words += ["batch first"] if first else []
            words += [] if bias else ["no bias"]
            if projected:
                options["proj_size"] = 5
                words.append("projected")
            title = f"nn.{name}{', ' if words else ''}{', '.join(words)}"
            fast = name == "LSTM" and layers == 2 and both and bias and first and projected
            yield _entry(title, partial(Sequence, kind, options), series, fast=fast)


def _entry(name: str, build: Callable[[], nn.Module], inputs: Any, **more: Any) -> Entry:
    settled: dict[str, Any] = {"dynamic": {"x": (1,)}, **more}
    return Entry(name, build, inputs, LENGTH, family="recurrent", **settled)


ENTRIES = [
    *_configurations(),
    *(_entry(f"nn.{name}, last state", partial(LastState, kind), series) for name, kind in KINDS.items()),
    *(_entry(f"nn.{cell.__name__} in a loop", partial(Stepwise, cell), series, **LOOP) for cell in CELLS),
    *(
        _entry(
            f"nn.{name}, packed{', both ways' if both else ''}",
            partial(Packed, KINDS[name], both),
            ragged,
            tracer="tape",
            fast=name == "LSTM" and both,
        )
        for name, both in product(("LSTM", "GRU"), (False, True))
    ),
    _entry("CNN-LSTM", Film, film),
]
