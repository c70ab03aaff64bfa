"""`Drawing`: a graph as DOT, which a notebook shows and `save` writes to a file."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from dlb_core.viz.graph.render import rendered, save


@dataclass(frozen=True, repr=False)
class Drawing:
    """A graph that was drawn; `dot` is its source, which any Graphviz reads."""

    dot: str

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Writes it as what the name ends in: .png, .svg, .pdf, .dot or .gv. Returns the path.

        Without Graphviz the source is written beside, and `DrawingError` (a RuntimeError) says how to draw it.
        Raises ValueError for another ending.
        """
        return save(self.dot, path)

    def _repr_svg_(self) -> str:
        """What a notebook shows. Raises `DrawingError` where nothing can draw it."""
        return rendered(self.dot, "svg").decode()

    def __repr__(self) -> str:
        return f"Drawing({self.dot.count(' -> ')} edges; .save('graph.svg'), .dot)"
