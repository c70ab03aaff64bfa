"""The pack for mixtures of experts: an op for routed experts, its rows, and how models are traced with it.

`op.py` is the op, `rows.py` says what it and torch's grouped products are, `lending.py` puts it into a model while it
is traced.
"""

from __future__ import annotations

from dlb_core.rules import Row, hookimpl
from dlb_ops_moe.lending import Lend, lend_experts
from dlb_ops_moe.rows import ROWS

DLB_API = 1


@hookimpl
def dlb_rules() -> list[Row]:
    return [*ROWS]


@hookimpl
def dlb_tracing() -> list[Lend]:
    return [lend_experts]
