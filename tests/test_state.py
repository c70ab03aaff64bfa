"""What the engine keeps, what it gives away, and what it leaves as it was found."""

from __future__ import annotations

import gc
import subprocess
import sys
import warnings
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from zoo import CASES, MLP

from dlb_core import DLBacktrace, StaleActivationsError


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(3, 6)


def snapshot(relevance: Any) -> dict[str, Any]:
    copied: dict[str, Any] = pytree.tree_map(lambda t: t.clone(), dict(relevance))
    return copied


def assert_unchanged(relevance: Any, before: dict[str, Any]) -> None:
    for name, tensor in before.items():
        assert torch.equal(relevance[name], tensor), name


def test_several_evaluations_may_follow_one_predict(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    dlb.predict(x)
    first = dlb.evaluation("epsilon")
    before = snapshot(first)
    dlb.evaluation("default", target=2)
    again = dlb.evaluation("epsilon")
    assert_unchanged(again, before)
    assert again.ledger == first.ledger


def test_a_result_stays_as_it_is_after_the_next_predict(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    dlb.predict(x)
    relevance, explanation = dlb.evaluation("epsilon"), dlb.explain(x, keep="all")
    before, output = snapshot(relevance), explanation.output.clone()
    kept = snapshot(explanation.relevance)
    dlb.predict(x * 3 + 1)
    dlb.evaluation("epsilon")
    assert_unchanged(relevance, before)
    assert_unchanged(explanation.relevance, kept)
    assert torch.equal(explanation.output, output)


def test_changing_a_result_changes_no_later_one(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    dlb.predict(x)
    relevance = dlb.evaluation("epsilon")
    before = snapshot(relevance)
    for tensor in relevance.values():
        tensor.zero_()
    assert_unchanged(dlb.evaluation("epsilon"), before)


def test_explain_leaves_the_last_predict_in_place(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    dlb.predict(x)
    before = snapshot(dlb.evaluation())
    dlb.explain(x + 1)
    assert_unchanged(dlb.evaluation(), before)


def test_evaluation_needs_a_predict(x: Tensor) -> None:
    dlb = DLBacktrace(MLP().eval(), x)
    dlb.explain(x)
    with pytest.raises(RuntimeError, match="call predict"):
        dlb.evaluation()


@pytest.mark.parametrize("what", ["input", "node", "output", "parameter"])
def test_a_tensor_changed_in_place_after_predict_is_noticed(what: str, x: Tensor) -> None:
    model = MLP().eval()
    dlb = DLBacktrace(model, x)
    node_io = dlb.predict(x)
    tensors = {
        "input": ("x", x),
        "node": ("relu", node_io["relu"].output),
        "output": ("linear_2", node_io["output"].output),
        "parameter": ("fc2.weight", model.fc2.weight),
    }
    name, tensor = tensors[what]
    with torch.no_grad():
        tensor.add_(1)
    with pytest.raises(StaleActivationsError, match=f"{name!r} was changed in place.*call predict again"):
        dlb.evaluation()
    dlb.predict(x)
    dlb.evaluation()


def test_predict_follows_the_parameters(x: Tensor) -> None:
    """The model stays the user's: new weights, also under a folded BatchNorm, are seen by the next call."""
    case = CASES["digits"]
    model, call = case.model(), case.example()
    dlb = DLBacktrace(model, call)
    old = dlb.predict(**call)["output"].output.clone()
    with torch.no_grad():
        for tensor in [*model.parameters(), *model.buffers()]:
            if tensor.is_floating_point():
                tensor.mul_(1.1)
    new = dlb.predict(**call)["output"].output
    assert not torch.allclose(old, new)
    torch.testing.assert_close(new, model(**call))


def settings() -> dict[str, Any]:
    """torch's and Python's settings that tracing could touch."""
    return {
        "grad": torch.is_grad_enabled(),
        "dtype": torch.get_default_dtype(),
        "threads": torch.get_num_threads(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "fastpath": torch.backends.mha.get_fastpath_enabled(),
        "random": torch.random.get_rng_state().tolist(),
        "sdpa": (torch.backends.cuda.flash_sdp_enabled(), torch.backends.cuda.math_sdp_enabled()),
        "filters": list(warnings.filters),
        "hooks": (sys.excepthook, sys.displayhook),
    }


@pytest.mark.parametrize("name", ["digits", "bert-sdpa", "llama-eager"])
def test_the_model_and_torch_are_left_as_they_were_found(name: str) -> None:
    case = CASES[name]
    model, call = case.model(), case.example()
    if name == "llama-eager":
        model.config.use_cache = True
    model.requires_grad_()
    next(model.parameters()).requires_grad_(False)
    state = {key: tensor.clone() for key, tensor in {**model.state_dict(), **dict(model.named_buffers())}.items()}
    flags = [(p.requires_grad, p.grad, id(p), p._version) for p in model.parameters()]
    modules = {path: dict(vars(m)) for path, m in model.named_modules()}
    inputs = {key: tensor.clone() for key, tensor in call.items()}
    config = model.config.to_dict() if hasattr(model, "config") else None
    forward, before = type(model).forward, settings()

    dlb = DLBacktrace(model, call)
    dlb.predict(**call)
    dlb.evaluation("epsilon")
    dlb.explain(**call, targets=[(0, 1)] if name == "llama-eager" else [1])

    assert settings() == before
    assert type(model).forward is forward
    assert config is None or model.config.to_dict() == config
    assert [(p.requires_grad, p.grad, id(p), p._version) for p in model.parameters()] == flags
    assert {path: set(vars(m)) for path, m in model.named_modules()} == {p: set(v) for p, v in modules.items()}
    assert not any(m.training or m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    for key, tensor in {**model.state_dict(), **dict(model.named_buffers())}.items():
        assert torch.equal(tensor, state[key]), key
    for key, tensor in inputs.items():
        assert torch.equal(call[key], tensor), key


def test_no_gradient_is_recorded(x: Tensor) -> None:
    x.requires_grad_()
    dlb = DLBacktrace(MLP().eval(), x)
    node_io = dlb.predict(x)
    relevance = dlb.evaluation()
    assert not node_io["output"].output.requires_grad
    assert not any(tensor.requires_grad for tensor in relevance.values())
    assert x.grad is None


def test_an_engine_that_nobody_holds_is_freed() -> None:
    """Nothing global keeps a model's weights or activations alive."""
    model, x = nn.Linear(37, 11).eval(), torch.randn(2, 37)
    dlb = DLBacktrace(model, x)
    dlb.predict(x)
    dlb.evaluation()
    dlb.explain(x, mode="epsilon")
    del dlb, model
    gc.collect()
    left = [t for t in gc.get_objects() if type(t) in (Tensor, nn.Parameter) and t.shape == (11, 37)]
    assert left == []


QUIET = """
import logging, sys, threading, warnings
before = (set(logging.root.handlers), logging.root.level, list(warnings.filters), sys.excepthook)
import dlb_core
assert "torch" not in sys.modules, "torch"
assert not any(name.startswith("dlb_ops") for name in sys.modules), "a pack"
assert before == (set(logging.root.handlers), logging.root.level, list(warnings.filters), sys.excepthook)
assert dlb_core.DLBacktrace.__name__ == "DLBacktrace"
assert "dlb_ops_builtin" not in sys.modules, "a pack"
assert set(dlb_core.__all__) <= set(dir(dlb_core))
assert all(getattr(dlb_core, name) is not None for name in dlb_core.__all__)
import torch
dlb = dlb_core.DLBacktrace(torch.nn.Linear(3, 2).eval(), torch.ones(1, 3))
dlb.predict(torch.ones(1, 3))
dlb.evaluation()
assert before[0] == set(logging.root.handlers)
"""


def test_importing_is_cheap_and_working_is_silent() -> None:
    """`import dlb_core` brings neither torch nor a pack; nothing is printed or logged unless asked for."""
    done = subprocess.run([sys.executable, "-c", QUIET], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_who_listens_hears_what_was_done(x: Tensor, caplog: pytest.LogCaptureFixture) -> None:
    case = CASES["digits"]
    call = case.example()
    with caplog.at_level("INFO", logger="dlb"):
        DLBacktrace(case.model(), call).explain(**call)
    text = caplog.text
    for what in ("traced", "folded into", "dropped", "bound"):
        assert what in text, what
