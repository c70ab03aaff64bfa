"""BatchNorm folded into the layer before or after it: the same function, closed books, and where it must not be."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlb_core import DLBacktrace

MODES = ["default", "epsilon"]
NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
WIDTH = 6  # channels everywhere


def norm(dims: int, channels: int = WIDTH, **options: Any) -> nn.Module:
    return NORMS[dims](channels, **options)


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def flat(x: Tensor) -> Tensor:
    return x.flatten(1)


# what is folded: (what comes first, what follows, dims of the input)
BEFORE: dict[str, Callable[[], tuple[nn.Module, nn.Module, int]]] = {
    "linear": lambda: (linear(), norm(0), 0),
    "linear without bias": lambda: (nn.Linear(WIDTH, WIDTH, bias=False), norm(0), 0),
    "norm without affine": lambda: (linear(), norm(0, affine=False), 0),
    "neither": lambda: (nn.Linear(WIDTH, 4, bias=False), norm(0, 4, affine=False), 0),
    "conv1d": lambda: (nn.Conv1d(WIDTH, 4, 3), norm(1, 4), 1),
    "conv2d": lambda: (nn.Conv2d(WIDTH, 4, 3, padding=1, bias=False), norm(2, 4), 2),
    "conv2d, padding by word": lambda: (nn.Conv2d(WIDTH, 4, 2, padding="same"), norm(2, 4), 2),
    "conv2d, groups and strides": lambda: (nn.Conv2d(WIDTH, 9, (3, 2), stride=2, groups=3), norm(2, 9), 2),
    "conv2d, depthwise and dilated": lambda: (nn.Conv2d(WIDTH, 12, 2, dilation=2, groups=6), norm(2, 12), 2),
    "conv3d": lambda: (nn.Conv3d(WIDTH, 4, 2, groups=2), norm(3, 4, affine=False), 3),
    "conv_transpose1d": lambda: (nn.ConvTranspose1d(WIDTH, 4, 3, stride=2, output_padding=1), norm(1, 4), 1),
    "conv_transpose2d, groups": lambda: (nn.ConvTranspose2d(WIDTH, 9, 3, padding=1, groups=3), norm(2, 9), 2),
    "conv_transpose2d, depthwise": lambda: (nn.ConvTranspose2d(WIDTH, 6, 2, groups=6, bias=False), norm(2), 2),
    "conv_transpose3d, groups": lambda: (nn.ConvTranspose3d(WIDTH, 4, 2, groups=2), norm(3, 4), 3),
}
AFTER: dict[str, Callable[[], tuple[nn.Module, nn.Module, int]]] = {
    "linear": lambda: (norm(0), linear(), 0),
    "linear without bias": lambda: (norm(0), nn.Linear(WIDTH, 4, bias=False), 0),
    "norm without affine": lambda: (norm(0, affine=False), linear(), 0),
    "conv1d": lambda: (norm(1), nn.Conv1d(WIDTH, 4, 3), 1),
    "conv2d, groups and strides": lambda: (norm(2), nn.Conv2d(WIDTH, 9, (3, 2), stride=2, groups=3, bias=False), 2),
    "conv2d, depthwise and dilated": lambda: (norm(2), nn.Conv2d(WIDTH, 12, 2, dilation=2, groups=6), 2),
    "conv2d, padding by word": lambda: (norm(2), nn.Conv2d(WIDTH, 4, 2, padding="valid"), 2),
    "conv3d": lambda: (norm(3, affine=False), nn.Conv3d(WIDTH, 4, 2, groups=2), 3),
    "flattened image": lambda: (norm(2), nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 25, 4)), 2),
    "flattened sequence": lambda: (norm(1), nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 5, 4, bias=False)), 1),
}


class Pair(nn.Module):
    """A pointwise function, two modules, and an activation: what is in front and behind has no weights to fold into."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return flat(F.relu(self.second(self.first(torch.tanh(x)))))


