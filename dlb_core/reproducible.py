"""`deterministic`: a block in which random numbers and algorithms are fixed; what was set before is set after it."""

from __future__ import annotations

import contextlib
import inspect
import os
import random
from collections.abc import Callable
from contextlib import ExitStack
from types import TracebackType
from typing import Any, TypeVar

import numpy as np
import torch

__all__ = ["deterministic"]

WORKSPACE = "CUBLAS_WORKSPACE_CONFIG"
WORKSPACES = (":4096:8", ":16:8")  # with others cuBLAS may choose another order of sums from call to call
LARGEST_SEED = 2**32 - 1  # numpy takes no larger one

LATER = (inspect.iscoroutinefunction, inspect.isgeneratorfunction, inspect.isasyncgenfunction)

F = TypeVar("F", bound=Callable[..., Any])


class deterministic(contextlib.ContextDecorator):
    """A block, or a decorated function, that gives the same numbers each time on the same machine.

    seed: of Python's, NumPy's and torch's generators (CPU and CUDA), 0 to 2**32 - 1. warn_only: what has no
    deterministic algorithm warns instead of raising torch's RuntimeError. Inside, torch uses deterministic algorithms,
    cuDNN does not choose by measuring, and cuBLAS has a fixed workspace. On the way out, after exceptions too, all of
    these settings and the states of the generators are what they were. Blocks may be nested.

    These settings belong to the process: other threads see them while the block runs. Hash seeds (`PYTHONHASHSEED`) and
    numbers of threads are fixed when a process starts and stay as they are. Raises ValueError for a seed out of range,
    TypeError for one that is no whole number, or on decorating a generator or coroutine, whose body runs later.
    """

    def __init__(self, seed: int = 42, *, warn_only: bool = False) -> None:
        if isinstance(seed, bool) or not isinstance(seed, (int, np.integer)):
            raise TypeError(f"seed={seed!r}: must be a whole number")
        if not 0 <= seed <= LARGEST_SEED:
            raise ValueError(f"seed={seed!r}: must be from 0 to {LARGEST_SEED}, which is what NumPy takes")
        self.seed = int(seed)
        self.warn_only = warn_only
        self._entered: list[ExitStack] = []

    def __enter__(self) -> deterministic:
        with ExitStack() as undo:  # what was begun is undone when a later step fails
            _keep_generators(undo)
            _keep_settings(undo)
            random.seed(self.seed)
            np.random.seed(self.seed)
            _seed_torch(self.seed)
            if os.environ.get(WORKSPACE) not in WORKSPACES:
                os.environ[WORKSPACE] = WORKSPACES[0]
            torch.backends.cudnn.benchmark = False
            torch.backends.cudnn.deterministic = True
            torch.use_deterministic_algorithms(True, warn_only=self.warn_only)
            self._entered.append(undo.pop_all())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entered.pop().close()

    def __call__(self, function: F) -> F:
        """`function`, run in a block of its own at each call."""
        if any(later(function) for later in LATER):
            raise TypeError(f"{function.__qualname__} runs after it has been called: use a with block inside it")
        return super().__call__(function)

    def _recreate_cm(self) -> deterministic:
        """A decorated function may call itself, or run in threads: each call has a block of its own."""
        return deterministic(self.seed, warn_only=self.warn_only)


def _seed_torch(seed: int) -> None:
    """CPU and CUDA. `torch.manual_seed` would reach devices of other makers, whose states are not kept here."""
    torch.default_generator.manual_seed(seed)
    torch.cuda.manual_seed_all(seed)  # remembered until CUDA starts, where it has not started


def _keep_generators(undo: ExitStack) -> None:
    undo.callback(random.setstate, random.getstate())
    undo.callback(np.random.set_state, np.random.get_state())
    undo.callback(torch.default_generator.set_state, torch.default_generator.get_state())
    if torch.cuda.is_initialized():
        undo.callback(torch.cuda.set_rng_state_all, torch.cuda.get_rng_state_all())
    else:  # it has no state yet, and starts from what torch was seeded with
        undo.callback(torch.cuda.manual_seed_all, torch.initial_seed())


def _keep_settings(undo: ExitStack) -> None:
    import torch._inductor.config as inductor  # `use_deterministic_algorithms` sets a flag of it

    undo.callback(_set_variable, WORKSPACE, os.environ.get(WORKSPACE))
    for holder, name in (
        (inductor, "deterministic"),
        (torch.backends.cudnn, "benchmark"),
        (torch.backends.cudnn, "deterministic"),
    ):
        undo.callback(setattr, holder, name, getattr(holder, name))
    undo.callback(
        torch.use_deterministic_algorithms,
        torch.are_deterministic_algorithms_enabled(),
        warn_only=torch.is_deterministic_algorithms_warn_only_enabled(),
    )


def _set_variable(name: str, value: str | None) -> None:
    if value is None:
        os.environ.pop(name, None)
    else:
        os.environ[name] = value
