"""`deterministic`: the same numbers inside, everything as it was afterwards; and who imports dlb changes nothing."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch

from dlb_core import deterministic

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"


def draw() -> tuple[Any, ...]:
    """The next number of every generator."""
    return random.random(), float(np.random.rand()), torch.rand(1).item(), torch.randn(1).item()


def settings() -> dict[str, Any]:
    import torch._inductor.config as inductor

    return {
        "python": random.getstate(),
        "numpy": str(np.random.get_state()),
        "torch": torch.get_rng_state().tolist(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "warn only": torch.is_deterministic_algorithms_warn_only_enabled(),
        "inductor": inductor.deterministic,
        "cudnn": (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark),
        "environment": dict(os.environ),
    }


@pytest.fixture(autouse=True)
def _put_back() -> Iterator[None]:
    """Tests here change what the block must bring back."""
    yield
    torch.use_deterministic_algorithms(False)
    torch.backends.cudnn.deterministic = torch.backends.cudnn.benchmark = False


def test_the_same_numbers_each_time() -> None:
    with deterministic(seed=42):
        first = draw(), draw()
    random.random(), np.random.rand(), torch.rand(3)
    with deterministic(seed=42):
        assert (draw(), draw()) == first
    with deterministic(seed=43):
        assert all(a != b for a, b in zip(draw(), first[0], strict=True))


def test_inside_the_algorithms_are_deterministic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    torch.backends.cudnn.benchmark = True
    with deterministic():
        assert torch.are_deterministic_algorithms_enabled()
        assert not torch.is_deterministic_algorithms_warn_only_enabled()
        assert (torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark) == (True, False)
        assert os.environ[WORKSPACE] == ":4096:8"
    with deterministic(warn_only=True):
        assert torch.is_deterministic_algorithms_warn_only_enabled()


@pytest.mark.parametrize("workspace", [None, ":16:8", ":1024:2"])
@pytest.mark.parametrize("on", [False, True], ids=["settings off", "settings on"])
@pytest.mark.parametrize("fails", [False, True], ids=["ends", "fails"])
def test_everything_is_as_it_was(workspace: str | None, on: bool, fails: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(WORKSPACE, raising=False)
    if workspace is not None:
        monkeypatch.setenv(WORKSPACE, workspace)
    torch.use_deterministic_algorithms(on, warn_only=on)
    torch.backends.cudnn.deterministic, torch.backends.cudnn.benchmark = on, not on
    before = settings()
    try:
        with deterministic(seed=7):
            assert os.environ[WORKSPACE] == (":16:8" if workspace == ":16:8" else ":4096:8")
            draw()
            torch.use_deterministic_algorithms(False)
            torch.backends.cudnn.deterministic = False
            os.environ[WORKSPACE] = "changed inside"
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    assert settings() == before


def test_a_setting_of_the_compiler_comes_back_too() -> None:
    import torch._inductor.config as inductor

    with inductor.patch(deterministic=True):
        with deterministic():
            pass
        assert inductor.deterministic
        assert not torch.are_deterministic_algorithms_enabled()


def test_blocks_may_be_nested_and_one_object_entered_again() -> None:
    before = settings()
    block = deterministic(seed=1)
    with block:
        first = draw()
        inside = settings()
        with block, deterministic(seed=2, warn_only=True):
            draw()
        assert settings() == inside
        second = draw()
        with block:
            assert draw() == first
            assert draw() == second
    assert settings() == before


def test_what_fails_on_the_way_in_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("no")

    before = settings()
    with monkeypatch.context() as patch:
        patch.setattr("dlb_core.reproducible._seed_torch", refuse)
        with pytest.raises(RuntimeError, match="no"), deterministic():
            pass
    assert settings() == before


def test_as_a_decorator_each_call_is_a_block_of_its_own() -> None:
    @deterministic(seed=3)
    def sample(depth: int) -> list[Any]:
        """Says what it does."""
        return [draw(), *(sample(depth - 1) if depth else []), draw()]

    before = settings()
    outer = sample(0)
    assert sample(0) == outer
    assert sample(1) == [outer[0], *outer, outer[1]]
    assert settings() == before
    assert (sample.__name__, sample.__doc__) == ("sample", "Says what it does.")
    with pytest.raises(ValueError, match="from inside"):
        deterministic()(_fails)()
    assert settings() == before


def _fails() -> None:
    draw()
    raise ValueError("from inside")


def test_a_body_that_runs_later_is_not_decorated() -> None:
    def numbers() -> Iterator[float]:
        yield random.random()

    async def number() -> float:
        await asyncio.sleep(0)
        return random.random()

    for function in (numbers, number):
        with pytest.raises(TypeError, match="use a with block inside it"):
            deterministic()(function)


@pytest.mark.parametrize(
    ("seed", "error"), [(-1, ValueError), (2**32, ValueError), (1.0, TypeError), ("1", TypeError), (True, TypeError)]
)
def test_a_seed_that_is_none(seed: Any, error: type[Exception]) -> None:
    before = settings()
    with pytest.raises(error, match="seed="):
        deterministic(seed)
    assert settings() == before


def test_what_cuda_starts_with_is_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    """CUDA has no state before it starts: it is to be seeded as torch was, by the user or by chance."""
    if torch.cuda.is_initialized():
        pytest.skip("CUDA has started")
    seeds: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeds.append)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(5)
        with deterministic(seed=9):
            assert seeds == [9]
    assert seeds == [9, 5]


def test_states_of_a_cuda_that_runs_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """The order of calls, where there is no GPU to ask."""
    calls: list[Any] = []
    monkeypatch.setattr(torch.cuda, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.cuda, "get_rng_state_all", lambda: ["state of one", "state of two"])
    monkeypatch.setattr(torch.cuda, "set_rng_state_all", calls.append)
    monkeypatch.setattr(torch.cuda, "manual_seed_all", calls.append)
    with deterministic(seed=9):
        assert calls == [9]
    assert calls == [9, ["state of one", "state of two"]]


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
def test_on_a_gpu_the_same_numbers_and_the_state_afterwards() -> None:
    torch.randn(1, device="cuda")
    before = torch.cuda.get_rng_state().tolist()
    a, b = torch.randn(64, 64, device="cuda"), torch.randn(64, 64, device="cuda")
    torch.cuda.set_rng_state(torch.tensor(before, dtype=torch.uint8))
    drawn = []
    for _ in range(2):
        with deterministic(seed=1):
            drawn.append((torch.randn(5, device="cuda"), a @ b))
    assert all(torch.equal(x, y) for x, y in zip(*drawn, strict=True))
    assert torch.cuda.get_rng_state().tolist() == before


NOTHING_CHANGES = """
import logging, os, random, sys, warnings
import numpy as np
import torch
import torch._inductor.config as inductor  # a set-up of torch.export imports it: not ours to answer for

