"""Puts one recorded call through its row: the forward, then every mode's books on the call's real inputs."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from typing import Any

import torch
from rules.harness import Bound, ModeName, assert_conserved, bind_op, call_op, pack
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.choices import BIAS_POLICIES
from dlb_core.errors import UnsupportedOpError
from dlb_core.rules import Compound, Constant, Lookup, Row

from .recorder import DRAW, Recorded

MODES = ("default", "epsilon", "gamma", "alpha-beta", "contrastive", "attnlrp")
UNSET = ("aten::empty", "aten::empty_like", "aten::new_empty")  # what they return holds anything


class Skipped(Exception):
    """No relevance is defined for the call; the text says why."""


class Refused(Exception):
    """The row says that it does not support these arguments."""


def modes() -> list[ModeName]:
    """The modes with formulas of their own for most kinds, with every policy for biases."""
    return [(name, policy) for name in MODES for policy in BIAS_POLICIES]


def row_of(op: Any, output: Any = None) -> Row | None:
    """The row for an op on the CPU; with its output, for that dtype."""
    found = [t for t in pytree.tree_leaves(output) if isinstance(t, Tensor)]
    return pack().find(op, None, "cpu", found[0].dtype if found else None)


def check(call: Recorded, row: Row, seed: int) -> None:
    """Raises `AssertionError`, or what the engine raises, where the row fails the call.

    Raises `Skipped` or `Refused` where there is nothing to judge. `seed` chooses the units at the output.
    """
    tensors = [t for t in pytree.tree_leaves((call.arguments, call.output)) if isinstance(t, Tensor)]
    if any(t.layout is not torch.strided or t.is_quantized for t in tensors):
        raise Skipped("not strided")
    if any(_endless(t) for t in tensors):
        raise Skipped("NaN or infinite")
    row = row.at(_whole(call))
    actives = list(_actives(row, call))
    if not actives:
        raise Skipped("no floating operand")
    reached = isinstance(row, Constant)
    for active, mode, item in product(actives, modes(), _items(row, call)):
        try:
            bound = bind_op(call.op, call.arguments, active, mode, item=item)
            if active == actives[0]:
                _assert_same_output(bound, row, call, item)
            if not isinstance(row, Constant) and bound.plan.steps:
                reached = True
                _assert_accounted(bound, seed)
        except UnsupportedOpError as error:
            if not all(op.reason for op in error.missing):
                raise
            raise Refused("; ".join(op.reason for op in error.missing)) from error
        except Exception as error:
            error.add_note(f"mode {mode}, active {active}{'' if item is None else f', output {item}'}")
            raise
    if not reached:
        raise Skipped("no floating operand")


def _whole(call: Recorded) -> dict[str, Any]:
    """The arguments with the schema's defaults."""
    defaults = {a.name: a.default_value for a in call.op._schema.arguments if a.has_default_value()}
    return {**defaults, **call.arguments}


def _endless(tensor: Tensor) -> bool:
    return _is_floating(tensor) and not bool(torch.isfinite(tensor).all())


def _actives(row: Row, call: Recorded) -> Iterator[tuple[str, ...]]:
    """All operands at once, then each alone.

    They are what holds floating values, and the ids of a lookup; the parts of an op that is written with others say
    for themselves what they can carry.
    """
    tensors: dict[str, Tensor] = {}
    for name, value in call.arguments.items():
        for at, part in enumerate(value) if isinstance(value, (list, tuple)) else ():
            tensors[f"{name}.{at}"] = part
        tensors[name] = value
    tensors = {name: t for name, t in tensors.items() if isinstance(t, Tensor)}
    operands = tuple(tensors) if isinstance(row, (Constant, Compound)) else row.operands(call.arguments)
    any_dtype = isinstance(row, (Compound, Lookup))
    carry = tuple(n for n in operands if n in tensors and (any_dtype or _is_floating(tensors[n])))
    if carry:
        yield carry
    if len(carry) > 1 and not isinstance(row, Constant):
        yield from ((name,) for name in carry)


def _is_floating(tensor: Tensor) -> bool:
    return tensor.is_floating_point() or tensor.is_complex()


def _items(row: Row, call: Recorded) -> list[int | None]:
    """What is read of the output: all of it; of an op written with others, one by one, as a graph reads them."""
    if not isinstance(row, Compound) or isinstance(call.output, Tensor):
        return [None]
    return [at for at, part in enumerate(call.output) if isinstance(part, Tensor) and _is_floating(part)]


def _assert_same_output(bound: Bound, row: Row, call: Recorded, item: int | None) -> None:
    torch.manual_seed(DRAW)
    whole = call_op(call.op, call.arguments)  # below a dispatch mode lazy conjugates lose their bit, so not call.output
    expected = whole if item is None else whole[item]
    torch.manual_seed(DRAW)
    ours, theirs = pytree.tree_leaves(bound.output), pytree.tree_leaves(expected)
    assert len(ours) == len(theirs), f"{len(ours)} outputs, torch has {len(theirs)}"
    for mine, other in zip(ours, theirs, strict=True):
        if call.op._schema.name in UNSET:
            assert (mine.shape, mine.dtype) == (other.shape, other.dtype)
        elif isinstance(row, Compound):  # another order of additions
            torch.testing.assert_close(mine, other)
        else:
            torch.testing.assert_close(mine, other, rtol=0, atol=0)


def _assert_accounted(bound: Bound, seed: int) -> None:
    """All units of a seed arrive at the operands or in accounts, and every operand's relevance has its shape."""
    done = bound.back(_units(bound, seed))
    shapes = {entry.name: entry.shape for entry in bound.layout.program.inputs}
    for name, r in done.relevance.items():
        assert tuple(r.shape) == shapes[name], f"relevance of {name}: shape {list(r.shape)}, not {list(shapes[name])}"
        assert bool(torch.isfinite(r).all()), f"the relevance of {name} is not finite"
    assert_conserved(done)


def _units(bound: Bound, seed: int) -> Any:
    """Units of both signs on every floating output, on both parts of a complex one; none on indices."""
    generator = torch.Generator().manual_seed(seed)

    def drawn(output: Tensor) -> Tensor:
        def normal() -> Tensor:
            return torch.randn(output.shape, generator=generator, dtype=torch.float64).to(bound.plan.dtype)

        if output.is_complex():
            return torch.complex(normal(), normal())
        return normal() if output.is_floating_point() else torch.zeros(output.shape, dtype=bound.plan.dtype)

    output = bound.output
    return drawn(output) if isinstance(output, Tensor) else [drawn(part) for part in output]
