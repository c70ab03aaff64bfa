"""Graph passes: tidy, pairs of einsums, loops, gates spelled out, BatchNorm; facts (gates, statistics, regions)."""

from __future__ import annotations

from dlb_core.rules import GraphPass
from dlb_ops_builtin.passes.einsum import Pairs
from dlb_ops_builtin.passes.fold import Fold
from dlb_ops_builtin.passes.loops import Loops
from dlb_ops_builtin.passes.notes import Notes
from dlb_ops_builtin.passes.spelled import Spelled
from dlb_ops_builtin.passes.tidy import Tidy

PASSES: list[GraphPass] = [Tidy(), Pairs(), Loops(), Spelled(), Fold(), Notes()]
