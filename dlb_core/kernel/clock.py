"""A clock that passes run under when somebody asks: what each step took, and what it made."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor, fx
from torch.utils import _pytree as pytree

Pass = Literal["forward", "relevance"]


@dataclass(frozen=True)
class Tick:
    """One step that ran: in which pass, at which node, by which kind; seconds, and bytes of what it made."""

    during: Pass
    node: fx.Node
    kind: str
    seconds: float
    made: int


@dataclass
class Clock:
    """What was timed so far. On a GPU every step is waited for, so that its time is its own."""

    ticks: list[Tick] = field(default_factory=list)
    _since: float = 0.0

    def start(self, device: torch.device) -> None:
        """A step begins."""
        _wait(device)
        self._since = time.perf_counter()

    def stop(self, during: Pass, node: fx.Node, kind: str, made: Any, device: torch.device) -> None:
        """It is done, and made these tensors."""
        _wait(device)
        seconds = time.perf_counter() - self._since
        size = sum(t.numel() * t.element_size() for t in pytree.tree_leaves(made) if isinstance(t, Tensor))
        self.ticks.append(Tick(during, node, kind, seconds, size))


_RUNNING: ContextVar[Clock | None] = ContextVar("clock", default=None)


def running() -> Clock | None:
    """The clock of this thread, where one runs."""
    return _RUNNING.get()


@contextmanager
def timed() -> Iterator[Clock]:
    """A clock for the passes that run inside."""
    clock = Clock()
    token = _RUNNING.set(clock)
    try:
        yield clock
    finally:
        _RUNNING.reset(token)


def _wait(device: torch.device) -> None:
    if device.type != "cpu":
        torch.accelerator.synchronize(device)
