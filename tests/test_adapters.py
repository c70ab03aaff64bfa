"""Other tools' calls: Captum's `attribute`, Quantus' `explain_func`, by their documented contracts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zoo import CASES, MLP, Net

from dlb_core import DLBacktrace, TraceError, adapters
from dlb_core.adapters import CaptumLRP, quantus_explain_func


class Plain(nn.Module):
    """Without biases: attributions sum to the output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Linear(8, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.conv(x).relu().mean((2, 3)))


class Mixed(nn.Module):
    """Two inputs to explain, and further arguments: a tensor, a factor and a switch."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(5, 3, bias=False), nn.Linear(4, 3, bias=False)

    def forward(self, x: Tensor, y: Tensor, shift: Tensor, factor: float = 1.0, twice: bool = False) -> Tensor:
        z = self.a(x) + self.b(y) * factor + shift
        return z * 2 if twice else z


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(4, 3, 6, 6, dtype=torch.float64)


@pytest.fixture
def model() -> nn.Module:
    torch.manual_seed(0)
    return Plain().double().eval()


def test_attributions_sum_to_the_logit(model: nn.Module, x: Tensor) -> None:
    found, delta = CaptumLRP(model, eps=1e-12).attribute(x, 2, return_convergence_delta=True)
    assert found.shape == x.shape
    assert delta.shape == (4,)
    torch.testing.assert_close(found.sum((1, 2, 3)), model(x)[:, 2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(delta, model(x)[:, 2] - found.sum((1, 2, 3)))
    leaf = x.clone().requires_grad_()  # epsilon on a network of ReLUs without biases: gradient x input
    (gradient,) = torch.autograd.grad(model(leaf)[:, 2].sum(), leaf)
    torch.testing.assert_close(found, (gradient * x).detach(), rtol=1e-6, atol=1e-9)


def test_the_delta_is_what_biases_took(x: Tensor) -> None:
    torch.manual_seed(0)
    model = Net().double().eval()
    found, delta = CaptumLRP(model).attribute(x, 2, return_convergence_delta=True)
    books = DLBacktrace(model, x).explain(x, mode="epsilon", target=2, seed="logit").ledger
    assert float(delta.sum()) == pytest.approx(sum(books.accounts.values()), abs=1e-6)
    torch.testing.assert_close(delta, model(x)[:, 2] - found.sum((1, 2, 3)))


@pytest.mark.parametrize(
    "target",
    [[0, 1, 2, 3], torch.tensor([0, 1, 2, 3]), torch.tensor([2]), torch.tensor(2), 2],
    ids=["list", "tensor", "tensor of one", "number tensor", "int"],
)
def test_a_target_for_each_example_or_one_for_all(target: Any, model: nn.Module, x: Tensor) -> None:
    chosen = torch.as_tensor(target).expand(4) if torch.as_tensor(target).numel() == 1 else torch.as_tensor(target)
    found = CaptumLRP(model).attribute(x, target)
    torch.testing.assert_close(found.sum((1, 2, 3)), model(x)[torch.arange(4), chosen], rtol=1e-4, atol=1e-6)


def test_no_target_where_an_example_has_one_output(x: Tensor) -> None:
    torch.manual_seed(0)
    for tail in (nn.Flatten(), nn.Flatten(0)):
        single = nn.Sequential(Plain(), nn.Linear(4, 1, bias=False), tail).double().eval()
        found = CaptumLRP(single).attribute(x)
        torch.testing.assert_close(found.sum((1, 2, 3)), single(x).reshape(-1), rtol=1e-4, atol=1e-6)


def test_a_tuple_where_the_output_has_more_dimensions() -> None:
    torch.manual_seed(0)
    model, x = nn.Sequential(nn.Linear(5, 3, bias=False), nn.Tanh()).double().eval(), torch.randn(2, 4, 5).double()
    lrp = CaptumLRP(model)
    for target, where in (((1, 2), [(1, 2), (1, 2)]), ([(0, 1), (3, 2)], [(0, 1), (3, 2)])):
        found = lrp.attribute(x, target)
        expected = torch.stack([model(x)[i, t, c] for i, (t, c) in enumerate(where)])
        torch.testing.assert_close(found.sum((1, 2)), expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match=r"output \[2, 4, 3\] takes a tuple of 2 indices"):
        lrp.attribute(x, 1)
    with pytest.raises(ValueError, match=r"target=None is for one output per example; this one is \[2, 4, 3\]"):
        lrp.attribute(x)


def mixed() -> tuple[nn.Module, tuple[Tensor, Tensor], Tensor]:
    torch.manual_seed(0)
    parts = [torch.randn(3, n, dtype=torch.float64) for n in (5, 4, 3)]
    return Mixed().double().eval(), (parts[0], parts[1]), parts[2]


def test_a_tuple_in_is_a_tuple_out_and_further_arguments_receive_nothing() -> None:
    model, (x, y), shift = mixed()
    found, delta = CaptumLRP(model).attribute((x, y), 1, (shift, 0.5, True), return_convergence_delta=True)
    assert isinstance(found, tuple)
    torch.testing.assert_close(found[0], 2 * x * model.a.weight[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(found[1], y * model.b.weight[1], rtol=1e-3, atol=1e-5)
    torch.testing.assert_close(delta, 2 * shift[:, 1], rtol=1e-3, atol=1e-5)


def test_one_further_argument_needs_no_tuple() -> None:
    model, (x, y), shift = mixed()
    lrp = CaptumLRP(model)
    one = lrp.attribute((x, y), 1, shift)
    torch.testing.assert_close(one[0], lrp.attribute((x, y), 1, (shift,))[0])
    assert isinstance(lrp.attribute((x,), 1, (y, shift)), tuple)


def test_a_trace_is_used_again(monkeypatch: pytest.MonkeyPatch, model: nn.Module, x: Tensor) -> None:
    traced: list[Any] = []

    def counting(*args: Any, **kwargs: Any) -> DLBacktrace:
        traced.append(args)
        return DLBacktrace(*args, **kwargs)

    monkeypatch.setattr(adapters, "DLBacktrace", counting)
    lrp = CaptumLRP(model)
    for batch in (x, x[:1], torch.cat([x, x])):
        lrp.attribute(batch, 1)
    assert len(traced) == 1
    wide = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    for _ in range(2):
        lrp.attribute(wide, 1)
        lrp.attribute(x, 1)
    assert len(traced) == 2
    with pytest.raises(ValueError, match="out of range"):
        lrp.attribute(x, 9)
    assert len(traced) == 2


def test_weights_that_change_are_seen(model: nn.Module, x: Tensor) -> None:
    lrp = CaptumLRP(model)
    before = lrp.attribute(x, 1)
    with torch.no_grad():
        model.fc.weight.mul_(2)
    torch.testing.assert_close(lrp.attribute(x, 1), 2 * before, rtol=1e-4, atol=1e-6)
    model.fc.weight = nn.Parameter(model.fc.weight.detach() * 2)
    torch.testing.assert_close(lrp.attribute(x, 1), 4 * before, rtol=1e-4, atol=1e-6)


def test_any_mode_and_its_options_may_be_asked_for(model: nn.Module, x: Tensor) -> None:
    expected = DLBacktrace(model, x).explain(x, target=1, seed="logit", mode="default", bias="absorb")
    torch.testing.assert_close(CaptumLRP(model, "default", bias="absorb").attribute(x, 1), expected.inputs["x"])
    with pytest.raises(ValueError, match="unknown mode 'lrp'"):
        CaptumLRP(model, "lrp").attribute(x, 1)
    with pytest.raises(ValueError, match="'gamma'"):
        CaptumLRP(model, gamma=1).attribute(x, 1)


def test_ids_have_the_relevance_of_their_row() -> None:
    case = CASES["bert-sdpa"]
    model, call = case.model(), case.example()
    ids, mask = call["input_ids"], call["attention_mask"]
    found = CaptumLRP(model).attribute(ids, 1, mask)
    assert found.shape == ids.shape
    both = CaptumLRP(model).attribute((ids, mask), 1)
    torch.testing.assert_close(both[0], found)
    assert not both[1].any()


def test_what_cannot_be_attributed_is_refused(model: nn.Module, x: Tensor) -> None:
    for inputs in ((), [x], "x"):
        with pytest.raises(ValueError, match="give a tensor or a tuple of tensors"):
            CaptumLRP(model).attribute(inputs, 1)  # type: ignore[call-overload]
    with pytest.raises(TraceError, match=r"call model.eval\(\)"):
        CaptumLRP(Plain().train()).attribute(x, 1)


# Quantus


def test_an_array_in_is_an_array_out(model: nn.Module, x: Tensor) -> None:
    targets = np.array([0, 1, 2, 3])
    found = quantus_explain_func(model=model, inputs=x.numpy().astype(np.float32), targets=targets)
    assert isinstance(found, np.ndarray)
    assert found.shape == tuple(x.shape)
    expected = CaptumLRP(model).attribute(x, torch.as_tensor(targets))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-3, atol=1e-4)
    default = quantus_explain_func(model, x, targets, mode="default", device="cpu")
    np.testing.assert_allclose(default, CaptumLRP(model, "default").attribute(x, [0, 1, 2, 3]).numpy())


def test_channels_may_be_summed(model: nn.Module, x: Tensor) -> None:
    whole = quantus_explain_func(model, x, [1] * 4)
    np.testing.assert_allclose(quantus_explain_func(model, x, [1] * 4, reduce_axes=(1,)), whole.sum(1))
    kept = quantus_explain_func(model, x, [1] * 4, reduce_axes=(1,), keepdims=True)
    assert kept.shape == (4, 1, 6, 6)
    np.testing.assert_allclose(quantus_explain_func(model, x, [1] * 4, reduce_axes=()), whole)


def test_a_changed_model_is_explained_as_it_is_now() -> None:
    torch.manual_seed(0)
    model, x = MLP().eval(), np.random.default_rng(0).normal(size=(3, 6))
    before = quantus_explain_func(model, x, [1, 1, 1])
    for module in model.modules():
        if isinstance(module, nn.Linear):
            module.reset_parameters()
    assert not np.allclose(before, quantus_explain_func(model, x, [1, 1, 1]))


def test_a_metric_of_quantus_takes_it() -> None:
    quantus = pytest.importorskip("quantus")
    torch.manual_seed(0)
    model = Net().eval()
    x = np.random.default_rng(0).normal(size=(4, 3, 8, 8)).astype(np.float32)
    y = model(torch.as_tensor(x)).argmax(1).numpy()
    question = {"explain_func": quantus_explain_func, "explain_func_kwargs": {"mode": "epsilon"}, "device": "cpu"}
    metric = quantus.Sparseness(disable_warnings=True, display_progressbar=False)
    scores = metric(model=model, x_batch=x, y_batch=y, a_batch=None, **question)
    assert len(scores) == 4
    assert all(0 <= score <= 1 for score in scores)
    randomised = quantus.MPRT(disable_warnings=True, display_progressbar=False)
    found = randomised(model=model, x_batch=x, y_batch=y, a_batch=None, **question)
    assert found is not None
