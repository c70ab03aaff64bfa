"""Composites: modes put together from others, by where a node is. They are data: a list of parts, the first that fits.

``Composite("mine", [part("flat", first=True), part("gamma", tag="convolution", gamma=0.25), part("epsilon")])``
"""

from __future__ import annotations

import fnmatch
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from dlb_core.kernel.modes import EVERY, BoundMode, Mode, named, no_such_option
from dlb_core.table import Table


@dataclass(frozen=True)
class Place:
    """What a composite knows of a node.

    kind: the row's kind. tags: the row's tags. module: the path of the module around it, types: the classes of all
    modules around it, by full name. first: no layer with weights lies between the inputs and it. depth: 0 at the first
    such layers, 1 at the last.
    """

    node: str
    op: str
    kind: str
    tags: frozenset[str]
    module: str
    types: tuple[str, ...]
    first: bool
    depth: float


CONDITIONS = ("kind", "op", "tag", "layer", "layer_type", "first", "depth")


@dataclass(frozen=True)
class Part:
    """A mode, its options, and the conditions under which it runs; all of them must hold. Made by `part`."""

    mode: str | Mode
    options: Mapping[str, Any]
    where: Mapping[str, Any]

    def fits(self, place: Place) -> bool:
        """Do all conditions hold at this node?"""
        return all(_TESTS[name](wanted, place) for name, wanted in self.where.items())

    @property
    def name(self) -> str:
        """The name of its mode."""
        return self.mode if isinstance(self.mode, str) else self.mode.name

    def __str__(self) -> str:
        conditions = ", ".join(f"{name}={_shown(value)}" for name, value in self.where.items())
        return f"{conditions or 'elsewhere'}: {named(self.name, self.options)}"


def part(
    mode: str | Mode,
    *,
    kind: str | Iterable[str] | None = None,
    op: str | None = None,
    tag: str | None = None,
    layer: str | None = None,
    layer_type: type | str | None = None,
    first: bool | None = None,
    depth: tuple[float, float] | None = None,
    **options: Any,
) -> Part:
    """One part of a composite: a mode with options, and where it runs.

    kind: of the row ("linear", "sum", ...), one or several. op: a pattern of op names (``aten::conv*``). tag: of the
    row (``convolution``). layer: a pattern of module paths (``layer1.*``). layer_type: a module class or its name, of
    any module around the node. first: up to the first layers with weights (or, False, beyond them). depth: from .. to,
    0 the first layers with weights and 1 the last. Raises ValueError where a condition cannot hold.
    """
    given = {"kind": kind, "op": op, "tag": tag, "layer": layer, "layer_type": layer_type, "first": first}
    where: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
    for name in ("op", "tag", "layer"):
        if name in where and not isinstance(where[name], str):
            raise ValueError(f"{name}={where[name]!r}: give a string")
    if kind is not None and not isinstance(kind, str):
        where["kind"] = tuple(kind)
    if isinstance(layer_type, type):
        where["layer_type"] = f"{layer_type.__module__}.{layer_type.__qualname__}"
    if depth is not None:
        low, high = depth
        if not 0 <= low <= high <= 1:
            raise ValueError(f"depth={depth!r}: give (from, to) with 0 <= from <= to <= 1")
        where["depth"] = (float(low), float(high))
    return Part(mode, MappingProxyType(dict(options)), MappingProxyType(where))


def _of_type(wanted: str, place: Place) -> bool:
    return any(name == wanted or name.rpartition(".")[2] == wanted for name in place.types)


_TESTS: dict[str, Callable[[Any, Place], bool]] = {
    "kind": lambda wanted, place: place.kind in ((wanted,) if isinstance(wanted, str) else wanted),
    "op": lambda wanted, place: fnmatch.fnmatchcase(place.op, wanted),
    "tag": lambda wanted, place: wanted in place.tags,
    "layer": lambda wanted, place: fnmatch.fnmatchcase(place.module.partition("@")[0], wanted),
    "layer_type": _of_type,
    "first": lambda wanted, place: place.first == wanted,
    "depth": lambda wanted, place: wanted[0] <= place.depth <= wanted[1],
}


def _shown(value: Any) -> str:
    return "..".join(map(str, value)) if isinstance(value, tuple) else str(value)


