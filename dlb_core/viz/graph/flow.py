"""What flows between ops: nodes, edges and units, read off a ledger; what only rearranges values is marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from dlb_core.kernel.ledger import Ledger, NodeEntry

if TYPE_CHECKING:
    import networkx as nx


@dataclass(frozen=True)
class Op:
    """One node: what it is, the modules around it (outermost first), and its books.

    layout: it hands on all that it reads, in another order or shape, and nothing else.
    """

    name: str
    op: str
    modules: tuple[str, ...]
    kind: str
    pack: str
    shape: tuple[Any, ...]
    into: float = 0.0
    out: float = 0.0
    residual: float = 0.0
    accounts: Mapping[str, float] = field(default_factory=dict)
    layout: bool = False
    active: bool = True

    @property
    def booked(self) -> float:
        """Units that went into accounts here."""
        return math.fsum(self.accounts.values())


@dataclass(frozen=True)
class Flow:
    """Ops and inputs in execution order, the edges between them (from a value to its reader), and the ends.

    edges: units that came back along each. inputs: units that arrived. shapes: of inputs, where they are known. ends:
    where relevance started, units by name; without relevance the nodes that are outputs. seed: units in all. idle:
    inputs that no relevance can come to.
    """

    ops: Mapping[str, Op]
    edges: Mapping[tuple[str, str], float]
    inputs: Mapping[str, float]
    ends: Mapping[str, float]
    shapes: Mapping[str, tuple[Any, ...]] = field(default_factory=dict)
    seed: float = 0.0
    idle: frozenset[str] = frozenset()


def of_ledger(ledger: Ledger, shapes: Mapping[str, tuple[Any, ...]] | None = None) -> Flow:
    """The active graph: what relevance passed on its way; edges run forward, though units went back along them.

    shapes: of the inputs, by name. Of a ledger without books by node only the ends are left.
    """
    shapes = dict(shapes or {})
    known = {**shapes, **{name: entry.shape for name, entry in ledger.by_node.items()}}
    entries = [*ledger.by_node.values()][::-1]  # relevance met the last op first
    ops = {entry.name: _op(entry, known) for entry in entries}
    edges = {(source, entry.name): units for entry in entries for source, units in entry.edges.items()}
    ends = ledger.seeded if ops else {}
    beyond = dict.fromkeys((name for name in (*ends, *(source for source, _ in edges)) if name not in ops), 0.0)
    return Flow(ops, edges, {**beyond, **ledger.inputs}, ends, shapes, ledger.seed)


def of_program(view: nx.DiGraph, *, sizes: bool = True) -> Flow:
    """The whole program, as `dlb.graph()` gives it, with units where there are any.

    sizes: with the ops that only read sizes and reckon with them.
    """
    nodes: dict[str, Mapping[str, Any]] = {
        name: data for name, data in view.nodes(data=True) if sizes or data["dtype"] is not None
    }
    ops = {name: _node(view, name, data) for name, data in nodes.items() if data["op"] != "input"}
    inputs = {name: data for name, data in nodes.items() if data["op"] == "input"}
    return Flow(
        ops=ops,
        edges={(a, b): u for a, b, u in view.edges(data="flow", default=0.0) if a in nodes and b in nodes},
        inputs={name: data.get("relevance", 0.0) for name, data in inputs.items()},
        ends={name: 0.0 for name, data in nodes.items() if data["output"]},
        shapes={name: _tuples(data["shape"]) for name, data in inputs.items()},
        idle=frozenset(name for name, data in inputs.items() if not data["active"]),
    )


def _node(view: nx.DiGraph, name: str, data: Mapping[str, Any]) -> Op:
    shape, relevance = _tuples(data["shape"]), data.get("relevance", 0.0)
    booked, residual = data.get("booked", 0.0), data.get("residual", 0.0)
    sources = [view.nodes[n] for n in view.predecessors(name)]
    tensors = [_tuples(source["shape"]) for source in sources if source["dtype"] is not None]
    return Op(
        name=name,
        op=data["op"],
        modules=data["modules"],
        kind=data["kind"],
        pack=data["pack"] or "",
        shape=shape,
        into=relevance,
        out=relevance - booked - residual,
        residual=residual,
        accounts=data.get("accounts", {}),
        # what reads a parameter or books units does more than lay out: it fills, masks, or chooses
        layout=not data["parameters"]
        and abs(booked) <= 1e-5 * abs(relevance)
        and only_lays_out(data["kind"], shape, tensors),
        active=data["active"],
    )


def _tuples(shape: Any) -> tuple[Any, ...]:
    return tuple(_tuples(part) if isinstance(part, (tuple, list)) else part for part in shape or ())


def _op(entry: NodeEntry, shapes: Mapping[str, tuple[Any, ...]]) -> Op:
    return Op(
        name=entry.name,
        op=entry.op,
        modules=entry.modules,
        kind=entry.rule,
        pack=entry.pack,
        shape=entry.shape,
        into=entry.into,
        out=entry.out,
        residual=entry.residual,
        accounts=entry.accounts,
        layout=_hands_on_all(entry) and only_lays_out(entry.rule, entry.shape, [shapes.get(n) for n in entry.edges]),
    )


def _hands_on_all(entry: NodeEntry) -> bool:
    allowed = entry.tolerance * entry.scale
    return abs(entry.into - entry.out) <= allowed and all(abs(u) <= allowed for u in entry.accounts.values())


def short_name(op: str) -> str:
    """An op without its namespace and overload: ``linear`` of ``aten::linear.default``."""
    return op.rpartition("::")[2].removeprefix("operator.").partition(".")[0] or op


def only_lays_out(kind: str, shape: tuple[Any, ...], sources: Sequence[tuple[Any, ...] | None]) -> bool:
    """Is a node a move of one source that keeps all its elements (views, transposes, copies, splits)?

    The item of a split counts as well. What takes a part or repeats (a slice, a pool, an expand) does not. A source
    whose shape is not known is taken to be of the same size.
    """
    if kind != "move" or len(sources) != 1:
        return False
    (source,) = sources
    if source is None:
        return True
    return _size(shape) == _size(source) or (_several(source) and shape in source)


def _several(shape: tuple[Any, ...]) -> bool:
    return bool(shape) and isinstance(shape[0], tuple)


def _size(shape: tuple[Any, ...]) -> Any:
    """How many elements a shape has: a number and the symbols it is multiplied with; of several values all of them."""
    if _several(shape):
        return _added([_size(part) for part in shape])
    number, symbols = 1, []
    for size in shape:
        for factor in str(size).split("*"):
            if factor.isdigit():
                number *= int(factor)
            else:
                symbols.append(factor)
    return number, tuple(sorted(symbols))


def _added(sizes: list[Any]) -> Any:
    numbers, symbols = zip(*sizes, strict=True)
    return (sum(numbers), symbols[0]) if len(set(symbols)) == 1 else sizes
