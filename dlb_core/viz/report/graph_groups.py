"""Groups: a level of hundreds of boxes becomes a few of some dozen, in the order of execution.

A model written as functions has no modules to fold its ops into, and a thread of 1,000 boxes tells nobody anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dlb_core.viz.graph.modules import Box, Level

MOST = 60  # boxes that are drawn in one picture


def grouped(level: Level, boxes: Mapping[str, Box], most: int = MOST) -> tuple[list[Level], dict[str, Box]]:
    """The level and those of its groups, and the groups' boxes by id; of a small level itself and nothing.

    A group's id is its level's path. What enters a group leaves it or is booked in it, as of a module.
    """
    ends = {name for name in level.boxes if boxes[name].kind in ("input", "output")}
    ops = [name for name in level.boxes if name not in ends]
    if len(ops) <= most:
        return [level], {}
    size = math.ceil(len(ops) / math.isqrt(len(ops)))
    parts = {f"g:{level.path}:{start}": ops[start : start + size] for start in range(0, len(ops), size)}
    group = {name: path for path, part in parts.items() for name in part}
    shown = dict.fromkeys(group.get(name, name) for name in level.boxes)
    found = [_level(level.path, tuple(shown), level, group)]
    for path, part in parts.items():
        inside = {name: other for name, other in group.items() if other != path}
        found.append(_level(path, tuple(part), level, inside))
    return found, {path: _box(path, [boxes[name] for name in part], found[0]) for path, part in parts.items()}


def _level(path: str, shown: tuple[str, ...], level: Level, group: Mapping[str, str]) -> Level:
    """What a level's edges are among the boxes shown, of which at least one end is; others stand in their group."""
    own = set(shown)
    edges: dict[tuple[str, str], float] = {}
    for start, end, units in level.edges:
        pair = (group.get(start, start), group.get(end, end))
        if pair[0] != pair[1] and own.intersection(pair):
            edges[pair] = edges.get(pair, 0.0) + units
    ports = dict.fromkeys(name for pair in edges for name in pair if name not in own)
    return replace(level, path=path, boxes=shown, ports=tuple(ports), edges=tuple((*p, u) for p, u in edges.items()))


def _box(path: str, members: Sequence[Box], level: Level) -> Box:
    into = math.fsum(units for start, _, units in level.edges if start == path)
    out = math.fsum(units for _, end, units in level.edges if end == path)
    booked = math.fsum(box.booked for box in members)
    accounts: dict[str, float] = {}
    for box in members:
        for name, units in box.accounts.items():
            accounts[name] = accounts.get(name, 0.0) + units
    return replace(
        members[-1],
        id=path,
        label=f"{members[0].label} … {members[-1].label}",
        kind="group",
        path=level.path,
        op="",
        rule="",
        pack="",
        into=into,
        out=out,
        booked=booked,
        residual=into - out - booked,
        accounts=accounts,
        folded=tuple(name for box in members for name in box.folded),
        ops=sum(box.ops for box in members),
    )
