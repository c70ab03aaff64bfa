"""The conformance kit: a pack's author proves rows and layer rules with it.

`check_rule(row)` is the whole kit in one call; `parametrize_rules` runs it over a pack's rows in pytest; a `Case`
gives arguments that cannot be guessed from a schema; `isolated_registry` chooses the packs of a test; `strategies`
draws arguments for hypothesis. Names load on first use: hypothesis and pytest are needed only by what uses them.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlb_core.testing import strategies
    from dlb_core.testing.bound import Bound, Outcome, assert_conserved, bind, bind_op, call_op
    from dlb_core.testing.case import Arguments, Case
    from dlb_core.testing.check import check_rule
    from dlb_core.testing.isolation import isolated_registry
    from dlb_core.testing.parametrize import parametrize_rules
    from dlb_core.testing.report import Report, RuleCheckError
    from dlb_core.testing.tensors import Tensors

_HOMES = {
    **dict.fromkeys(("Bound", "Outcome", "assert_conserved", "bind", "bind_op", "call_op"), "bound"),
    "Arguments": "case",
    "Case": "case",
    "Report": "report",
    "RuleCheckError": "report",
    "Tensors": "tensors",
    "check_rule": "check",
    "isolated_registry": "isolation",
    "parametrize_rules": "parametrize",
}

__all__ = [
    "Arguments",
    "Bound",
    "Case",
    "Outcome",
    "Report",
    "RuleCheckError",
    "Tensors",
    "assert_conserved",
    "bind",
    "bind_op",
    "call_op",
    "check_rule",
    "isolated_registry",
    "parametrize_rules",
    "strategies",
]


def __getattr__(name: str) -> Any:
    if name == "strategies":
        return import_module("dlb_core.testing.strategies")
    if name in _HOMES:
        return getattr(import_module(f"dlb_core.testing.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dlb_core.testing' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
