"""A cut through the levels of a program: modules opened to some depth, those below it closed."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any

from dlb_core.inside import did_you_mean
from dlb_core.viz.graph.modules import Edge, Levels, summed

#: boxes that are read at a glance: as many levels are opened as stay within it
READABLE = 40


@dataclass(frozen=True)
class Cut:
    """What is seen of a module: `boxes` by id in execution order, `opened` modules around them, `ports` outside.

    edges: between boxes and ports, summed over what they fold.
    """

    path: str
    boxes: tuple[str, ...]
    opened: tuple[str, ...]
    ports: tuple[str, ...]
    edges: tuple[Edge, ...]


def cut(levels: Levels, path: str = "", depth: int | None = None) -> Cut:
    """The content of a module, `depth` levels of it opened (default: as many as are readable, at least one).

    Raises ValueError for a depth below 1.
    """
    if depth is not None:
        check_count("depth", depth, "shows what lies directly in the model (or module), 2 opens its modules")
    boxes, opened = _opened(levels, path, depth or 1)
    for deeper in itertools.count(2) if depth is None else ():
        more, around = _opened(levels, path, deeper)
        if len(more) > READABLE or around == opened:
            break
        boxes, opened = more, around
    seen = {box: box for box in boxes}
    edges = _edges(levels, path, seen)
    ports = dict.fromkeys(end for a, b, _ in edges for end in (a, b) if end not in seen)
    return Cut(path, tuple(boxes), tuple(opened), tuple(ports), edges)


def level_of(levels: Levels, module: str | None) -> str:
    """The path of the level that shows a module. Raises ValueError for what is no module, or holds a single op."""
    if not module:
        return ""
    if module not in levels.shown:
        near = did_you_mean(module, tuple(levels.shown))
        raise ValueError(f"module={module!r}: no module of this model that runs an op; {near}see dlb.graph()")
    box = levels.boxes[levels.shown[module]]
    if box.kind != "module":
        raise ValueError(f"module={module!r} holds one op, {box.id!r} ({box.op}): there is nothing to open")
    return box.path


def check_count(name: str, value: Any, meaning: str) -> None:
    """Raises ValueError for what is no whole number of 1 or more; `meaning` says what 1 does."""
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"{name}={value!r}: must be 1 or more; 1 {meaning}")


def _opened(levels: Levels, path: str, depth: int) -> tuple[list[str], list[str]]:
    boxes: list[str] = []
    opened: list[str] = []
    for box in levels.levels[path].boxes:
        if depth > 1 and levels.boxes[box].kind == "module":
            inner, deeper = _opened(levels, levels.boxes[box].path, depth - 1)
            opened += [levels.boxes[box].path, *deeper]
            boxes += inner
        else:
            boxes.append(box)
    return boxes, opened


def _edges(levels: Levels, path: str, seen: dict[str, str]) -> tuple[Edge, ...]:
    """The edges of ops, each end as the box that it is seen as; what lies outside as the level around sees it."""
    home = levels.around(path)
    known = dict(seen)

    def see(box: str) -> str:
        if box not in known:
            level = levels.inside[box]
            known[box] = box if level in home[:-1] or not level else see(f"m:{level}")
        return known[box]

    def outside(box: str) -> bool:
        return box not in seen

    pairs = ((see(a), see(b), units) for a, b, units in levels.edges)
    return summed((a, b, u) for a, b, u in pairs if a != b and not (outside(a) and outside(b)))
