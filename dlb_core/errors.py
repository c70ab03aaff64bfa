"""Every error that dlb raises on purpose: what happened, where, and what to do next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class DLBError(Exception):
    """The root of all dlb errors."""


class TraceError(DLBError):
    """The model cannot be traced as it is; the text names the place and what to try."""


class ExportError(TraceError):
    """`torch.export` cannot trace the model, though it runs; the tape can."""


class InputMismatchError(DLBError):
    """The inputs of a call do not have the structure, shape, dtype or device that was traced."""


class PackError(DLBError):
    """A pack is broken, speaks another API number or clashes (raised only when asked to be strict)."""


class RuleError(DLBError):
    """A relevance rule broke its contract: wrong operand, wrong shape, unsupported argument."""


class NonFiniteError(DLBError):
    """A NaN or an infinity appeared in the forward or in the relevance pass; names the first node."""


class StaleActivationsError(DLBError):
    """A tensor that the engine keeps since `predict` was changed in place."""


class ExplanationFileError(DLBError):
    """A folder or file is no explanation of ours, is truncated, or comes from another format version."""


class UntrustedFileError(DLBError):
    """Loading this file can run code and the caller did not say that it is trusted."""


class ModelLoadError(DLBError):
    """A model cannot be loaded from where it was asked for, or part of it would be random; says what to do."""


class DrawingError(DLBError, RuntimeError):
    """A drawing could not be rendered; its source is in a file, and the text says how to go on."""


class ConservationError(DLBError):
    """Relevance went in and did not come out: at a node, or between the seed and the ends."""


@dataclass(frozen=True)
class MissingOp:
    """One op that no pack covers, at its first node; `reason`: why its row does not support these arguments."""

    op: str
    schema: str
    node: str
    module: str
    count: int = 1
    reason: str = ""

    def __str__(self) -> str:
        times = f", {self.count} nodes" if self.count > 1 else ""
        where = f"  {self.op}   (node {self.node!r} in module {self.module or '(top level)'!r}{times})"
        return f"{where}\n    {self.reason or self.schema}"


#: Namespaces of ops that compute with quantised activations.
QUANTISING = ("quantized::", "torchao::", "bitsandbytes::")


class UnsupportedOpError(DLBError):
    """Ops of the model that depend on an explained input and have no row, or none for their arguments; lists all."""

    def __init__(self, missing: Sequence[MissingOp], packs: Sequence[str], failed: Sequence[str]) -> None:
        self.missing = tuple(missing)
        unknown = [op for op in self.missing if not op.reason]
        refused = [op for op in self.missing if op.reason]
        lines: list[str] = []
        if unknown:
            lines += [f"no pack has a rule for {len(unknown)} op(s) of this model:", *map(str, unknown)]
        if refused:
            lines += [f"{len(refused)} op(s) have a rule, but not for these arguments:", *map(str, refused)]
        lines.append(f"packs looked in: {', '.join(packs) or 'none'}")
        lines += [f"pack that failed to load: {reason}" for reason in failed]
        if any(op.op.startswith(QUANTISING) for op in self.missing):
            lines.append(
                "the model is quantised, and rounds what flows through it: explain it as it was before, or one whose "
                "weights alone are quantised (torchao's weight-only)"
            )
        first = (unknown or refused)[0].op
        lines.append(
            f"What to do: install a pack that covers them, or add a row in a pack of your own, e.g.\n"
            f"    from dlb_core.rules import elementwise, hookimpl\n"
            f"    RULES = [elementwise({first!r})]   # or linear / move / sum_ / rule: what the op is\n"
            f"`dlb ops` lists the ops that are covered, `dlb plugins` the packs."
        )
        super().__init__("\n".join(lines))
