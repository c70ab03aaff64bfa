"""What a page needs to show the drill-down graph: one script and one style sheet, read from the files beside this."""

from __future__ import annotations

from pathlib import Path

_HERE = Path(__file__).parent

#: The parts of the script; they share one scope, so that `dlbGraph` is all the page sees of them.
PARTS = ("words", "layout", "rows", "boxes", "canvas", "panel", "search")


def graph_script() -> str:
    """A classic script with two globals: `dagre`, with its licence, and `dlbGraph(container, document)`."""
    parts = "\n".join(_read(f"{name}.js") for name in (*(f"graph_{part}" for part in PARTS), "graph"))
    own = f'(() => {{\n"use strict";\n{parts}\nglobalThis.dlbGraph = dlbGraph;\n}})();\n'
    return f"{_read('vendor/dagre.min.js.LEGAL.txt')}\n{_dagre()}\n{own}"


def graph_style() -> str:
    """The style sheet; it takes --paper, --ink, --line and --accent from the page, if it has them."""
    return _read("graph.css")


def _dagre() -> str:
    """The layout library without its last line, which would have a browser's inspector look for another file."""
    script, _, _ = _read("vendor/dagre.min.js").rpartition("//# sourceMappingURL=")
    return script


def _read(name: str) -> str:
    return (_HERE / name).read_text(encoding="utf-8")
