"""Which box lies in which module: the tree of modules, after what is not drawn is gone."""

from __future__ import annotations

from collections.abc import Iterable

from dlb_core.viz.graph.flow import Flow, Op

OUTPUT = "o:output"
Edge = tuple[str, str, float]  # from, to, units


class Tree:
    """The boxes of a flow by module.

    stands: every op and input -> the box that it is drawn as. content: the path of a level -> its boxes, in execution
    order. inside: box -> the path of its level. shown: module path -> the box that stands for it.
    """

    def __init__(self, flow: Flow, fold: bool) -> None:
        self.flow = flow
        self.stands = _stands(flow, fold)
        self.parent: dict[str, str] = {}  # module -> the one around it, as first met
        for op in flow.ops.values():
            around = ""
            for path in op.modules:
                self.parent.setdefault(path, around)
                around = path
        self.content: dict[str, dict[str, None]] = {path: {} for path in ("", *self.parent)}
        self.content[""] = {f"i:{name}": None for name in flow.inputs}
        for op in flow.ops.values():
            self._enter(op)
        self.content[""][OUTPUT] = None
        self.shown: dict[str, str] = {}
        for path in [*self.parent][::-1]:  # children were met after their parents
            self._settle(path)
        self.inside = {box: path for path, content in self.content.items() for box in content}
        self._around: dict[str, list[str]] = {"": [""]}

    def around(self, box: str) -> list[str]:
        """The levels around a box, outermost first."""
        return self._levels(self.inside[box])

    def of(self, name: str) -> list[str]:
        """The modules around a node that are drawn, outermost first, whether the node is drawn or not."""
        op = self.flow.ops.get(name)
        path = op.modules[-1] if op is not None and op.modules else ""
        found = []
        while path:
            if path in self.content:
                found.append(path)
            path = self.parent[path]
        return found[::-1]

    def edges(self) -> Iterable[Edge]:
        """Edges between the boxes of ops, inputs and the output."""
        for (source, reader), units in self.flow.edges.items():
            if self.stands[reader] == reader:
                yield self.stands[source], reader, units
        for name, units in self.flow.ends.items():
            yield self.stands[name], OUTPUT, units

    def _levels(self, path: str) -> list[str]:
        if path not in self._around:
            self._around[path] = [*self._levels(self.inside[f"m:{path}"]), path]
        return self._around[path]

    def _enter(self, op: Op) -> None:
        path = op.modules[-1] if op.modules else ""
        if self.stands[op.name] == op.name:
            self.content[path][op.name] = None
        while path:  # also of what is not drawn: a module stands where its first op ran
            self.content[self.parent[path]].setdefault(f"m:{path}")
            path = self.parent[path]

    def _settle(self, path: str) -> None:
        """A module of which nothing is drawn goes; one around a single box gives way to it."""
        content = self.content[path]
        if len(content) > 1:
            self.shown[path] = f"m:{path}"
            return
        del self.content[path]
        outer, own = self.content[self.parent[path]], f"m:{path}"
        self.content[self.parent[path]] = {inner: None for box in outer for inner in (content if box == own else [box])}
        self.shown.update(dict.fromkeys([path], next(iter(content))) if content else {})


def _stands(flow: Flow, fold: bool) -> dict[str, str]:
    """Which box each input and op is drawn as: a layout op as what it reads."""
    stands = {name: f"i:{name}" for name in flow.inputs}
    reads = {reader: source for source, reader in flow.edges} if fold else {}
    for op in flow.ops.values():
        stands[op.name] = stands[reads[op.name]] if fold and op.layout and op.name in reads else op.name
    return stands
