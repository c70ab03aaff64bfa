"""What is folded or gated in a model gives the relevance of its parts."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlb_core import Relevance

from .forms import (
    X,
    assert_close,
    explained,
)
from .harness import MODES


class Normed(nn.Module):
    """A layer, its BatchNorm, and a classifier."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(dims)
        layer, norm = {0: (nn.Linear, nn.BatchNorm1d), 1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[
            dims
        ]
        self.layer = layer(3, 4, *(() if dims == 0 else (3,)))
        self.norm = norm(4)
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.head = nn.Linear(4 * 3**dims, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.layer(x))).flatten(1))


@pytest.mark.parametrize("dims", [0, 1, 2])
def test_a_folded_batch_norm(dims: int) -> None:
    """Folded or not, inputs get the same and the biases together too; `default` that absorbs weighs two sums as one."""
    x = torch.randn(2, 3, *[5] * dims, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = Normed(dims)
    folded, unfolded = explained(model, x, fold=True), explained(model, x, fold=False)
    for mode in MODES:
        assert [sum("norm" in name for name in books[mode]) for books in (folded, unfolded)] == [0, 1]
        if mode != ("default", "absorb"):
            assert_close(folded[mode]["x"], unfolded[mode]["x"], mode)
            one, other = (biases(books[mode]) for books in (folded, unfolded))
            assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


def biases(relevance: Relevance) -> float:
    return math.fsum(units for account, units in relevance.ledger.accounts.items() if account.startswith("bias:"))


class Recurrent(nn.Module):
    """An LSTM over five steps whose gates read an input of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.value, self.state = nn.Linear(4, 9), nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        c = h = torch.tanh(self.value(x[:, 0]))
        for t in range(1, 5):
            i, f, o = self.gate(gates[:, t]).sigmoid().chunk(3, 1)
            c = f * c + i * torch.tanh(self.value(x[:, t]) + self.state(h))
            h = o * torch.tanh(c)
        return h


class Routed(nn.Module):
    """Two experts weighted by the renormalised first of four scores; the router reads an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router = nn.Linear(4, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        weights = self.router(gates).softmax(-1)[..., :2]
        weights = weights / weights.sum(-1, keepdim=True)
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


@pytest.mark.parametrize("model", [Recurrent, Routed])
def test_gates_get_nothing_and_every_step_of_the_signal_its_share(model: type[nn.Module]) -> None:
    for mode, relevance in explained(model(), X, X.flip(0)).items():
        if mode[0] == "attnlrp":
            continue  # there a gate takes its half
        assert not bool(relevance["gates"].any())
        assert bool(relevance["x"].abs().sum((0, 2)).gt(0).all())
