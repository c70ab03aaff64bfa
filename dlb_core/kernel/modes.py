"""Modes: one formula per kind, and the options that the formulas read."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, ClassVar

from torch import Tensor

from dlb_core.choices import BIAS_POLICIES, ROUTERS, choose
from dlb_core.kernel.call import Shares

#: Options that every mode has beside its own. router: does the router of experts receive what its weights are due?
EVERY = frozenset({"router"})
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
    receives all. `check(options)` raises a ValueError for options that do not go together. `elsewhere`: a rule for
    input layers names the mode that runs beyond them when it is asked for as a whole. `splits`: the mode whose map
    this one tells apart into for and against; its formulas carry the difference. `example`: options to try a mode with
    that has none for itself. `suits`: the families of models for which `mode="auto"` takes it. `source` cites where
    the mode comes from.
    """

    name: str
    formulas: Mapping[str, Formula]
    options: Mapping[str, Any] = field(default_factory=dict)
    gates: bool = True
    check: Callable[[Mapping[str, Any]], None] | None = None
    elsewhere: str | None = None
    splits: str | None = None
    example: Mapping[str, Any] = field(default_factory=dict)
    suits: tuple[str, ...] = ()
    source: str = ""
    summary: str = ""
    pack: str = ""

    def bind(self, **options: Any) -> BoundMode:
        """This mode with its options settled; an option it does not have is a ValueError."""
        if unknown := sorted(set(options) - set(self.options) - EVERY):
            raise no_such_option(self.name, unknown, self.options)
        settled = {**self.options, **options}
        if "bias" in settled:
            choose("bias", settled["bias"], BIAS_POLICIES)
        if "router" in settled:
            choose("router", settled["router"], ROUTERS)
        for name in ("eps", "tau"):
            value = settled.get(name)
            if value is not None and not (isinstance(value, (int, float)) and 0 < value < float("inf")):
                raise ValueError(f"{name}={value!r}: must be a positive number")
        if self.check is not None:
            self.check(settled)
        return BoundMode(self, MappingProxyType(settled), MappingProxyType(dict(options)))


def no_such_option(mode: str, unknown: Iterable[str], options: Mapping[str, Any]) -> ValueError:
    """The error that lists the options a mode has."""
    return ValueError(
        f"mode {mode!r} has no option {', '.join(map(repr, unknown))}; "
        f"it has: {', '.join(f'{k}={v!r}' for k, v in options.items()) or 'none'}"
    )


class BoundMode:
    """A mode with settled options; formulas read the options as attributes (`mode.eps`)."""

    __slots__ = ("formulas", "gates", "given", "mode", "name", "options")
    differs: ClassVar[bool] = False  # does it share changes between two points, not values

    def __init__(self, mode: Mode, options: Mapping[str, Any], given: Mapping[str, Any]) -> None:
        self.mode = mode
        self.name = mode.name
        self.formulas = mode.formulas
        self.gates = mode.gates
        self.options = options
        self.given = given

    def __getattr__(self, name: str) -> Any:
        if name in self.options:
            return self.options[name]
        if name == "eps":  # every mode has one, so that a rule of a pack may divide in any of them
            return EPS
        raise AttributeError(f"mode {self.name!r} has no option {name!r}")

    def withheld(self, gates: frozenset[str], routers: frozenset[str]) -> frozenset[str]:
        """Which of a node's gates receive nothing in this mode; `routers` are those that choose experts."""
        held = gates if self.gates else frozenset()
        router = self.options.get("router")
        return held if router is None else held | routers if router == "gate" else held - routers

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two bound modes the same plan; a mode of the caller's own is known by its identity."""
        return (self.name, id(self.mode), *sorted((k, _key(v)) for k, v in self.options.items()))

    @property
    def label(self) -> str:
        """The name with the options that were given, as the plan shows it."""
        return named(self.name, self.given)

    def __repr__(self) -> str:
        return named(self.name, self.options) if self.options else f"{self.name}()"


def named(name: str, options: Mapping[str, Any]) -> str:
    """``gamma(gamma=0.25)``, or the name alone."""
    return f"{name}({', '.join(f'{k}={_short(v)}' for k, v in options.items())})" if options else name


def _short(value: Any) -> str:
    return f"tensor{list(value.shape)}" if isinstance(value, Tensor) else repr(value)


def _key(value: Any) -> str:
    """An option's value in a word that tells it from others; a tensor by all of its numbers."""
    if not isinstance(value, Tensor):
        return repr(value)
    numbers = value.detach().cpu().contiguous().double().numpy().tobytes()
    return f"{list(value.shape)} {hashlib.sha256(numbers).hexdigest()}"
