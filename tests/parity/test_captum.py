"""Captum: its LRP rules and InputXGradient, on networks of ReLUs.

Where theirs differs:

- the relevance of the output is the logit, so ours is asked for with ``seed="logit"``.
- GammaRule raises positive weights alone, so it is gamma where inputs and outputs are not negative, and it leaves the
  bias as it is: networks without biases agree, and a target that has a positive logit.
- Alpha1_Beta0_Rule keeps positive weights alone (captum issue 1234), so it is z+ where inputs are not negative; and its
  denominator is P + b whatever b's sign, so networks without negative biases agree.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_core.rules import Composite, part

from .models import assert_agrees, image, mlp, row, supported, vgg

pytest.importorskip("captum", reason="captum is not installed: the extra `parity`")

from captum.attr import LRP, InputXGradient
from captum.attr._utils.lrp_rules import Alpha1_Beta0_Rule, EpsilonRule, GammaRule

EPS = 1e-9
LAYERS = (nn.Conv2d, nn.Linear, nn.AvgPool2d)


class Flattened(nn.Module):
    """A sequence whose flattening is no module: theirs has no rule for that one."""

    def __init__(self, layers: nn.Sequential) -> None:
        super().__init__()
        cut = next((i for i, layer in enumerate(layers) if isinstance(layer, nn.Flatten)), None)
        self.parts = nn.ModuleList([layers] if cut is None else [layers[:cut], layers[cut + 1 :]])
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        first, *rest = self.parts
        x = first(x)
        for layers in rest:
            x = layers(x.flatten(1))
        return x


def raised(model: nn.Sequential) -> nn.Sequential:
    """No bias below zero."""
    for layer in model:
        if getattr(layer, "bias", None) is not None:
            layer.bias.abs_()
    return model


MODELS: dict[str, tuple[Callable[[], nn.Sequential], Callable[[], Tensor]]] = {
    "vgg": (vgg, image),
    "vgg without biases": (lambda: vgg(bias=False), image),
    "dense": (mlp, row),
    "dense without biases": (lambda: mlp(bias=False), row),
}
POSITIVE: dict[str, tuple[Callable[[], nn.Sequential], Callable[[], Tensor]]] = {
    "raised vgg": (lambda: raised(vgg()), lambda: image(low=0.0)),
    "vgg without biases": (lambda: vgg(bias=False), lambda: image(low=0.0)),
    "raised dense": (lambda: raised(mlp()), lambda: row().abs()),
    "dense without biases": (lambda: mlp(bias=False), lambda: row().abs()),
}
WITHOUT_BIASES = {name: case for name, case in POSITIVE.items() if name.endswith("biases")}


@pytest.fixture(autouse=True)
def _as_said() -> Iterator[None]:
    """Theirs says that it switches gradients on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def theirs(model: Flattened, x: Tensor, targets: list[int], rule: Callable[[], Any]) -> Tensor:
    for module in model.modules():
        if isinstance(module, LAYERS):
            module.rule = EpsilonRule(EPS) if isinstance(module, nn.AvgPool2d) else rule()
    found: Tensor = LRP(model).attribute(x, target=targets)
    return found.detach()


@cache
def traced(name: str) -> DLBacktrace:
    build, inputs = {**MODELS, **POSITIVE}[name]
    return DLBacktrace(Flattened(build()), inputs())


def compare(cases: dict[str, Any], name: str, attribute: Callable[..., Tensor], mode: Any, **options: Any) -> None:
    build, inputs = cases[name]
    model, x = Flattened(build()), inputs()
    targets = supported(model, x)
    done = traced(name).explain(x, mode=mode, target=targets, seed="logit", **options)
    assert_agrees(done.inputs["x"], attribute(model, x, targets))


def by(rule: Callable[[], Any]) -> Callable[..., Tensor]:
    return lambda model, x, targets: theirs(model, x, targets, rule)


@pytest.mark.parametrize("model", MODELS)
def test_epsilon(model: str) -> None:
    compare(MODELS, model, by(lambda: EpsilonRule(EPS)), "epsilon", eps=EPS)


@pytest.mark.parametrize("model", MODELS)
def test_a_large_epsilon(model: str) -> None:
    mode = Composite("large", [part("epsilon", op="aten::avg_pool*", eps=EPS), part("epsilon", eps=0.1)])
    compare(MODELS, model, by(lambda: EpsilonRule(0.1)), mode)


@pytest.mark.parametrize("model", WITHOUT_BIASES)
@pytest.mark.parametrize("gamma", [0.25, 2.0])
def test_gamma(model: str, gamma: float) -> None:
    compare(POSITIVE, model, by(lambda: GammaRule(gamma)), "gamma", gamma=gamma, eps=EPS)


@pytest.mark.parametrize("model", POSITIVE)
def test_alpha_1_beta_0(model: str) -> None:
    compare(POSITIVE, model, by(Alpha1_Beta0_Rule), "z-plus")


@pytest.mark.parametrize("model", MODELS)
def test_input_times_gradient_is_epsilon(model: str) -> None:
    """Of a network of ReLUs and maximum pools, whatever its biases, since the logit is piecewise linear."""

    def attribute(net: nn.Module, x: Tensor, targets: list[int]) -> Tensor:
        return InputXGradient(net).attribute(x, target=targets).detach()

    compare(MODELS, model, attribute, "epsilon", eps=1e-12)


def neuron(bias: float) -> Flattened:
    """2 - 1 + b."""
    layer = nn.Linear(2, 1).double().requires_grad_(False)
    layer.weight.copy_(torch.tensor([[2.0, -1.0]]))
    layer.bias.fill_(bias)
    return Flattened(nn.Sequential(layer))


def test_their_gamma_leaves_the_bias_as_it_is() -> None:
    """4 - 1 + 3 is their denominator, 4 - 1 + 6, as the rule has it, ours."""
    model, x = neuron(3.0), torch.ones(1, 2, dtype=torch.float64)
    done = DLBacktrace(model, x).explain(x, mode="gamma", gamma=1.0, target=0, seed="logit", eps=EPS)
    assert theirs(model, x, [0], lambda: GammaRule(1.0)).tolist() == [pytest.approx([4 * 4 / 6, -1 * 4 / 6])]
    assert done.inputs["x"].tolist() == [pytest.approx([4 * 4 / 9, -1 * 4 / 9])]
    assert done.ledger.accounts["bias:parts.0.0.bias"] == pytest.approx(6 * 4 / 9)


def test_their_positive_side_counts_a_negative_bias() -> None:
    """Of the logit 0.5 theirs hands on 0.5 * 2 / (2 - 0.5), more than there was; a negative bias has no such side."""
    model, x = neuron(-0.5), torch.ones(1, 2, dtype=torch.float64)
    done = DLBacktrace(model, x).explain(x, mode="z-plus", target=0, seed="logit")
    assert theirs(model, x, [0], Alpha1_Beta0_Rule).tolist() == [pytest.approx([0.5 * 2 / 1.5, 0.0])]
    assert done.inputs["x"].tolist() == [pytest.approx([0.5, 0.0])]
