"""The sums that a relevance pass leaves behind: tensors on the device until the pass is over."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

Kind = Literal["in", "out", "account", "seed", "input"]


class Entry(NamedTuple):
    """One sum: of the relevance that came into a step, went from it to a node, or into an account."""

    kind: Kind
    slot: int  # the node whose step it is
    other: int  # where it went ("out"); -1 elsewhere
    account: str
    scaled: bool  # does a sum of |R| follow the sum


@dataclass
class Books:
    """Sums kept as tensors, compared once at the end: no device synchronisation per node.

    `detail=False` keeps only what the ends need: seed, inputs and accounts.
    """

    detail: bool = True
    entries: list[Entry] = field(default_factory=list)
    sums: list[Tensor] = field(default_factory=list)
    _known: dict[int, tuple[Any, Tensor, Tensor]] = field(default_factory=dict)  # id -> weak reference, sums

    def relevance(self, kind: Kind, slot: int, value: Any, other: int = -1) -> None:
        """Records the sum and the absolute sum of a relevance tensor (or of a tuple of them)."""
        for tensor in value if isinstance(value, (tuple, list)) else (value,):
            if tensor is not None:
                self.entries.append(Entry(kind, slot, other, "", True))
                self.sums += self._sums_of(tensor)

    def booked(self, slot: int, account: str, amount: Tensor) -> None:
        """Records what a step put into an account: a scalar, or relevance whose places do not matter."""
        if amount.dim():
            self.entries.append(Entry("account", slot, -1, account, True))
            self.sums += self._sums_of(amount)
        else:
            self.entries.append(Entry("account", slot, -1, account, False))
            self.sums.append(_parts(amount).sum() if amount.is_complex() else amount)

    def stacked(self) -> Tensor:
        """All sums as one float64 vector, in the order of the entries (two for a scaled one)."""
        if len({s.dtype for s in self.sums}) == 1:
            return torch.stack(self.sums).to(torch.float64)
        return torch.stack([s.to(torch.float64) for s in self.sums])

    def _sums_of(self, tensor: Tensor) -> tuple[Tensor, Tensor]:
        # a pass hands the same tensor on through every identity: its sums are taken once
        known = self._known.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1], known[2]
        parts = _parts(tensor) if tensor.is_complex() else tensor
        total, size = parts.sum(), parts.abs().sum()
        self._known[id(tensor)] = (weakref.ref(tensor), total, size)
        return total, size


def _parts(tensor: Tensor) -> Tensor:
    """The relevance of the real parts and that of the imaginary ones."""
    return torch.view_as_real(tensor.resolve_conj())
