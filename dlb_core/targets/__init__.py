"""Targets and seeds: which outputs are explained, and how many units of relevance each of them starts with.

`request` is what the caller asked, `places` a target as places of the output, `tasks` what a task means when no target
is given, `contrast` and `detection` the targets that have a name, `seed` puts units on what was chosen.
"""

from __future__ import annotations

from dlb_core.targets.contrast import Contrast, against_seed
from dlb_core.targets.detection import Query
from dlb_core.targets.request import Context, Request
from dlb_core.targets.seed import Seed, Target, Targets, make_seed, make_seeds, measure

__all__ = [
    "Context",
    "Contrast",
    "Query",
    "Request",
    "Seed",
    "Target",
    "Targets",
    "against_seed",
    "make_seed",
    "make_seeds",
    "measure",
]
