"""The pack for mixtures of experts: an op for routed experts, its rows, and how models are traced with it.

`op.py` is the op, `rows.py` says what it and torch's grouped products are, `lending.py` puts it into a model while it
is traced, `cases.py` has what `dlb check moe` tries. `sites.py` finds the layers of experts in a graph: `returned.py`
knows what experts returned, `routers.py` who weighs it, `ways.py` how it is added up by token.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlb_core.rules import GraphPass, Row, hookimpl
from dlb_ops_moe.lending import Lend, lend_experts
from dlb_ops_moe.profile import ExpertProfile
from dlb_ops_moe.rows import ROWS
from dlb_ops_moe.sites import Sites

if TYPE_CHECKING:
    from dlb_core.testing import Case

__all__ = ["DLB_API", "ExpertProfile", "dlb_passes", "dlb_rules", "dlb_tracing"]

DLB_API = 1


@hookimpl
def dlb_rules() -> list[Row]:
    return [*ROWS]


def DLB_CASES() -> list[Case]:
    from dlb_ops_moe.cases import cases

    return cases()


@hookimpl
def dlb_tracing() -> list[Lend]:
    return [lend_experts]


@hookimpl
def dlb_passes() -> list[GraphPass]:
    return [Sites()]
