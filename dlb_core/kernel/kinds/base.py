"""Rows: what an op is. One row names an op, its kind, its operands, and how its maps apply.

A row is data. At bind the kernel asks it what it is for these arguments (`at`), which of them can carry relevance
(`operands`), which simpler row it is when only some of them receive (`narrow`: a product with a gate is a linear map),
and what it hands to a formula (`view`). The kinds are its subclasses, beside this file.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, fx

from dlb_core.kernel.call import Call
from dlb_core.kernel.modes import BoundMode, Formula

R = TypeVar("R", bound="Row")


@dataclass(frozen=True)
class Site:
    """Where a row is about to be bound: its node, arguments, and who may receive."""

    node: fx.Node
    bound: Mapping[str, Any]  # argument name -> fx argument
    receivers: frozenset[str]
    silent: frozenset[str]  # statistics and gates: active, but they receive nothing
    mode: BoundMode
    registry: Any  # the rows that a written form is bound to
    dtype: torch.dtype  # in which relevance flows
    device: torch.device

    @property
    def gates(self) -> bool:
        """Does this mode withhold relevance from gates?"""
        return self.mode.gates

    def is_scalar(self, name: str) -> bool:
        """Is this argument a number, or a constant tensor without dimensions?"""
        value = argument(self.bound, name)
        if not isinstance(value, fx.Node):
            return True
        fake = value.meta.get("val")
        return name not in self.receivers and isinstance(fake, Tensor) and fake.dim() == 0


def argument(bound: Mapping[str, Any], name: str) -> Any:
    """The argument called `name`; elements of a list argument are called ``tensors.0``. None where there is none."""
    if name in bound:
        return bound[name]
    base, _, index = name.rpartition(".")
    listed = bound.get(base, ()) if base else ()
    return listed[int(index)] if listed and int(index) < len(listed) else None


@dataclass(frozen=True, kw_only=True)
class Row:
    """What every row has; see the subclasses for the kinds.

    op: the op's name, ``namespace::name`` for all overloads or ``namespace::name.overload`` for one; Python
    functions are ``module.name``. forward: what to run instead of the op. device, dtypes, modes: where the row
    holds (None: everywhere). replaces: the pack whose row it replaces. dynamic: its shapes depend on data, so
    several seeds are looped, not vmapped. tags: what passes want to know (``gate``, ``inverse``, ``affine``,
    ``reduction``; ``opaque``: torch.func cannot differentiate it). reads: argument values that `apply`, `transpose` or
    `back` read beside the operands. refuses: looks at the arguments of a call by name and says why this row does not
    support them (None: it does); numbers are themselves, tensors are graph nodes. fake: a shape function that stands in
    for torch's own while a model is traced.
    channel_dim: the dimension of the output, counted from the right, on which the op makes new channels (None: it makes
    none, or they lie where its kind has them).
    """

    kind: ClassVar[str] = "row"
    cheap: ClassVar[bool] = False  # cheaper to compute again than to keep
    op: str
    forward: Callable[..., Any] | None = None
    device: str | None = None
    dtypes: tuple[torch.dtype, ...] | None = None
    modes: tuple[str, ...] | None = None
    replaces: str | None = None
    dynamic: bool = False
    tags: frozenset[str] = frozenset()
    reads: tuple[str, ...] = ()
    refuses: Callable[[Mapping[str, Any]], str | None] | None = None
    fake: Callable[..., object] | None = None
    channel_dim: int | None = None
    pack: str = ""
    source: str = ""
    default_formula: ClassVar[Formula | None] = None

    @property
    def channels(self) -> int | None:
        """The dimension of the output, from the right, on which channels lie that this op made."""
        return self.channel_dim

    @property
    def carriers(self) -> tuple[str, ...]:
        """The argument names that can carry relevance, before list arguments are spread out."""
        return ()

    def operands(self, bound: Mapping[str, Any]) -> tuple[str, ...]:
        """The operand names at a node: a list argument gives one name per element."""
        names: list[str] = []
        for name in self.carriers:
            value = argument(bound, name)
            if isinstance(value, (list, tuple)):
                names += [f"{name}.{i}" for i in range(len(value))]
            elif value is not None:
                names.append(name)
        return tuple(names)

    def at(self, bound: Mapping[str, Any]) -> Row:
        """The row this one is for these arguments."""
        return self

    def narrow(self, site: Site) -> Row:
        """The row this one is when only `site.receivers` receive."""
        return self

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        """The formula for this row in a mode."""
        return formulas.get(self.kind, self.default_formula)

    def runs(self, target: Callable[..., Any]) -> Callable[..., Any]:
        """What runs forward at a node whose op is `target`."""
        return target if self.forward is None else self.forward

    def role(self, name: str) -> tuple[str, ...]:
        """The argument names behind a role that a formula reads (``x`` -> the row's own name for it)."""
        names = getattr(self, name, None)
        if names is None:
            return ()
        return names if isinstance(names, tuple) else (names,)

    def view(self, call: Call) -> Any:
        """What the formula of this kind gets: the call with the kind's roles."""
        return call

    def become(self, cls: type[R], **fields: Any) -> R:
        """A row of another kind with this row's identity (op, pack, source, ...)."""
        common = {f.name: getattr(self, f.name) for f in dataclasses.fields(Row)}
        return cls(**{**common, **fields})


@dataclass(frozen=True, kw_only=True)
class Constant(Row):
    """Carries no relevance and ends activity: comparisons, shapes, arg-max."""

    kind: ClassVar[str] = "constant"


@dataclass(frozen=True, kw_only=True)
class OpRule(Row):
    """An op with a formula of its own: `run(call, r, mode) -> Shares`."""

    kind: ClassVar[str] = "rule"
    x: tuple[str, ...]
    own: Formula = field(repr=False)

    @property
    def carriers(self) -> tuple[str, ...]:
        return self.x

    def formula(self, formulas: Mapping[str, Formula]) -> Formula | None:
        return self.own

    def role(self, name: str) -> tuple[str, ...]:
        return (name,)


def sum_to(r: Tensor, shape: torch.Size) -> Tensor:
    """Relevance summed back over broadcast dimensions."""
    return r if r.shape == shape else r.sum_to_size(shape)


def vjp(function: Callable[[Tensor], Tensor], shape: Sequence[int], s: Tensor) -> Tensor:
    """The transpose of a linear function, by its vector-Jacobian product (works under vmap and compile)."""
    pulled: tuple[Tensor, ...] = torch.func.vjp(function, torch.zeros(shape, dtype=s.dtype, device=s.device))[1](s)
    return pulled[0]
