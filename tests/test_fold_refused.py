"""Where a BatchNorm must not be folded into a layer: it stays as it is."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from folding import MODES, WIDTH, flat, folded, linear, norm, random
from torch import Tensor, nn
from torch.nn import functional as F

from dlb_core import DLBacktrace


class Read(nn.Module):
    """Both the convolution and its norm are read."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(WIDTH, WIDTH, 1), norm(2)

    def forward(self, x: Tensor) -> Tensor:
        y = self.layer(x)
        return flat(F.relu(self.norm(y)) + y)


class ReadNorm(Read):
    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x.tanh())
        return flat(self.layer(y) + y)


class ReadBehind(Read):
    """What the norm reads is read by others: its name would have to answer for both."""

    def forward(self, x: Tensor) -> Tensor:
        y = x.tanh()
        return flat(self.layer(self.norm(y)) + y)


class TwoOutputs(Read):
    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = self.layer(x)
        return flat(F.relu(self.norm(y))), y


class AsWeight(nn.Module):
    """A norm's values are no input where they are a layer's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = norm(0)

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(torch.ones(2, WIDTH, dtype=x.dtype), self.norm(x))


class Sequence(nn.Module):
    """BatchNorm's channel is the second axis, a dense layer's the last."""

    def __init__(self, first: bool) -> None:
        super().__init__()
        self.layer, self.norm, self.first = linear(), norm(1), first

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(self.layer(x)) if self.first else self.layer(self.norm(x.tanh()))
        return flat(y)


class Alone(nn.Module):
    """An image without a batch: the second axis is its height."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm = nn.Conv2d(WIDTH, WIDTH, 1), norm(1)

    def forward(self, x: Tensor) -> Tensor:
        return flat(self.norm(self.layer(x)))


def sequential(*modules: nn.Module) -> Callable[[], nn.Module]:
    return lambda: nn.Sequential(nn.Tanh(), *modules, nn.Flatten())


REFUSED: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "the layer has two readers": (Read, (2, WIDTH, 4, 4)),
    "the norm has two readers": (ReadNorm, (2, WIDTH, 4, 4)),
    "what it reads has two readers": (ReadBehind, (2, WIDTH, 4, 4)),
    "the layer is an output": (TwoOutputs, (2, WIDTH, 4, 4)),
    "the norm is a weight": (AsWeight, (WIDTH, WIDTH)),
    "a text before": (lambda: Sequence(True), (2, WIDTH, WIDTH)),
    "a text after": (lambda: Sequence(False), (2, WIDTH, WIDTH)),
    "an image without a batch": (Alone, (WIDTH, WIDTH, WIDTH)),
    "padded": (sequential(norm(2), nn.Conv2d(WIDTH, 4, 3, padding=1)), (2, WIDTH, 4, 4)),
    "padded on one axis": (sequential(norm(2), nn.Conv2d(WIDTH, 4, 3, padding=(0, 1))), (2, WIDTH, 4, 4)),
    "padded by word": (sequential(norm(2), nn.Conv2d(WIDTH, 4, 3, padding="same")), (2, WIDTH, 4, 4)),
    "a transposed convolution after": (sequential(norm(2), nn.ConvTranspose2d(WIDTH, 4, 2)), (2, WIDTH, 4, 4)),
    "an activation between": (sequential(norm(2), nn.ReLU(), nn.Conv2d(WIDTH, 4, 1)), (2, WIDTH, 4, 4)),
    "pooled before the layer": (
        sequential(norm(2), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(WIDTH * 4, 3)),
        (2, WIDTH, 4, 4),
    ),
    "flattened from another axis": (
        sequential(norm(2), nn.Flatten(2), nn.Flatten(0, 1), nn.Linear(16, 3)),
        (2, WIDTH, 4, 4),
    ),
    "statistics of the batch": (
        sequential(nn.Conv2d(WIDTH, 4, 1), norm(2, 4, track_running_stats=False)),
        (2, WIDTH, 4, 4),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_where_it_is_not_folded(name: str) -> None:
    build, shape = REFUSED[name]
    torch.manual_seed(0)
    model = random(build()).double()
    x = torch.randn(shape, dtype=torch.float64)
    dlb = DLBacktrace(model, x, dynamic_shapes=None)
    expected = model(x)
    expected = expected[0] if isinstance(expected, tuple) else expected
    assert folded(dlb) == [("left", "batch_norm")]
    for mode in MODES:
        done = dlb.explain(x, mode=mode, target=torch.ones_like(expected))
        torch.testing.assert_close(done.output, expected, rtol=1e-10, atol=1e-10)
        assert done.ledger.check() == []


def test_a_computed_weight_is_not_folded_into() -> None:
    torch.manual_seed(0)
    layer = nn.utils.parametrizations.weight_norm(nn.Conv2d(WIDTH, 4, 1))
    model = random(nn.Sequential(layer, norm(2, 4), nn.Flatten())).double()
    x = torch.randn(2, WIDTH, 3, 3, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    assert folded(dlb) == [("left", "batch_norm")]
    torch.testing.assert_close(dlb.predict(x)["output"].output, model(x))
