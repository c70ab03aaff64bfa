"""The pictures that a `DLBacktrace` draws, and the graph that others draw from."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dlb_core.kernel.composites import Composite
from dlb_core.kernel.modes import Mode
from dlb_core.paths import Wrapped
from dlb_core.viz.generation import visualize_input_heatmap_for_token, visualize_tokenwise_relevance_map

if TYPE_CHECKING:
    import networkx as nx

    from dlb_core.engine import Engine, Start
    from dlb_core.kernel.composites import AnyMode
    from dlb_core.kernel.ledger import Ledger
    from dlb_core.kernel.plan import Plan
    from dlb_core.paths import Bound
    from dlb_core.relevance import Relevance
    from dlb_core.viz.graph.drawing import Drawing


@dataclass(frozen=True)
class Evaluated:
    """What is remembered of an evaluation: its books and the engine that it ran on, none of its tensors."""

    engine: Engine
    mode: AnyMode | Bound
    starts: tuple[Start, ...]
    name: str
    ledgers: tuple[Ledger, ...]
    difference: bool

    @classmethod
    def of(cls, engine: Engine, mode: AnyMode | Bound, starts: tuple[Start, ...], relevance: Relevance) -> Evaluated:
        """The books of a result."""
        return cls(engine, mode, starts, relevance.mode, relevance.ledgers, relevance.total is not None)

    def plan(self) -> Plan:
        """The plan that ran."""
        return self.engine.plans_of(self.mode, self.starts)[1]

    def ledger(self, target: int) -> Ledger:
        """The books of one of several targets. Raises ValueError."""
        if not 0 <= target < len(self.ledgers):
            raise ValueError(f"target={target}: choose from 0 .. {len(self.ledgers) - 1}")
        return self.ledgers[target]


class Drawn:
    """What a `DLBacktrace` draws; `graphviz` (the extra `viz`) writes DOT, Graphviz makes files of it."""

    _evaluated: Evaluated | None

    def graph(
        self: Any,
        mode: str | Mode | Composite | Wrapped | None = None,
        *,
        target: int = 0,
        modules: int | None = None,
        fold_layout: bool = False,
    ) -> nx.DiGraph:
        """The program as a NetworkX graph in topological order: op, kind, rule, pack, hyperparameters, shapes.

        mode: whose rules to show (default: those of the last evaluation, else of "default"). After an evaluation nodes
        carry `relevance` (units that entered; of an input, that arrived), `booked`, `residual`, `accounts`, edges
        `flow` (units), and the graph `evaluated` (the mode) and `seed`; of several targets, those of `target`. It is
        then the program that was evaluated. fold_layout: without ops that only lay out values anew, and those that
        reckon with sizes. modules: folds by module; 1 leaves the outermost modules as nodes (by their paths, with `ops`
        and edges summed), 2 opens those, and so on; one that is left and entered again lies on a cycle. Raises
        ValueError for a target or depth that is not there.
        """
        from dlb_core.graph_view import graph_view, with_relevance

        evaluated: Evaluated | None = self._evaluated
        engine: Engine = evaluated.engine if evaluated else self._engine
        if mode is None and evaluated:
            plan = evaluated.plan()
        else:
            bound = self._mode("default" if mode is None else mode, None, {})
            plan = engine.plans_of(bound, engine.starts(None, None, None))[1]
        view = graph_view(engine.layout, engine.registry, plan)
        ledger = evaluated.ledger(target) if evaluated else None
        if target and not evaluated:
            raise ValueError(f"target={target}: nothing was evaluated")
        if evaluated and ledger and ledger.by_node:
            with_relevance(view, ledger)
            view.graph |= {"evaluated": evaluated.name, "seed": ledger.seed}
        if modules is None and not fold_layout:
            return view
        from dlb_core.viz.graph.network import folded_view

        return folded_view(view, modules, fold_layout)

    def visualize(
        self: Any,
        path: str | os.PathLike[str] | None = None,
        *,
        depth: int | None = None,
        module: str | None = None,
        direction: str = "TB",
        labels: str = "full",
        fold_layout: bool = True,
    ) -> Drawing:
        """The architecture, folded by module: boxes are ops and modules, frames are modules that are opened.

        path: a file to write, .png, .svg, .pdf, .dot or .gv. depth: 1 draws the outermost modules as boxes,
        2 opens those, and so on (default: as deep as can be read at a glance). module: draws this one. direction: "TB"
        (top to bottom), "BT", "LR" or "RL". labels: "short" (names), "full" (op and shape too), "nodes" (full, under
        the names of `graph()`). fold_layout: without ops that only lay out values anew, and those that reckon with
        sizes. What carries no relevance is dashed. Raises ValueError for what is unknown, ImportError without the
        package graphviz, `DrawingError` (a RuntimeError) where nothing can draw: the source is then beside `path`.
        """
        from dlb_core.viz.graph.architecture import draw_architecture
        from dlb_core.viz.graph.render import check_suffix

        if path is not None:
            check_suffix(path)
        drawing = draw_architecture(
            self.graph(), module=module, depth=depth, direction=direction, labels=labels, fold_layout=fold_layout
        )
        if path is not None:
            drawing.save(path)
        return drawing

    def visualize_dlbacktrace(
        self: Any,
        top_k: int = 15,
        path: str | os.PathLike[str] | None = None,
        *,
        target: int = 0,
        direction: str = "TB",
        labels: str = "full",
        fold_layout: bool = True,
    ) -> Drawing:
        """The `top_k` nodes that the last evaluation gave most relevance, and the ways between them.

        Nodes are coloured by their units (blue below zero, white at zero, red above), edges are as wide as what flowed
        along them; inputs and output are always there. Of nodes with equal units those that share them out come before
        those that hand them on, later ones before earlier. What lies between chosen nodes is a dashed edge that counts
        its ops, or a dashed box where more than two ends meet; all units are sums of the ledger. target: which of
        several; a contrastive mode shows the difference of its two maps. path, direction, labels, fold_layout: see
        `visualize`. Raises RuntimeError before any evaluation and after one that recorded no nodes, ValueError for
        what is out of range.
        """
        from dlb_core.viz.graph.render import check_suffix
        from dlb_core.viz.graph.strongest import draw_strongest

        if path is not None:
            check_suffix(path)
        evaluated: Evaluated | None = self._evaluated
        if evaluated is None:
            raise RuntimeError("there is no relevance to draw: call predict(...) and evaluation(...) first")
        ledger = evaluated.ledger(target)
        if not ledger.by_node:
            raise RuntimeError(
                f'check="{self.check}" recorded nothing by node: use DLBacktrace(..., check="raise") or check="warn", '
                "then predict and evaluate again"
            )
        title = f"relevance by node, mode {evaluated.name}"
        title += " (for the target less against it)" if evaluated.difference else ""
        title += f", target {target + 1} of {len(evaluated.ledgers)}" if len(evaluated.ledgers) > 1 else ""
        drawing = draw_strongest(
            ledger, title=title, top_k=top_k, direction=direction, labels=labels, fold_layout=fold_layout
        )
        if path is not None:
            drawing.save(path)
        return drawing

    #: of generated text; they read a trace, whoever wrote it
    visualize_tokenwise_relevance_map = staticmethod(visualize_tokenwise_relevance_map)
    visualize_input_heatmap_for_token = staticmethod(visualize_input_heatmap_for_token)
