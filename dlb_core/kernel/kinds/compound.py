"""The kind of ops that are written with other ops: compound."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

from dlb_core.kernel.kinds.base import Row


@dataclass(frozen=True, kw_only=True)
class Compound(Row):
    """An op that is a few others: its node is replaced by those of `written` before anything else happens.

    `written` takes the op's arguments by their schema names and returns what the op returns, in ordinary torch code
    that changes nothing in place. Every mode, fact and check then sees the parts.
    """

    kind: ClassVar[str] = "compound"
    written: Callable[..., Any]
