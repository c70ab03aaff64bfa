"""What the tape leaves behind: a model as it was found, the model's own errors, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import MLP

from dlb_core import DLBacktrace, TraceError


class Careless(nn.Module):
    """Writes to its buffers, counts, collects, and exchanges its modules and parameters."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.norm, self.batch = nn.BatchNorm1d(4), nn.BatchNorm1d(4)
        self.register_buffer("calls", torch.zeros(()))
        self.seen: list[Tensor] = []
        self.names = {"a": 1}
        self.table = torch.zeros(4)

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.table[0] = x.sum()
        self.seen.append(x)
        self.names["b"] = 2
        self.names["a"] = 3
        self.layers[0], self.layers[1] = self.layers[1], self.layers[0]
        self.current = self.layers[0]
        self.norm.weight.mul_(2)
        normed = nn.functional.batch_norm(x, self.batch.running_mean, self.batch.running_var, training=True)
        return self.norm(self.current(x)) + normed * self.calls + self.table


@pytest.mark.parametrize("tracer", ["auto", "tape"])
def test_the_model_is_left_as_it_was_found(tracer: str) -> None:
    model, x = Careless().eval(), torch.randn(3, 4)
    model.layers[0].weight.requires_grad_(False)
    hook = model.layers[1].register_forward_hook(lambda module, args, output: output * 2)
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    flags = [(id(p), p.requires_grad, p._version, p.grad) for p in model.parameters()]
    held = {path: (id(m), sorted(vars(m)), list(m._forward_hooks)) for path, m in model.named_modules()}
    before = x.clone()

    dlb = DLBacktrace(model, x, tracer=tracer, check="off")
    output = dlb.predict(x)["output"].output
    dlb.explain(x)

    assert {path: (id(m), sorted(vars(m)), list(m._forward_hooks)) for path, m in model.named_modules()} == held
    assert not any(m._forward_pre_hooks or m._forward_hooks_always_called for m in model.modules())
    assert [(id(p), p.requires_grad, p._version, p.grad) for p in model.parameters()] == flags
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, state[name]), name
    assert (model.seen, model.names, model.table.tolist()) == ([], {"a": 1}, [0.0] * 4)
    assert torch.equal(x, before)
    with torch.no_grad():
        torch.testing.assert_close(output, model(x))
    hook.remove()


def test_new_weights_are_seen_by_the_next_call() -> None:
    model, x = MLP().eval(), torch.randn(2, 6)
    dlb = DLBacktrace(model, x, tracer="tape")
    old = dlb.predict(x)["output"].output.clone()
    with torch.no_grad():
        model.fc1.weight.mul_(1.5)
        expected = model(x)
    assert not torch.allclose(old, expected)
    torch.testing.assert_close(dlb.predict(x)["output"].output, expected)


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if x.sum() > 0:
            raise ArithmeticError("too bright")  # here
        return x * 2


@pytest.mark.parametrize("tracer", ["auto", "tape", "export"])
def test_the_models_own_failure_is_told(tracer: str) -> None:
    with pytest.raises(
        TraceError, match=r"the model itself fails on this input.*ArithmeticError: too bright"
    ) as caught:
        DLBacktrace(Fails().eval(), torch.ones(2, 3), tracer=tracer)
    assert "# here" in str(caught.value)


def test_the_models_own_failure_is_told_at_a_later_call() -> None:
    x = -torch.ones(2, 3)
    dlb = DLBacktrace(Fails().eval(), x)
    dlb.predict(x)
    with pytest.raises(TraceError, match="the model itself fails on this input"):
        dlb.predict(-x)


def test_what_the_tape_does_not_take() -> None:
    x = torch.randn(2, 6)
    model = MLP().eval()
    exported = torch.export.export(model, (x,))
    with pytest.raises(ValueError, match=r"records an nn.Module at work"):
        DLBacktrace(exported, x, tracer="tape")
    with pytest.raises(ValueError, match="dynamic_shapes= is for export"):
        DLBacktrace(model, x, tracer="tape", dynamic_shapes=None)
    with pytest.raises(TraceError, match=r"in training mode"):
        DLBacktrace(model.train(), x, tracer="tape")
    with pytest.raises(TraceError, match=r"expected an nn.Module"):
        DLBacktrace(len, x, tracer="tape")


class Mixed(nn.Module):
    """Half precision inside, a scripted part, a function of its own with a gradient, a map over samples."""

    def __init__(self) -> None:
        super().__init__()
        self.dense = nn.Linear(4, 4)
        self.scripted = torch.jit.script(nn.Sequential(nn.Linear(4, 4), nn.ReLU()).eval())

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = self.dense(x)
        with torch.enable_grad():
            y = Doubled.apply(y.float())
        return torch.vmap(lambda row: self.scripted(row) + row)(y)


class Doubled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x * 2


@pytest.mark.parametrize("inference", [False, True])
def test_what_else_torch_code_does(inference: bool) -> None:
    with torch.inference_mode(inference):
        x = torch.randn(3, 4)
    model = Mixed().eval()
    dlb = DLBacktrace(model, x, tracer="tape")
    with torch.no_grad():
        expected = model(x)
    torch.testing.assert_close(dlb.predict(x)["output"].output, expected)
    assert dlb.evaluation().ledger.inputs == pytest.approx({"x": 300.0})