def state():
    b = torch.backends
    return {
        "environment": dict(os.environ),
        "folder": os.getcwd(),
        "path": list(sys.path),
        "random": (random.getstate(), str(np.random.get_state()), torch.get_rng_state().tolist()),
        "initial seed": torch.initial_seed(),
        "numpy errors": np.geterr(),
        "printing": np.get_printoptions(),
        "deterministic": (torch.are_deterministic_algorithms_enabled(),
                          torch.is_deterministic_algorithms_warn_only_enabled(),
                          torch.utils.deterministic.fill_uninitialized_memory, inductor.deterministic),
        "cudnn": (b.cudnn.enabled, b.cudnn.deterministic, b.cudnn.benchmark, b.cudnn.allow_tf32),
        "matmul": (torch.get_float32_matmul_precision(), b.cuda.matmul.allow_tf32),
        "attention": (b.cuda.flash_sdp_enabled(), b.cuda.mem_efficient_sdp_enabled(), b.cuda.math_sdp_enabled(),
                      b.mha.get_fastpath_enabled()),
        "mkldnn": b.mkldnn.enabled,
        "dtype": torch.get_default_dtype(),
        "device": torch.get_default_device(),
        "gradients": (torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.is_anomaly_enabled()),
        "threads": (torch.get_num_threads(), torch.get_num_interop_threads()),
        "cuda started": torch.cuda.is_initialized(),
        "logging": (logging.root.level, list(logging.root.handlers), logging.raiseExceptions),
        "warnings": list(warnings.filters),
        "hooks": (sys.excepthook, sys.displayhook, sys.gettrace(), sys.getprofile(), sys.getrecursionlimit()),
    }

before = state()
def same(when):
    now = state()
    changed = [name for name in before if now[name] != before[name]]
    assert not changed, (when, changed)

import dlb_core
same("import")
for name in dlb_core.__all__:
    getattr(dlb_core, name)
same("import of everything")
from torch import nn
model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Dropout(), nn.Flatten(), nn.Linear(32, 3)).eval()
x = torch.ones(2, 1, 6, 6)
before["random"], before["initial seed"] = state()["random"], state()["initial seed"]  # weights were drawn
dlb = dlb_core.DLBacktrace(model, x)
same("construction")
dlb.predict(x, temperature=2.0)
same("predict")
dlb.evaluation("epsilon")
dlb.explain(x, mode="default")
dlb.explain(x, mode=dlb_core.smooth("epsilon", samples=2), target=1)
same("explanation")
with dlb_core.deterministic(seed=1):
    dlb.explain(x)
same("a deterministic explanation")
"""


def test_importing_building_and_explaining_change_nothing() -> None:
    environment = {name: value for name, value in os.environ.items() if name != WORKSPACE}
    done = subprocess.run(
        [sys.executable, "-c", NOTHING_CHANGES], capture_output=True, text=True, check=False, env=environment
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
