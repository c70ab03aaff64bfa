"""The kit's `Case` on the built-in pack alone."""

from __future__ import annotations

from typing import Any

from dlb_core import testing
from dlb_core.testing import Arguments, Bound

from .harness import MODES, ModeName, pack

__all__ = ["Arguments", "Case"]


class Case(testing.Case):
    """`dlb_core.testing.Case`, bound to the built-in pack's rows."""

    def bind(self, arguments: Arguments, mode: ModeName = MODES[0], **more: Any) -> Bound:  # type: ignore[override]
        return super().bind(arguments, mode, **{"registry": pack(), **more})
