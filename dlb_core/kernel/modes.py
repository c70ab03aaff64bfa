"""Modes: one formula per kind, and the options that the formulas read."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dlb_core.choices import BIAS_POLICIES, choose
from dlb_core.kernel.call import Shares

EPS = 1e-6  # the stabiliser of a mode that has no option of that name


@dataclass(frozen=True)
class Formula:
    """How relevance goes through one kind: `run(kind_view, r, mode) -> Shares`.

    `reads` names the roles (or the arguments, for a rule of one op) whose values must survive until the
    relevance pass; ``output`` is the node's own value. A callable gets the mode and answers per mode.
    """

    run: Callable[[Any, Any, Any], Shares]
    reads: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ()

    def needs(self, mode: Any) -> tuple[str, ...]:
        """The roles that are read in this mode."""
        return self.reads(mode) if callable(self.reads) else self.reads

    @property
    def name(self) -> str:
        """The function's name, as the plan shows it."""
        return self.run.__name__


def formula(
    *, reads: tuple[str, ...] | Callable[[Any], tuple[str, ...]] = ()
) -> Callable[[Callable[[Any, Any, Any], Shares]], Formula]:
    """Decorator: a function `(kind_view, r, mode) -> Shares` becomes a `Formula`."""
    return lambda run: Formula(run, reads)


@dataclass(frozen=True)
class Mode:
    """A way to propagate: formulas by kind, default options, and whether gates receive relevance.

    `gates=True`: the operand that is a gate (softmax or sigmoid weights) receives nothing and the signal
    receives all. `source` cites where the mode comes from.
    """

    name: str
    formulas: Mapping[str, Formula]
    options: Mapping[str, Any] = field(default_factory=dict)
    gates: bool = True
    source: str = ""
    summary: str = ""
    pack: str = ""

    def bind(self, **options: Any) -> BoundMode:
        """This mode with its options settled; an option it does not have is a ValueError."""
        unknown = sorted(set(options) - set(self.options))
        if unknown:
            raise ValueError(
                f"mode {self.name!r} has no option {', '.join(map(repr, unknown))}; "
                f"it has: {', '.join(f'{k}={v!r}' for k, v in self.options.items()) or 'none'}"
            )
        settled = {**self.options, **options}
        if "bias" in settled:
            choose("bias", settled["bias"], BIAS_POLICIES)
        for name in ("eps", "tau"):
            value = settled.get(name)
            if value is not None and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
                raise ValueError(f"{name}={value!r}: must be a positive number")
        return BoundMode(self, MappingProxyType(settled))


class BoundMode:
    """A mode with settled options; formulas read the options as attributes (`mode.eps`)."""

    __slots__ = ("formulas", "gates", "mode", "name", "options")

    def __init__(self, mode: Mode, options: Mapping[str, Any]) -> None:
        self.mode = mode
        self.name = mode.name
        self.formulas = mode.formulas
        self.gates = mode.gates
        self.options = options

    def __getattr__(self, name: str) -> Any:
        if name in self.options:
            return self.options[name]
        if name == "eps":  # every mode has one, so that a rule of a pack may divide in any of them
            return EPS
        raise AttributeError(f"mode {self.name!r} has no option {name!r}")

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two bound modes the same plan."""
        return (self.name, *sorted((k, repr(v)) for k, v in self.options.items()))

    def __repr__(self) -> str:
        return f"{self.name}({', '.join(f'{k}={v!r}' for k, v in self.options.items())})"
