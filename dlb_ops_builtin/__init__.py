"""The built-in pack: one row per ATen op, by family (`rows/`), the modes (`modes/`), the graph passes (`passes/`).

The module is cheap to import: what the hooks return is loaded when they are called.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from dlb_core.rules import hookimpl

if TYPE_CHECKING:
    from dlb_core.rules import Composite, GraphPass, Mode, Row

DLB_API = 1


@hookimpl
def dlb_rules() -> list[Row]:
    from dlb_ops_builtin import rows

    return rows.ALL


@hookimpl
def dlb_modes() -> list[Mode | Composite]:
    from dlb_ops_builtin.modes import MODES

    return MODES


@hookimpl
def dlb_passes() -> list[GraphPass]:
    from dlb_ops_builtin.passes import PASSES

    return PASSES
