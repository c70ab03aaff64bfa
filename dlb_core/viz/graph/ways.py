"""The nodes that matter most, and the ways between them through nodes that are not drawn.

The books say what went along each edge, not which unit that entered a node left it where. So the way between two
chosen nodes is not guessed at: nodes that are not drawn and hang together become one group, whose edges are sums of
the ledger, like all others. Groups are cut where they would lead back to a node that they come from, so that the
picture keeps its direction.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from dlb_core.viz.graph.cut import check_count
from dlb_core.viz.graph.modules import OUTPUT, Box, Edge, Levels, summed

#: units whose difference is this small a part of the largest are the same: rounding decides no rank
SAME = 1e-4


@dataclass(frozen=True)
class Group:
    """Ops that are not drawn and hang together; what enters leaves or is booked, as at a node."""

    id: str
    ops: tuple[str, ...]
    booked: float


@dataclass(frozen=True)
class Ways:
    """The chosen boxes in execution order (inputs and output always), and what lies between them.

    edges: directly from a chosen box to its reader. passages: (from, to, units, number of ops) through a group with one
    end on either side, that books nothing. groups: all others, with their own edges in `edges`.
    """

    boxes: tuple[str, ...]
    edges: tuple[Edge, ...]
    passages: tuple[tuple[str, str, float, int], ...]
    groups: tuple[Group, ...]


def ways(levels: Levels, top_k: int) -> Ways:
    """The `top_k` ops with the largest sums of relevance by size, of equal ones those that share it out first.

    An op that hands its relevance on one to one (kind elementwise) follows those that do not; then the one nearer to
    the output comes first. Raises ValueError for a number below 1.
    """
    check_count("top_k", top_k, "draws the strongest node, more than there are all of them")
    order = [box for box in levels.boxes.values() if box.kind == "op"]
    chosen = {box.id for box in _ranked(order)[:top_k]}
    ends = [box.id for box in levels.boxes.values() if box.kind == "input"]
    drawn = {*chosen, *ends, OUTPUT}
    stands = _grouped([box.id for box in order], levels.edges, drawn)
    members: dict[str, list[str]] = {}
    for box in order:
        if box.id not in drawn:
            members.setdefault(stands[box.id], []).append(box.id)
    edges = [e for e in summed((stands[a], stands[b], u) for a, b, u in levels.edges) if e[0] != e[1]]
    passages, left = _passages(members, edges, levels.boxes)
    groups = tuple(
        Group(group, tuple(ops), math.fsum(levels.boxes[op].booked for op in ops))
        for group, ops in members.items()
        if any(group in edge[:2] for edge in left)
    )
    boxes = (*ends, *(box.id for box in order if box.id in chosen), OUTPUT)
    return Ways(boxes, tuple(left), tuple(passages), groups)


def _ranked(boxes: Iterable[Box]) -> list[Box]:
    """Largest first."""
    latest = [*boxes][::-1]
    largest = max((abs(box.into) for box in latest), default=0.0) or 1.0
    return sorted(latest, key=lambda box: (-round(abs(box.into) / largest / SAME), box.rule == "elementwise"))


def _grouped(order: list[str], edges: Iterable[Edge], drawn: set[str]) -> dict[str, str]:
    """What each box is drawn as: itself, or the group named by one of its members.

    Two boxes that are not drawn belong together when one reads the other and equally many drawn nodes may lie between
    them and the output: so no group both feeds and reads a drawn node, nor another group.
    """
    readers: dict[str, list[str]] = {}
    for source, reader, _ in edges:
        readers.setdefault(source, []).append(reader)
    depth = {OUTPUT: 0}
    stands = {box: box for box in (*order, *readers, *drawn)}
    for box in order[::-1]:
        after = readers.get(box, [])
        depth[box] = max((depth[r] + (r in drawn) for r in after), default=0)
        if box in drawn:
            continue
        for reader in after:
            if reader not in drawn and depth[reader] == depth[box]:
                _join(stands, box, reader)
    return {box: _root(stands, box) for box in stands}


def _root(stands: dict[str, str], box: str) -> str:
    while stands[box] != box:
        stands[box] = stands[stands[box]]
        box = stands[box]
    return box


def _join(stands: dict[str, str], one: str, other: str) -> None:
    stands[_root(stands, one)] = _root(stands, other)


def _passages(
    members: Mapping[str, list[str]], edges: list[Edge], boxes: Mapping[str, Box]
) -> tuple[list[tuple[str, str, float, int]], list[Edge]]:
    """Groups that are no more than an edge, and the edges that are left."""
    before: dict[str, list[Edge]] = {}
    after: dict[str, list[Edge]] = {}
    for edge in edges:
        after.setdefault(edge[0], []).append(edge)
        before.setdefault(edge[1], []).append(edge)
    found = []
    gone: set[str] = set()
    for group, ops in members.items():
        into, out = before.get(group, []), after.get(group, [])
        outer = [end for edge in into for end in edge[:1]] + [end for edge in out for end in edge[1:2]]
        if len(into) != 1 or len(out) != 1 or any(end in members for end in outer):
            continue
        size = max(abs(into[0][2]), abs(out[0][2]))
        if abs(math.fsum(boxes[op].booked for op in ops)) <= SAME * size:
            found.append((into[0][0], out[0][1], into[0][2], len(ops)))
            gone.add(group)
    return found, [edge for edge in edges if edge[0] not in gone and edge[1] not in gone]