@dataclass(frozen=True)
class Composite:
    """A mode made of parts: at every node the first part that fits runs.

    parts: `part(...)`s in order, or a function that makes them from the composite's `options`. An option of `explain`
    that the composite does not name goes to every part whose mode has it and that does not set it itself.
    """

    name: str
    parts: Sequence[Part] | Callable[[Mapping[str, Any]], Sequence[Part]]
    options: Mapping[str, Any] = field(default_factory=dict)
    example: Mapping[str, Any] = field(default_factory=dict)
    suits: tuple[str, ...] = ()
    source: str = ""
    summary: str = ""
    pack: str = ""

    def made(self, options: Mapping[str, Any] | None = None) -> tuple[Part, ...]:
        """The parts, for these options."""
        settled = {**self.options, **(options or {})}
        return tuple(self.parts(settled) if callable(self.parts) else self.parts)

    def bind(self, find: Callable[[str], Any], **options: Any) -> BoundComposite:
        """The composite with its options settled; `find` gives modes by name. Raises ValueError."""
        own = {name: value for name, value in options.items() if name in self.options}
        rest = {name: value for name, value in options.items() if name not in self.options}
        parts = self.made(own)
        if not parts:
            raise ValueError(f"composite {self.name!r} has no parts: give at least part('epsilon')")
        modes = [part.mode if isinstance(part.mode, Mode) else find(part.mode) for part in parts]
        bound: list[tuple[Part, BoundMode]] = []
        for each, mode in zip(parts, modes, strict=True):
            if not isinstance(mode, Mode) or mode.splits is not None:
                raise ValueError(
                    f"composite {self.name!r}: {each.name!r} is no plain mode, so no part can be made of it"
                )
            more = {name: value for name, value in rest.items() if name in {*mode.options, *EVERY} - {*each.options}}
            bound.append((each, mode.bind(**{**more, **each.options})))
        taken = {*EVERY, *(name for mode in modes for name in mode.options)}
        if unknown := sorted(set(rest) - taken):
            every = {name: value for mode in modes for name, value in mode.options.items()}
            raise no_such_option(self.name, unknown, {**every, **self.options})
        return BoundComposite(self, tuple(bound), MappingProxyType({**self.options, **options}))

    def to_dict(self) -> dict[str, Any]:
        """The composite as data that JSON can hold: ``{"name": ..., "parts": [{"mode": ..., condition: value}]}``."""
        parts = [{"mode": p.name, **dict(p.where), **dict(p.options)} for p in self.made()]
        return {"name": self.name, "parts": parts}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Composite:
        """A composite from such data. Raises ValueError that says what is missing."""
        if not isinstance(data.get("parts"), list):
            raise ValueError('a composite is {"name": ..., "parts": [{"mode": ..., ...}, ...]}')
        parts = []
        for entry in data["parts"]:
            if not isinstance(entry, Mapping) or not isinstance(entry.get("mode"), str):
                raise ValueError(f"a part of a composite needs a mode: {entry!r}")
            rest = {str(key): value for key, value in entry.items() if key != "mode"}
            parts.append(part(entry["mode"], **rest))
        return cls(str(data.get("name", "composite")), parts)

    def table(self) -> Table:
        """Its parts, in the order in which they are asked."""
        rows = [
            (number, ", ".join(f"{n}={_shown(v)}" for n, v in p.where.items()) or "elsewhere", named(p.name, p.options))
            for number, p in enumerate(self.made(), 1)
        ]
        return Table(("part", "where", "mode"), rows, title=f"composite {self.name}")

    def __str__(self) -> str:
        return str(self.table())


class BoundComposite:
    """A composite with its options settled; `at(place)` is the mode of a node."""

    __slots__ = ("composite", "name", "options", "parts")

    def __init__(
        self, composite: Composite, parts: tuple[tuple[Part, BoundMode], ...], options: Mapping[str, Any]
    ) -> None:
        self.composite = composite
        self.name = composite.name
        self.parts = parts
        self.options = options

    def at(self, place: Place) -> BoundMode:
        """The mode of the first part that fits."""
        for each, mode in self.parts:
            if each.fits(place):
                return mode
        raise ValueError(
            f"no part of composite {self.name!r} fits node {place.node!r} ({place.op}, kind {place.kind}): "
            "end it with a part without conditions, such as part('epsilon')"
        )

    @property
    def key(self) -> tuple[Any, ...]:
        """What makes two bound composites the same plan."""
        return (self.name, *((str(each), mode.key) for each, mode in self.parts))

    def __repr__(self) -> str:
        return f"{self.name}: " + "; ".join(str(each) for each, _ in self.parts)


AnyMode = BoundMode | BoundComposite


def as_a_whole(mode: Mode) -> Mode | Composite:
    """A rule for input layers, asked for as a whole: it runs there, and the mode that it names beyond them."""
    if mode.elsewhere is None:
        return mode
    # a recurrent op is one node for all of its steps: its state is no input
    parts = (part(mode.elsewhere, kind="compound"), part(mode, first=True), part(mode.elsewhere))
    return Composite(mode.name, parts, source=mode.source, summary=mode.summary, pack=mode.pack)
