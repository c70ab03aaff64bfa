"""What a caller may ask for beside the mode: where to start, what to pass through, what to keep, how precisely."""

from __future__ import annotations

import math
import warnings
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree
from zoo import CASES, MLP, Net, traced

from dlb_core import DLBacktrace, Ledger

SOME = ("net", "digits", "bert-sdpa", "llama-eager")
MODES = ("default", "epsilon")


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 6)


@pytest.fixture
def dlb(x: Tensor) -> DLBacktrace:
    return DLBacktrace(MLP().eval(), x)


def ends(ledger: Ledger) -> float:
    return math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values())


@pytest.mark.parametrize("mode", MODES)
def test_at_starts_inside_the_model(mode: str, dlb: DLBacktrace, x: Tensor) -> None:
    explanation = dlb.explain(x, mode=mode, at="fc2", target=3, keep="all")
    seed = torch.zeros(3, 12)
    seed[:, 3] = 100
    assert torch.equal(explanation.relevance["output"], seed)
    assert torch.equal(explanation.relevance["linear_1"], seed)
    assert "linear_2" not in explanation.relevance
    assert ends(explanation.ledger) == pytest.approx(300, abs=1e-2)
    assert dlb.explain(x, mode=mode, at="linear_1", target=3).ledger == explanation.ledger


def test_at_may_name_an_input(dlb: DLBacktrace, x: Tensor) -> None:
    explanation = dlb.explain(x, at="x", target=1)
    assert torch.equal(explanation.inputs["x"], 100.0 * torch.eye(6)[1].expand(3, 6))


def test_at_refuses_what_depends_on_no_input(x: Tensor) -> None:
    dlb, call = traced("bert-sdpa"), CASES["bert-sdpa"].example()
    with pytest.raises(ValueError, match="depends on no explained input"):
        dlb.explain(**call, at="bert.embeddings.position_embeddings", target=(0, 0))
    with pytest.raises(ValueError, match=r"'nowhere' is no node or module.*dlb.graph\(\)"):
        dlb.explain(**call, at="nowhere")


@pytest.mark.parametrize("mode", MODES)
def test_through_lets_only_the_named_channels_pass_and_books_the_rest(mode: str, dlb: DLBacktrace, x: Tensor) -> None:
    whole = dlb.explain(x, mode=mode, keep="all").relevance["fc2"]
    part = dlb.explain(x, mode=mode, keep="all", through={"fc2": [0, 5]})
    other = dlb.explain(x, mode=mode, through={"linear_1": [i for i in range(12) if i not in (0, 5)]})
    stopped = part.ledger.accounts["through:linear_1"]
    assert stopped == pytest.approx(float(whole.sum() - whole[:, [0, 5]].sum()), abs=1e-3)
    assert ends(part.ledger) == pytest.approx(300, abs=1e-2)
    torch.testing.assert_close(
        part.inputs["x"] + other.inputs["x"], dlb.explain(x, mode=mode).inputs["x"], rtol=1e-4, atol=1e-3
    )


def test_through_names_channels_of_an_image() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 3, 8, 8)
    dlb = DLBacktrace(Net().eval(), x)
    pooled = dlb.explain(x, keep="all").relevance["pool"]
    part = dlb.explain(x, through={"pool": [4]}).ledger
    assert sum(part.inputs.values()) == pytest.approx(float(pooled[:, 4].sum()), abs=1e-3)


def test_through_an_input_keeps_its_named_features(dlb: DLBacktrace, x: Tensor) -> None:
    whole = dlb.explain(x).inputs["x"]
    part = dlb.explain(x, through={"x": [0, 2]})
    kept = torch.zeros_like(whole)
    kept[:, [0, 2]] = whole[:, [0, 2]]
    torch.testing.assert_close(part.inputs["x"], kept)
    assert part.ledger.accounts["through:x"] == pytest.approx(float(whole.sum() - kept.sum()), abs=1e-3)


@pytest.mark.parametrize(
    ("through", "says"),
    [
        ({"fc2": [12]}, r"through\['fc2'\] names channel 12: choose from 0 .. 11"),
        ({"fc9": [0]}, "'fc9' is no node or module"),
    ],
)
def test_through_refuses_what_is_not_there(through: Any, says: str, dlb: DLBacktrace, x: Tensor) -> None:
    with pytest.raises(ValueError, match=says):
        dlb.explain(x, through=through)


def test_through_a_node_that_no_relevance_reaches_is_refused() -> None:
    dlb, call = traced("bert-sdpa"), CASES["bert-sdpa"].example()
    with pytest.raises(ValueError, match="no relevance"):
        dlb.explain(**call, through={"bert.encoder.layer.0.attention.self.query": [0]})


def test_keep_decides_what_an_explanation_holds(dlb: DLBacktrace, x: Tensor) -> None:
    assert set(dlb.explain(x).relevance) == {"x", "output"}
    assert set(dlb.explain(x, keep=["fc1", "tanh"]).relevance) == {"x", "linear", "tanh", "output"}
    everything = {"x", "linear", "relu", "linear_1", "tanh", "linear_2", "output"}
    assert set(dlb.explain(x, keep="all").relevance) == everything
    with pytest.raises(ValueError, match='"inputs", "all", or a list'):
        dlb.explain(x, keep="some")
    with pytest.raises(ValueError, match="'nowhere' is no node or module"):
        dlb.explain(x, keep=["nowhere"])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", SOME)
