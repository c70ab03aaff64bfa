"""zennit: the same rule at the same layer, over a VGG-like network, one with folded BatchNorm and dense layers.

Where theirs differs:

- an empty side of z+ or alpha-beta loses its units there; ours go to the other side unless ``empty="account"``.
- w-square counts the squared bias among the weights (``bias="absorb"``), flat and z-box do not.
- a pooling average is shared by epsilon whatever the rule of the layers around it is; here too, as a part of its own.
- merging a BatchNorm leaves its `eps` out, so that their merged network has slightly other values.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_core.rules import Composite, part

from .models import CLASSES, assert_agrees, image, mlp, normed, row, supported, vgg

pytest.importorskip("zennit", reason="zennit is not installed: the extra `parity`")

from zennit import rules
from zennit.attribution import Gradient
from zennit.canonizers import SequentialMergeBatchNorm
from zennit.composites import EpsilonGammaBox, LayerMapComposite, SpecialFirstLayerMapComposite
from zennit.types import Activation, AvgPool, Convolution, Linear

EPS = 1e-9
LOW, HIGH = -1.0, 1.0
MODELS: dict[str, tuple[Callable[[], nn.Sequential], Callable[[], Tensor]]] = {
    "vgg": (vgg, image),
    "vgg without biases": (lambda: vgg(bias=False), image),
    "vgg of positive pixels": (vgg, lambda: image(low=0.0)),
    "folded": (normed, image),
    "dense": (mlp, row),
}
every_model = pytest.mark.parametrize("model", MODELS)


def theirs(model: nn.Module, x: Tensor, targets: list[int], composite: Any) -> Tensor:
    seed = nn.functional.one_hot(torch.tensor(targets), CLASSES).to(x.dtype)
    with Gradient(model, composite, attr_output=seed) as attribute:
        return attribute(x)[1].detach()


def ours(model: nn.Module, x: Tensor, targets: list[int], mode: Any, **options: Any) -> Tensor:
    done = DLBacktrace(model, x).explain(x, mode=mode, target=targets, multiplier=1.0, **options)
    return done.inputs["input"]


def layers(rule: Any, first: Any = None) -> Any:
    """A rule for every layer with weights, another one for the first of them."""
    merge = [SequentialMergeBatchNorm()]
    both = [((Convolution, Linear), rule)]
    every = [((Activation,), rules.Pass()), ((AvgPool,), rules.Norm(stabilizer=EPS)), *both]
    if first is None:
        return LayerMapComposite(every, canonizers=merge)
    return SpecialFirstLayerMapComposite(every, [((Convolution, Linear), first)], canonizers=merge)


@cache
def traced(name: str) -> DLBacktrace:
    build, inputs = MODELS[name]
    return DLBacktrace(build(), inputs())


def compare(name: str, mode: Any, composite: Any, **options: Any) -> None:
    build, inputs = MODELS[name]
    model, x = build(), inputs()  # a model of its own: theirs rewrites it while it looks
    targets = supported(model, x)
    done = traced(name).explain(x, mode=mode, target=targets, multiplier=1.0, **options)
    assert_agrees(done.inputs["input"], theirs(model, x, targets, composite))


def weighted(mode: str, **options: Any) -> Composite:
    """A mode in layers with weights, epsilon in the pooling average."""
    return Composite("weighted", [part("epsilon", op="aten::avg_pool*", eps=EPS), part(mode, **options)])


@every_model
def test_epsilon(model: str) -> None:
    compare(model, "epsilon", layers(rules.Epsilon(EPS)), eps=EPS)


@every_model
def test_a_large_epsilon(model: str) -> None:
    compare(model, weighted("epsilon", eps=0.1), layers(rules.Epsilon(0.1)))


@every_model
@pytest.mark.parametrize("gamma", [0.25, 3.0])
def test_gamma(model: str, gamma: float) -> None:
    compare(model, "gamma", layers(rules.Gamma(gamma, stabilizer=EPS)), gamma=gamma, eps=EPS)


@every_model
def test_z_plus(model: str) -> None:
    compare(model, "z-plus", layers(rules.ZPlus(stabilizer=EPS)), empty="account")


@every_model
@pytest.mark.parametrize(("alpha", "beta"), [(2.0, 1.0), (3.5, 2.5)])
def test_alpha_beta(model: str, alpha: float, beta: float) -> None:
    mode = weighted("alpha-beta", alpha=alpha, beta=beta, empty="account")
    compare(model, mode, layers(rules.AlphaBeta(alpha, beta, stabilizer=EPS)))


FIRST: dict[str, tuple[Any, dict[str, Any], dict[str, Any]]] = {  # their rule, its arguments, ours
    "flat": (rules.Flat, {}, {}),
    "w-square": (rules.WSquare, {}, {"bias": "absorb"}),
    "z-box": (rules.ZBox, {"low": LOW, "high": HIGH}, {"low": LOW, "high": HIGH}),
}


@every_model
@pytest.mark.parametrize("rule", FIRST)
def test_rules_of_the_input_layer(model: str, rule: str) -> None:
    first, given, options = FIRST[rule]
    mode = Composite("first", [part(rule, first=True, kind="linear", **options), part("epsilon", eps=EPS)])
    compare(model, mode, layers(rules.Epsilon(EPS), first(**given, stabilizer=EPS)))


@every_model
@pytest.mark.parametrize("rule", FIRST)
def test_rules_of_the_input_layer_by_name(model: str, rule: str) -> None:
    """Asked for as a mode they run at the input and epsilon elsewhere; no bias counts at the input."""
    first, given, _ = FIRST[rule]
    composite = layers(rules.Epsilon(EPS), first(**given, stabilizer=EPS, zero_params=["bias"]))
    compare(model, rule, composite, **given, eps=EPS)


@pytest.mark.parametrize("model", [name for name in MODELS if name != "dense"])
def test_their_composite_for_images(model: str) -> None:
    """`vision` with bounds is z-box, gamma in convolutions, epsilon in dense layers."""
    low, high = (torch.full((1, 3, 8, 8), v, dtype=torch.float64) for v in (LOW, HIGH))
    options = {"epsilon": EPS, "stabilizer": EPS, "canonizers": [SequentialMergeBatchNorm()]}
    composite = EpsilonGammaBox(low, high, gamma=0.25, **options)
    compare(model, "vision", composite, low=LOW, high=HIGH, gamma=0.25, eps=EPS)


def test_a_folded_norm_agrees_to_rounding_where_its_eps_does_not_count() -> None:
    model, x = normed(), image()
    for layer in model:
        if isinstance(layer, (nn.BatchNorm1d, nn.BatchNorm2d)):
            layer.eps = 1e-14
    targets = supported(model, x)
    mine = ours(model, x, targets, "gamma", eps=EPS)
    other = theirs(model, x, targets, layers(rules.Gamma(0.25, stabilizer=EPS)))
    torch.testing.assert_close(mine, other, rtol=1e-8, atol=1e-9)


def test_an_empty_side_goes_to_the_other_one_unless_asked() -> None:
    """A neuron without positive contributions: theirs gives nothing, ours what the negative ones are worth."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False)).double().eval().requires_grad_(False)
    model[0].weight.copy_(torch.tensor([[-1.0, -2.0, -5.0]]))
    x = torch.ones(1, 3, dtype=torch.float64)
    assert not theirs_one(model, x).any()
    assert not ours(model, x, [0], "z-plus", empty="account").any()
    assert ours(model, x, [0], "z-plus").tolist() == [pytest.approx([1 / 8, 2 / 8, 5 / 8])]


def theirs_one(model: nn.Module, x: Tensor) -> Tensor:
    with Gradient(model, layers(rules.ZPlus(stabilizer=EPS)), attr_output=torch.ones(1, 1).double()) as attribute:
        return attribute(x)[1].detach()
