"""What a check found out about one rule, and the error that says so."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from dlb_core.testing.bound import ModeName

SMALL = 12  # elements that are shown


class RuleCheckError(AssertionError):
    """A rule broke a property of the kit; names the rule, its pack, the mode, the property and the smallest case.

    The parts are attributes: `rule`, `kind`, `pack`, `mode`, `broken` (the property), `case`, `why`.
    """

    def __init__(self, *, rule: str, kind: str, pack: str, mode: str, broken: str, case: str, why: str) -> None:
        self.rule, self.kind, self.pack, self.mode = rule, kind, pack, mode
        self.broken, self.case, self.why = broken, case, why
        super().__init__(
            f"{rule} (kind {kind}, {f'pack {pack}' if pack else 'in no pack'}), mode {mode}: broke {broken!r}\n"
            f"  {why}\n  case: {case}"
        )


@dataclass(frozen=True)
class Report:
    """One rule's properties: those that hold, the first that is broken, and those that were not asked, with reasons."""

    rule: str
    kind: str
    pack: str
    passed: tuple[str, ...] = ()
    skipped: Mapping[str, str] = field(default_factory=dict)  # property -> reason
    error: RuleCheckError | None = None
    cases: int = 0

    @property
    def status(self) -> str:
        """passed, failed, or skipped (nothing could be asked)."""
        if self.error is not None:
            return "failed"
        return "passed" if self.passed else "skipped"


def mode_text(mode: ModeName) -> str:
    """A mode and its bias policy, for people."""
    return mode if isinstance(mode, str) else f"{mode[0]} (bias={mode[1]})"


def arguments_text(arguments: Mapping[str, Any]) -> str:
    """The arguments of a case: shapes and dtypes, and the values where they are few."""
    return ", ".join(f"{name} {value_text(value)}" for name, value in arguments.items()) or "no arguments"


def value_text(value: Any) -> str:
    """A tensor as ``[2, 3] float64 = ...``, anything else as it is written."""
    if isinstance(value, Tensor):
        dtype = str(value.dtype).removeprefix("torch.")
        shown = f" = {_rounded(value.tolist())}" if 0 < value.numel() <= SMALL and not value.is_complex() else ""
        return f"{list(value.shape)} {dtype}{shown}"
    if isinstance(value, (list, tuple)) and any(isinstance(item, Tensor) for item in value):
        return f"({', '.join(map(value_text, value))})"
    return repr(value) if not isinstance(value, torch.dtype) else str(value)


def _rounded(values: Any) -> Any:
    if isinstance(values, list):
        return [_rounded(v) for v in values]
    return float(f"{values:.4g}") if isinstance(values, float) else values
