"""Sends units through a bound call, and compares what two spellings of one call give."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from .harness import Bound, Outcome, assert_conserved
from .tensors import Tensors


def back(bound: Bound) -> Outcome:
    """Units of both signs through the op; what comes back is finite, has the operands' shapes, and nothing is lost."""
    t = Tensors(2)

    def units(output: Tensor) -> Tensor:
        if output.is_complex():
            return torch.complex(t.normal(*output.shape), t.normal(*output.shape))
        return t.normal(*output.shape) if output.is_floating_point() else torch.zeros(output.shape).double()

    output = bound.output
    done = bound.back(units(output) if isinstance(output, Tensor) else [units(part) for part in output])
    assert_conserved(done)
    shapes = {entry.name: entry.shape for entry in bound.layout.program.inputs}
    for name, r in done.relevance.items():
        assert tuple(r.shape) == shapes[name]
        assert bool(torch.isfinite(r).all())
    return done


def floating(arguments: Mapping[str, Any]) -> list[str]:
    """The arguments that can carry relevance."""
    names = []
    for name, value in arguments.items():
        listed = {f"{name}.{i}": part for i, part in enumerate(value)} if isinstance(value, list) else {name: value}
        names += [n for n, part in listed.items() if isinstance(part, Tensor) and part.is_floating_point()]
    return names


def assert_same(odd: Outcome, plain: Outcome) -> None:
    """The same output, the same relevance in the same places, the same units in the same sinks."""
    for mine, other in zip(pytree.tree_leaves(odd.output), pytree.tree_leaves(plain.output), strict=True):
        torch.testing.assert_close(mine, other, check_stride=False)
    assert list(odd.relevance) == list(plain.relevance)
    for name, r in plain.relevance.items():
        torch.testing.assert_close(odd[name], r)
    assert {n: u for n, u in odd.accounts.items() if u} == pytest.approx({n: u for n, u in plain.accounts.items() if u})
