"""From DOT to a file: with Graphviz's `dot` where it is on PATH, else with the copy that pygraphviz brings along."""

from __future__ import annotations

import importlib.util
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

from dlb_core.errors import DrawingError
from dlb_core.folder import new_file

log = logging.getLogger("dlb")

#: what a file's name may end in, and the format that it then has
FORMATS = {".png": "png", ".svg": "svg", ".pdf": "pdf"}
SOURCES = (".dot", ".gv")
SECONDS = 60.0  # a layout that takes longer is given up
PNG = "-Gdpi=144"  # twice the size on the screen, for sharp text

#: pygraphviz lays out in a process of its own: it can be stopped, and what fails in C does not end this one
_BUNDLED = """
import sys, pygraphviz
sys.stdin.reconfigure(encoding="utf-8")
graph = pygraphviz.AGraph(string=sys.stdin.read())
sys.stdout.buffer.write(graph.draw(format=sys.argv[1], prog="dot", args=sys.argv[2]))
"""


def check_suffix(path: str | os.PathLike[str]) -> Path:
    """The path of a drawing. Raises ValueError for an ending that nothing is drawn for."""
    path = Path(path)
    if path.suffix.lower() not in (*FORMATS, *SOURCES):
        known = ", ".join((*FORMATS, *SOURCES))
        raise ValueError(f"{path.name!r}: a drawing's name ends in one of {known}")
    return path


def save(dot: str, path: str | os.PathLike[str]) -> Path:
    """Writes a drawing, all of it or nothing, in the format that the name ends in.

    Without Graphviz the source is written beside (``graph.dot`` for ``graph.svg``) and `DrawingError` says how to
    draw it. Raises ValueError for another ending.
    """
    path = check_suffix(path)
    if path.suffix.lower() in SOURCES:
        with new_file(path) as work:
            work.write_text(dot, encoding="utf-8")
        return path
    try:
        picture = rendered(dot, FORMATS[path.suffix.lower()])
    except DrawingError as error:
        source = path.with_suffix(".dot")
        save(dot, source)
        raise DrawingError(
            f"{path.name} was not drawn: {error}. Its source is in {source}. To draw it, install Graphviz "
            f'(dot -T{FORMATS[path.suffix.lower()]} {source.name} -o {path.name}) or pip install "dlb-core[dot]"'
        ) from None
    with new_file(path) as work:
        work.write_bytes(picture)
    return path


def rendered(dot: str, format: str) -> bytes:
    """A drawing as "png", "svg" or "pdf". Raises `DrawingError` with what was tried."""
    arguments = [PNG] if format == "png" else []
    tried = []
    for name, command in _renderers(format, arguments):
        try:
            run = subprocess.run(command, input=dot.encode(), capture_output=True, timeout=SECONDS, check=False)
        except subprocess.TimeoutExpired:
            tried.append(f"{name} was given up after {SECONDS:.0f} s")
            continue
        except OSError as error:
            tried.append(f"{name} does not run ({error})")
            continue
        if run.returncode == 0 and run.stdout:
            return run.stdout
        said = run.stderr.decode(errors="replace").strip()
        log.debug("%s: %s", name, said)
        tried.append(f"{name} failed ({said.splitlines()[-1] if said else run.returncode})")
    raise DrawingError("; ".join(tried) or "neither Graphviz (dot) nor pygraphviz is here")


def _renderers(format: str, arguments: list[str]) -> list[tuple[str, list[str]]]:
    """The commands that draw, with their names; each reads DOT from its input and writes to its output."""
    found = []
    if dot := shutil.which("dot"):
        found.append(("dot", [dot, f"-T{format}", *arguments]))
    if sys.executable and importlib.util.find_spec("pygraphviz") is not None:
        # -P: what lies in the current folder is not imported in the place of what is installed
        found.append(("pygraphviz", [sys.executable, "-P", "-c", _BUNDLED, format, " ".join(arguments)]))
    return found