def test_a_half_precision_model_has_float32_relevance(name: str, dtype: torch.dtype) -> None:
    """Its values are rounded to two or three digits, so the books close to 2e-2 of sum |R|."""
    case = CASES[name]
    model, call = case.model(dtype), case.example(dtype=dtype)
    dlb = DLBacktrace(model, call, tracer="export" if dtype is torch.bfloat16 else "tape")
    for mode in MODES:
        explanation = dlb.explain(**call, mode=mode, keep="all")
        assert {t.dtype for t in pytree.tree_leaves(dict(explanation.relevance))} == {torch.float32}
        assert ends(explanation.ledger) == pytest.approx(200, abs=2e-2 * explanation.ledger.scale)
        for entry in explanation.ledger.by_node.values():
            assert abs(entry.residual) <= 2e-2 * entry.scale, entry


@pytest.mark.parametrize("name", SOME)
def test_relevance_may_flow_in_float64_through_a_float32_model(name: str) -> None:
    case = CASES[name]
    call = case.example()
    dlb = DLBacktrace(case.model(), call, relevance_dtype=torch.float64)
    for mode in MODES:
        explanation = dlb.explain(**call, mode=mode)
        assert all(tensor.dtype is torch.float64 for tensor in explanation.relevance.values())
        assert explanation.output.dtype is torch.float32
        assert ends(explanation.ledger) == pytest.approx(200, abs=1e-5 * explanation.ledger.scale)


def test_relevance_flows_in_a_floating_dtype_only(x: Tensor) -> None:
    with pytest.raises(ValueError, match="must be a floating dtype"):
        DLBacktrace(MLP().eval(), x, relevance_dtype=torch.int64)


def test_temperature_divides_the_output(dlb: DLBacktrace, x: Tensor) -> None:
    cold = dlb.predict(x)["output"].output.clone()
    warm = dlb.predict(x, temperature=4.0)
    torch.testing.assert_close(warm["output"].output, cold / 4)
    torch.testing.assert_close(warm["linear_2"].output, cold)
    probabilities = (cold / 4).softmax(-1).amax(-1)
    seeds = dlb.evaluation(seed="probability")["output"].sum(-1)
    torch.testing.assert_close(seeds, probabilities)
    torch.testing.assert_close(dlb.explain(x, temperature=4.0).output, cold / 4)


@pytest.mark.parametrize("one", [1, 1.0, np.float32(1), np.int64(1), Fraction(1)], ids=repr)
def test_a_temperature_of_one_costs_nothing(one: Any, dlb: DLBacktrace, x: Tensor) -> None:
    """No division and no copy: the output is the tensor that the model returned."""
    io = dlb.predict(x, temperature=one)["output"]
    assert io.output is io.inputs[0]
    warm = dlb.predict(x, temperature=2 * one)["output"]
    torch.testing.assert_close(warm.output, warm.inputs[0] / 2)


@pytest.mark.parametrize("temperature", [0.3, 7.0])
@pytest.mark.parametrize(("mode", "seed"), [("epsilon", "probability"), ("default", "logit")])
def test_relevance_at_a_temperature_is_that_of_a_model_that_divides(
    temperature: float, mode: str, seed: str, x: Tensor
) -> None:
    """Oracle: the same weights, and a division by the temperature written into the last layer."""
    model, divided = (MLP().eval().double() for _ in range(2))
    divided.load_state_dict(model.state_dict())
    with torch.no_grad():
        divided.fc3.weight /= temperature
        divided.fc3.bias /= temperature
    x = x.double()
    options = {"eps": 1e-14} if mode == "epsilon" else {}  # a stabiliser would know the size of the weights
    found = DLBacktrace(model, x).explain(x, mode=mode, seed=seed, temperature=temperature, **options)
    wanted = DLBacktrace(divided, x).explain(x, mode=mode, seed=seed, **options)
    torch.testing.assert_close(found.output, wanted.output)
    assert found.ledger.seed == pytest.approx(wanted.ledger.seed)
    torch.testing.assert_close(found.inputs["x"], wanted.inputs["x"], rtol=1e-9, atol=1e-12)


def test_several_targets_through_fused_attention_raise_no_warning() -> None:
    dlb, call = traced("bert-sdpa"), CASES["bert-sdpa"].example()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        dlb.explain(**call, targets=[0, 1])


def test_scaler_multiplies_the_units(dlb: DLBacktrace, x: Tensor) -> None:
    assert dlb.explain(x, multiplier=50.0, scaler=3.0).ledger.seed == pytest.approx(450)


@pytest.mark.parametrize(("mode", "bias"), [("default", "absorb"), ("epsilon", "redistribute")])
def test_the_bias_policy_may_be_turned_around(mode: str, bias: str, dlb: DLBacktrace, x: Tensor) -> None:
    ledger = dlb.explain(x, mode=mode, bias=bias).ledger
    booked = {name for name, units in ledger.accounts.items() if name.startswith("bias:") and units}
    assert booked == ({"bias:fc1.bias", "bias:fc2.bias", "bias:fc3.bias"} if bias == "absorb" else set())
    assert ends(ledger) == pytest.approx(300, abs=1e-2)


def test_an_option_of_the_mode_is_honoured(dlb: DLBacktrace, x: Tensor) -> None:
    dlb.predict(x)
    small, large = dlb.evaluation("epsilon", eps=1e-9), dlb.evaluation("epsilon", eps=0.5)
    assert abs(small.ledger.accounts["stabiliser"]) < abs(large.ledger.accounts["stabiliser"])
    assert dlb.explain(x, mode="epsilon", eps=0.5).ledger == large.ledger
    assert dlb.explain(x, mode="epsilon", eps=0.5).options["eps"] == 0.5