def pair(name: str, side: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """The model of a case and an input of it."""
    torch.manual_seed(0)
    first, second, dims = {"before": BEFORE, "after": AFTER}[side][name]()
    return random(Pair(first, second)).to(dtype), torch.randn(1, WIDTH, *[5] * dims).to(dtype)


class Traced(NamedTuple):
    """A case, folded and not."""

    model: Any
    x: Tensor
    target: Tensor
    on: DLBacktrace
    off: DLBacktrace


@cache  # tracing is what costs here
def traced(name: str, side: str) -> Traced:
    model, x = pair(name, side)
    on, off = (DLBacktrace(model, x, fold=fold) for fold in (True, False))
    return Traced(model, x, torch.randn(model(x).shape, dtype=torch.float64), on, off)


def random(model: nn.Module) -> nn.Module:
    """Statistics and weights that no two channels share."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


def folded(dlb: DLBacktrace) -> list[tuple[str, str]]:
    """The layers that answer for norms, as the plan's table shows them, and the norms that are left."""
    records = dlb.plan("epsilon").table().records()
    marks = [(r["op"].partition(".")[0].removeprefix("aten::"), r["folded"]) for r in records if r["folded"]]
    return marks + [("left", r["node"]) for r in records if "batch_norm" in r["op"]]


SIDES = [(case, "before") for case in BEFORE] + [(case, "after") for case in AFTER]
every_case = pytest.mark.parametrize(("name", "side"), SIDES, ids=[f"{side}: {case}" for case, side in SIDES])


@every_case
def test_the_function_stays_and_the_books_close(name: str, side: str) -> None:
    model, x, target, on, off = traced(name, side)
    ((_, marked),) = folded(on)
    assert marked == "batch_norm"
    assert folded(off) == [("left", "batch_norm")]
    for mode in on.modes:
        bounds = {"low": -1.0, "high": 1.0} if mode == "z-box" else {}
        for dlb in (on, off):
            done = dlb.explain(x, mode=mode, target=target, **bounds)
            torch.testing.assert_close(done.output, model(x), rtol=1e-10, atol=1e-10)
            assert done.ledger.check() == []


@every_case
def test_recorded_and_in_single_precision(name: str, side: str) -> None:
    model, x = pair(name, side, torch.float32)
    dlb = DLBacktrace(model, x, tracer="tape")
    ((_, marked),) = folded(dlb)
    assert marked == "batch_norm"
    done = dlb.explain(x, target=torch.ones_like(model(x)))
    torch.testing.assert_close(done.output, model(x), rtol=1e-5, atol=1e-5)
    assert done.ledger.check() == []


@every_case
def test_epsilon_does_not_tell_whether_it_was_folded(name: str, side: str) -> None:
    """z / y of a layer and its norm is that of the folded layer; what biases took stays together."""
    _, x, target, *both = traced(name, side)
    on, off = (dlb.explain(x, mode="epsilon", eps=1e-12, target=target) for dlb in both)
    largest = float(off.inputs["x"].abs().max())
    torch.testing.assert_close(on.inputs["x"], off.inputs["x"], rtol=0, atol=1e-6 * largest)
    kept = [math.fsum(v for n, v in e.ledger.accounts.items() if n.startswith("bias:")) for e in (on, off)]
    assert kept[0] == pytest.approx(kept[1], rel=1e-6, abs=1e-6 * largest)
    owner = "second" if side == "before" else "first"
    assert {n.split(".")[0] for n in on.ledger.accounts if n.startswith("bias:")} == {f"bias:{owner}"}


@pytest.mark.parametrize("name", BEFORE)
@pytest.mark.parametrize("mode", ["default", "contrastive"])
def test_magnitudes_do_not_tell_either_where_the_layer_comes_first(name: str, mode: str) -> None:
    """Shares of |z|, and signs of what agrees, are those of the layer alone, scaled."""
    _, x, target, *both = traced(name, "before")
    on, off = (dlb.explain(x, mode=mode, target=target).inputs["x"] for dlb in both)
    torch.testing.assert_close(on, off, rtol=1e-8, atol=1e-9 * float(off.abs().max()))


@every_case
def test_default_shares_by_the_folded_weights(name: str, side: str) -> None:
    """By |x| |dy/dx| of what the two compute together, which is one linear map; places and all."""
    model, x, _, on, _ = traced(name, side)
    values = torch.tanh(x)

    def both(v: Tensor) -> Tensor:
        return flat(model.second(model.first(v)))

    weights = torch.autograd.functional.jacobian(both, values).reshape(both(values).numel(), -1).abs()
    contributions = weights * values.reshape(-1).abs()
    target = torch.rand(model(x).shape, dtype=torch.float64) + 0.5
    done = on.explain(x, target=target, multiplier=1.0)
    shares = (contributions / contributions.sum(1, keepdim=True)).nan_to_num(0)  # no tap reaches an output padding
    torch.testing.assert_close(done.inputs["x"].reshape(-1), target.reshape(-1) @ shares, rtol=1e-8, atol=1e-10)


# where it must not be done


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


# shared weights, chains, dtypes, new weights


class Tied(nn.Module):
    """One convolution called twice with a norm for each call, and once without."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.one, self.two = nn.Conv2d(WIDTH, WIDTH, 1), norm(2), norm(2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(self.layer(x)))
        y = F.relu(self.two(self.layer(y)))
        return flat(self.layer(F.relu(y)))


def test_a_shared_weight_is_folded_for_each_call_alone() -> None:
    torch.manual_seed(0)
    model = random(Tied()).double()
    x = torch.randn(2, WIDTH, 3, 3, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    assert folded(dlb) == [("conv2d", "batch_norm"), ("conv2d", "batch_norm_1")]
    for mode in MODES:
        done = dlb.explain(x, mode=mode, target=torch.ones_like(model(x)))
        torch.testing.assert_close(done.output, model(x), rtol=1e-10, atol=1e-10)
        assert done.ledger.check() == []


def chain() -> nn.Module:
    """A layer that takes in norms from both sides, two of them behind it."""
    torch.manual_seed(0)
    layers = (nn.Tanh(), norm(2), nn.Conv2d(WIDTH, 4, 2, groups=2), norm(2, 4), norm(2, 4, affine=False))
    return random(nn.Sequential(*layers, nn.Flatten())).double()


def test_norms_on_both_sides_of_a_layer() -> None:
    model, x = chain(), torch.randn(2, WIDTH, 4, 4, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    assert folded(dlb) == [("conv2d", "batch_norm, batch_norm_1, batch_norm_2")]
    done = dlb.explain(x, mode="epsilon", target=torch.ones_like(model(x)), keep="all")
    torch.testing.assert_close(done.output, model(x), rtol=1e-10, atol=1e-10)
    assert done.ledger.check() == []
    for name in ("3", "4", "batch_norm_2"):
        assert done.relevance[name] is done.relevance["2"]
    assert done.relevance["1"] is done.relevance["0"]  # a norm that went into what follows: as much as flows into it


def test_a_chain_follows_the_parameters() -> None:
    """Any tensor of the model, changed in place, is seen through every layer of folding."""
    model, x = chain(), torch.randn(2, WIDTH, 4, 4, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.mul_(1.5)
            torch.testing.assert_close(dlb.predict(x)["output"].output, model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_norm_in_single_precision_beside_a_layer_in_half(half: torch.dtype, side: str) -> None:
    torch.manual_seed(0)
    layer, beside = nn.Conv2d(WIDTH, WIDTH, 2).to(half), random(norm(2))
    model = random(Pair(*((layer, beside) if side == "before" else (beside, layer))))
    x = torch.randn(2, WIDTH, 4, 4, dtype=half)
    dlb = DLBacktrace(model, x)
    assert [norms for _, norms in folded(dlb)] == ["batch_norm"]
    done = dlb.explain(x, target=torch.ones_like(model(x)))
    assert done.output.dtype is half
    torch.testing.assert_close(done.output, model(x), rtol=3e-2, atol=3e-2)
    assert done.ledger.check() == []


def test_other_sizes_of_batch_and_image() -> None:
    model, x = pair("conv2d", "before")
    dlb = DLBacktrace(model, x, dynamic_shapes={"x": (2, 3)})
    other = torch.randn(5, WIDTH, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(dlb.predict(other)["output"].output, model(other), rtol=1e-10, atol=1e-10)


class Named(nn.Module):
    """A norm over an input that has a path for a name."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = norm(0), linear()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.layer(self.norm(batch["row"]))


def test_a_norm_over_an_input_answers_with_the_input() -> None:
    model, call = random(Named()), ({"row": torch.randn(2, WIDTH)},)
    relevance = DLBacktrace(model, call).explain(call, mode="epsilon", keep="all").relevance
    assert relevance["norm"] is relevance["batch_norm"]
    assert relevance["norm"] is relevance["batch.row"]
