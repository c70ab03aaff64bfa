"""Mixtures of experts: every family that `tests/moe` holds to its dense form, in float32 as it runs by default."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from moe.models import FAMILIES, HELD, Family
from torch import nn

from .entry import Entry, Size

FAST = {"table, loop"}  # what is exported stands in tests/moe
NOTES = {HELD: "its scan is unrolled: fixed length"}


@dataclass(frozen=True)
class Mixture(Entry):
    """A family of experts: its parameters are drawn by it, its calls are its own."""

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        return FAMILIES[self.name].model(dtype)


def _entry(family: Family) -> Mixture:
    return Mixture(
        family.name,
        family.build,
        family.inputs,
        family.length,
        explained=family.explained,
        family="experts",
        output=family.output,
        target=family.target,
        tracer=family.tracer,
        coarse=True,  # most routers do
        calls=tuple(Size(*call) for call in family.calls),
        note=NOTES.get(family.calls, ""),
        fast=family.name in FAST,
    )


ENTRIES = [_entry(family) for family in FAMILIES.values()]
