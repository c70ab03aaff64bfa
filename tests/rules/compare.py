"""Compares what the engine gave with what the oracle says."""

from __future__ import annotations

import torch
from torch import Tensor

from .harness import Outcome


def kept(done: Outcome) -> float:
    """What a rule itself keeps: units in the accounts that are no operand's."""
    return sum(done.booked(account) for account in ("stabiliser", "crossed", "unreached"))


def assert_same(got: Tensor, expected: Tensor, *, of: Tensor, rtol: float = 1e-7) -> None:
    """Equal up to rounding, measured against the largest share that flows."""
    assert got.shape == expected.shape
    scale = max([float(t.abs().max()) for t in (expected, of) if t.numel()], default=0.0)
    torch.testing.assert_close(got.double(), expected, rtol=rtol, atol=1e-10 * scale)


def assert_booked(got: float, expected: float, *, scale: float) -> None:
    """The same units in an account, up to rounding."""
    assert abs(got - expected) <= 1e-7 * abs(expected) + 1e-10 * scale, f"booked {got}, expected {expected}"
