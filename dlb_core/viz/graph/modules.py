"""Folding by module: what is drawn of a program, level by level, so that nobody meets 1,000 ops at once.

A level is what lies directly in one module: ops and further modules, each a box. What only lays out values is folded
into the edges, a module around a single box is no level of its own, and what an edge leads to outside a level stands
for itself where it can be seen from there: the largest box around it that does not hold the level.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from dlb_core.kernel.ledger import Ledger
from dlb_core.viz.graph.flow import Flow, Op, of_ledger, short_name
from dlb_core.viz.graph.tree import OUTPUT, Edge, Tree

__all__ = ["OUTPUT", "Box", "Edge", "Level", "Levels", "folded", "levels", "summed"]


@dataclass(frozen=True)
class Box:
    """One thing that is drawn: an op, a module, an input, or the output, where relevance starts.

    id: of an op its node's name, ``m:<path>``, ``i:<name>`` or ``o:output``. label: its path below the module it is
    drawn in, an op's short name, an input's name. path: of the module, or of the one around an op. into, out, booked:
    units; what enters a box leaves it or is booked in it, the residual is rounding. accounts: units by account. folded:
    the names of layout ops that are not drawn: those behind this op or input, or anywhere in this module. ops: how
    many a module holds, these included. active: does relevance pass it?
    """

    id: str
    label: str
    kind: str
    path: str = ""
    op: str = ""
    rule: str = ""
    pack: str = ""
    shape: tuple[Any, ...] = ()
    into: float = 0.0
    out: float = 0.0
    booked: float = 0.0
    residual: float = 0.0
    accounts: Mapping[str, float] = field(default_factory=dict)
    folded: tuple[str, ...] = ()
    ops: int = 1
    active: bool = True

    @property
    def short(self) -> str:
        """The op without its namespace and overload: ``linear`` of ``aten::linear.default``."""
        return short_name(self.op)


@dataclass(frozen=True)
class Level:
    """What lies directly in a module, in execution order; `ports` are the boxes outside that edges lead to.

    edges: (from, to, units) from a value to its reader, summed over what they fold; units carry signs.
    """

    path: str
    boxes: tuple[str, ...]
    ports: tuple[str, ...]
    edges: tuple[Edge, ...]


@dataclass(frozen=True)
class Levels:
    """A program by level: module path -> `Level` (the whole model under the empty path), and all boxes by id.

    Boxes of ops are in execution order. edges: between boxes that are no modules. inside: box -> path of the level it
    is drawn in. shown: every module path -> the id of the box that stands for it.
    """

    levels: Mapping[str, Level]
    boxes: Mapping[str, Box]
    edges: tuple[Edge, ...]
    inside: Mapping[str, str]
    shown: Mapping[str, str]

    def around(self, path: str) -> list[str]:
        """The paths of the levels around a level, itself included, outermost first."""
        found = [path]
        while found[-1]:
            found.append(self.inside[f"m:{found[-1]}"])
        return found[::-1]


def levels(ledger: Ledger, *, fold: bool = True, shapes: Mapping[str, tuple[Any, ...]] | None = None) -> Levels:
    """What a ledger recorded, by level; what enters a module leaves it or is booked in it, as in `Ledger.by_module`.

    fold: layout ops vanish into the edges. shapes: of the inputs by name, where they are known.
    """
    return folded(of_ledger(ledger, shapes), fold=fold)


def folded(flow: Flow, *, fold: bool = True) -> Levels:
    """The levels of a flow."""
    tree = Tree(flow, fold)
    boxes = _boxes(flow, tree)
    plain = summed(tree.edges())
    edges: dict[str, dict[tuple[str, str], float]] = {path: {} for path in tree.content}
    for source, reader, units in plain:
        _draw(source, reader, units, tree.around(source), tree.around(reader), edges)
    found = {path: _level(path, [*tree.content[path]], edges[path]) for path in tree.content}
    return Levels(found, boxes, plain, tree.inside, tree.shown)


def summed(edges: Iterable[Edge]) -> tuple[Edge, ...]:
    """The same edges, those between the same two boxes as one."""
    found: dict[tuple[str, str], float] = {}
    for source, reader, units in edges:
        found[source, reader] = found.get((source, reader), 0.0) + units
    return tuple((source, reader, units) for (source, reader), units in found.items())


def _draw(
    source: str,
    reader: str,
    units: float,
    left: Sequence[str],
    right: Sequence[str],
    edges: dict[str, dict[tuple[str, str], float]],
) -> None:
    """Adds an edge to each level that sees one of its ends; left, right: the levels around them, outermost first."""
    common = sum(1 for a, b in zip(left, right, strict=False) if a == b)  # paths: once apart they stay apart
    seen_left, seen_right = _seen(source, left, common), _seen(reader, right, common)
    ends = {left[common - 1]: (seen_left, seen_right)}
    ends |= {left[i]: (_seen(source, left, i + 1), seen_right) for i in range(common, len(left))}
    ends |= {right[i]: (seen_left, _seen(reader, right, i + 1)) for i in range(common, len(right))}
    for path, pair in ends.items():
        edges[path][pair] = edges[path].get(pair, 0.0) + units


def _seen(box: str, around: Sequence[str], depth: int) -> str:
    """What stands for a box in the level that is `depth` deep around it."""
    return f"m:{around[depth]}" if depth < len(around) else box


def _level(path: str, boxes: Sequence[str], edges: Mapping[tuple[str, str], float]) -> Level:
    own = set(boxes)
    ports = dict.fromkeys(end for pair in edges for end in pair if end not in own)
    return Level(path, tuple(boxes), tuple(ports), tuple((a, b, units) for (a, b), units in edges.items()))


def _boxes(flow: Flow, tree: Tree) -> dict[str, Box]:
    boxes = {OUTPUT: Box(OUTPUT, "output", "output", into=flow.seed, out=flow.seed)}
    for name, units in flow.inputs.items():
        made = Box(f"i:{name}", name, "input", into=units, out=units, shape=flow.shapes.get(name, ()))
        boxes[made.id] = replace(made, active=name not in flow.idle)
    within: dict[str, list[Op]] = {path: [] for path in tree.content if path}
    behind: dict[str, list[str]] = {}
    for op in flow.ops.values():
        for path in tree.of(op.name):
            within[path].append(op)
        if tree.stands[op.name] == op.name:
            boxes[op.name] = _op_box(op, tree.inside[op.name])
        else:
            behind.setdefault(tree.stands[op.name], []).append(op.name)
    for box, names in behind.items():
        boxes[box] = replace(boxes[box], folded=tuple(names))
    into, out = _crossing(flow, tree)
    for path, ops in within.items():
        hidden = [op.name for op in ops if tree.stands[op.name] != op.name]
        boxes[f"m:{path}"] = _module_box(path, tree.inside[f"m:{path}"], ops, hidden, into[path], out[path])
    return boxes


def _op_box(op: Op, level: str) -> Box:
    path = op.modules[-1] if op.modules else ""
    return Box(
        id=op.name,
        label=_below(path, level) or short_name(op.op),
        kind="op",
        path=path,
        op=op.op,
        rule=op.kind,
        pack=op.pack,
        shape=op.shape,
        into=op.into,
        out=op.out,
        booked=op.booked,
        residual=op.residual,
        accounts=op.accounts,
        active=op.active,
    )


def _module_box(path: str, level: str, ops: Sequence[Op], hidden: Sequence[str], into: float, out: float) -> Box:
    accounts: dict[str, float] = {}
    for op in ops:
        for name, units in op.accounts.items():
            accounts[name] = accounts.get(name, 0.0) + units
    booked = math.fsum(op.booked for op in ops)
    return Box(
        id=f"m:{path}",
        label=_below(path, level),
        kind="module",
        path=path,
        shape=ops[-1].shape,
        into=into,
        out=out,
        booked=booked,
        residual=into - out - booked,
        accounts=accounts,
        folded=tuple(hidden),
        ops=len(ops),
        active=any(op.active for op in ops),
    )


def _below(path: str, level: str) -> str:
    """A module's path as it is read inside another: ``layer.0`` of ``encoder.layer.0`` in ``encoder``.

    A number alone says little: the ``0`` in ``encoder.layer`` is ``layer.0`` as well.
    """
    if path == level or not level:
        return "" if path == level else path
    outer = level.partition("@")[0]
    below = path.removeprefix(f"{outer}.")
    return f"{outer.rpartition('.')[2]}.{below}" if below[:1].isdigit() else below


def _crossing(flow: Flow, tree: Tree) -> tuple[dict[str, float], dict[str, float]]:
    """Units that entered each module from outside it, and units that left it."""
    into, out = (dict.fromkeys(tree.content, 0.0) for _ in range(2))
    around = {name: tree.of(name) for name in (*flow.ops, *flow.inputs)}
    for name, units in flow.ends.items():
        for path in around[name]:
            into[path] += units
    for (source, reader), units in flow.edges.items():
        left, right = around[source], around[reader]
        common = sum(1 for a, b in zip(left, right, strict=False) if a == b)
        for path in right[common:]:
            out[path] += units
        for path in left[common:]:
            into[path] += units
    return into, out
