"""What relevance along a path is, computed in another way: weights, the rescale rule, Integrated Gradients."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, integrated

from .models import (
    MODELS,
    SMOOTH,
    STABLE,
    Attentive,
    Perceptron,
    gradients,
    numbers,
    seeded,
    traced,
)


@pytest.mark.parametrize("steps", [1, 4])
def test_a_linear_model_gives_weight_times_change(steps: int) -> None:
    model = seeded(lambda: nn.Linear(4, 3))
    x, base = numbers(0, 2, 4), numbers(1, 2, 4)
    exp = DLBacktrace(model, x).explain(x, mode=integrated("epsilon", base, steps, **STABLE), target=2)
    assert torch.allclose(exp.inputs["input"], model.weight[2] * (x - base), atol=1e-9)
    assert exp.ledger.accounts.get("bias:bias", 0.0) == 0


def rescaled(layers: nn.Sequential, x: Tensor, base: Tensor, target: int) -> Tensor:
    """DeepLIFT's rescale rule: multipliers go back, by the change of a ReLU over the change of what it reads."""
    values = [(x, base)]
    for layer in layers:
        values.append(tuple(layer(v) for v in values[-1]))  # type: ignore[arg-type]
    m = torch.zeros_like(values[-1][0])
    m[:, target] = 1
    for layer, (now, then), (after, before) in zip(reversed(layers), values[-2::-1], values[:0:-1], strict=True):
        if isinstance(layer, nn.ReLU):
            m = m * torch.where(now == then, 0.0, (after - before) / (now - then))
        else:
            m = torch.func.vjp(layer, now)[1](m)[0]
    return m * (x - base)


LAYERS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "dense": (lambda: Perceptron().layers, (5,)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3)
        ),
        (2, 6, 6),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_step_of_epsilon_on_a_relu_network_is_the_rescale_rule(name: str) -> None:
    build, shape = LAYERS[name]
    layers = seeded(build)
    assert isinstance(layers, nn.Sequential)
    x, base = numbers(0, 4, *shape), numbers(1, 4, *shape)
    exp = DLBacktrace(layers, x).explain(x, mode=integrated("epsilon", base, 1, **STABLE), target=1)
    (relevance,) = exp.inputs.values()
    assert torch.allclose(relevance, rescaled(layers, x, base, 1), atol=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_many_steps_of_epsilon_tend_to_integrated_gradients(name: str) -> None:
    model, dlb = traced(name)
    x, base = (numbers(seed, 2, *MODELS[name][1]) for seed in (6, 7))
    limit = gradients(model, x, base, 400)
    errors = []
    for steps in (4, 16, 64):
        found = dlb.explain(x, mode=integrated("epsilon", base, steps, **STABLE), target=1).inputs["x"]
        errors.append(float((found - limit).abs().max() / limit.abs().max()))
    assert errors[-1] < 1e-3, errors
    assert errors[0] > 4 * errors[1] > 16 * errors[2], errors  # of second order in the size of a step


def test_on_a_relu_network_many_steps_tend_to_integrated_gradients() -> None:
    model, dlb = traced("perceptron")
    x, base = numbers(8, 3, 5), numbers(9, 3, 5)
    found = dlb.explain(x, mode=integrated("epsilon", base, 500, **STABLE), target=1).inputs["x"]
    limit = gradients(model, x, base, 4000)
    assert torch.allclose(found, limit, atol=2e-3 * float(limit.abs().max()))


def test_with_norms_the_limit_is_that_of_detached_statistics() -> None:
    """Of first order, since statistics are those at the end of a step; so twice as many steps, twice, less once."""
    _, dlb = traced("transformer")
    detached = seeded(lambda: Attentive(norms=True, detached=True))
    x, base = numbers(10, 2, 4, 6), numbers(11, 2, 4, 6)
    limit = gradients(detached, x, base, 400)
    found = {n: dlb.explain(x, mode=integrated("epsilon", base, n, **STABLE), target=1).inputs["x"] for n in (32, 64)}
    errors = [float((relevance - limit).abs().max() / limit.abs().max()) for relevance in found.values()]
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert torch.allclose(2 * found[64] - found[32], limit, atol=2e-4 * float(limit.abs().max()))


def test_a_norm_holds_nothing_of_a_first_step_from_zero() -> None:
    """The way from zero leads through where it divides by almost nothing; its value at the end says it all."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc = nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.norm(x))

    model, x = seeded(Normed), numbers(32, 3, 6)
    exp = DLBacktrace(model, x).explain(x, mode=integrated("epsilon", steps=1, **STABLE), target=1)
    assert isinstance(model, Normed)
    assert torch.allclose(exp.inputs["x"], model.fc.weight[1] * model.norm(x), atol=1e-9)
    assert exp.ledger.accounts["held"] == pytest.approx(0, abs=1e-12)


def test_the_winner_of_a_maximum_is_the_one_that_made_it_change() -> None:
    class Greatest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.max(1, keepdim=True)[0]

    base, x = torch.tensor([[0.5, 0.4]]).double(), torch.tensor([[0.5, 0.6]]).double()
    dlb = DLBacktrace(Greatest().eval(), base)
    rise = dlb.explain(x, mode=integrated("epsilon", base, 1), target=0).inputs["x"]
    fall = dlb.explain(base, mode=integrated("epsilon", x, 1), target=0).inputs["x"]
    assert torch.allclose(rise, torch.tensor([[0.0, 0.1]]).double())
    assert torch.allclose(fall, torch.tensor([[0.0, -0.1]]).double())
