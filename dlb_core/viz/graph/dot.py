"""DOT: how boxes and edges are written, and that a name in them is never more than a name."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

import torch

from dlb_core.choices import choose
from dlb_core.viz.colour import colours

if TYPE_CHECKING:
    import graphviz

    from dlb_core.viz.graph.modules import Box

DIRECTIONS = ("TB", "BT", "LR", "RL")
#: what stands in a box: its name alone; its op, shape and units too; or all of that under the key that results have
LABELS = ("short", "full", "nodes")
INK, FAINT, LINE, PALE, PAPER = "#1f2933", "#66727f", "#9aa5b1", "#c3cad2", "#ffffff"
FONT = "Helvetica,Arial,sans-serif"
READ = 4.5  # the contrast that text needs, as the web's guidelines reckon it
WIDEST = 4.5  # points, of the edge that carries most
STRONGEST = 0.7  # how far up the scale of colours the strongest node lies: its name stays easy to read
LONGEST = 36  # characters of a name; the tooltip has all of it


def check_options(direction: str, labels: str) -> None:
    """Raises ValueError for what is unknown, ImportError without the package that writes DOT."""
    choose("direction", direction, DIRECTIONS)
    choose("labels", labels, LABELS)
    try:
        import graphviz  # noqa: F401
    except ImportError as error:
        raise ImportError('graphviz is missing: pip install "dlb-core[viz]"') from error


def new_graph(direction: str, title: str = "", note: str = "") -> graphviz.Digraph:
    """An empty drawing."""
    import graphviz

    graph = graphviz.Digraph(
        graph_attr={"rankdir": direction, "fontname": FONT, "bgcolor": PAPER, "nodesep": "0.28", "ranksep": "0.36"},
        node_attr={
            "shape": "box",
            "style": "rounded,filled",
            "fontname": FONT,
            "fontsize": "11",
            "fontcolor": INK,
            "color": LINE,
            "fillcolor": PAPER,
            "margin": "0.14,0.07",
            "height": "0.3",
            "penwidth": "0.9",
        },
        edge_attr={"fontname": FONT, "fontsize": "9", "fontcolor": FAINT, "color": LINE, "arrowsize": "0.55"},
    )
    if title:
        graph.attr(label=lines(title, [note]), labelloc="t", labeljust="l", fontcolor=INK)
        graph.attr(fontsize="13", pad="0.2")
    return graph


def lines(strong: str, faint: Sequence[str] = (), colour: str = FAINT, *, apart: str = "<BR/>") -> str:
    """A label: a name in bold, below it smaller lines. What they hold is shown as it is, markup and escapes too."""
    # blanks of the full size keep the small lines apart from what is above them
    small = [f"&#160;{_small(line, colour)}&#160;" for line in faint if line]
    return f"<{apart.join([f'<B>{text(strong)}</B>', *small])}>"


def aside(line: str, points: float = 0.0) -> str:
    """A small label; beside an edge, off the line that is so many points wide."""
    return f"<{'&#160;' * round((points + 2) / 2 if points else 0)}{_small(line, FAINT)}>"


def _small(line: str, colour: str) -> str:
    return f'<FONT POINT-SIZE="9" COLOR="{colour}">{text(line)}</FONT>'


def name_of(box: Box, name: str, labels: str) -> str:
    """What a box is called: `name`, its op where that is a bare number, or the key that results have for it."""
    if labels == "nodes" and box.kind in ("op", "module"):
        return box.path if box.kind == "module" else box.id
    return box.short if name.isdigit() and box.op else name


def beside(box: Box, name: str) -> str:
    """What to say of an op beside its name: which op it is, or where it lies if its name says the first."""
    if name != box.short:
        return box.short
    return box.path if box.path.isdigit() else ""


def text(value: str) -> str:
    r"""Text for a label like HTML: markup, entities and DOT's own escapes (``\N``) are only characters in it.

    What is no character on paper (a line break, a bell) is written as Python would.
    """
    return html.escape(_visible(value) or " ").replace("\\", "\\\\")


def plain(value: str) -> Any:
    """Text for a tooltip, which is no HTML; entities and escapes are only characters in it as well."""
    import graphviz

    # a node's tooltip is searched for \\N after its escapes were read: a joiner, which has no width, keeps them apart
    return graphviz.nohtml(_visible(value).replace("&", "&amp;").replace("\\", "\\\\\u2060"))


def _visible(value: str) -> str:
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in value)


def shortened(name: str) -> str:
    """A name that is not too wide: of a long one the end, which tells more, from a dot on where there is one."""
    if len(name) <= LONGEST:
        return name
    end = name[1 - LONGEST :]
    return f"…{end.partition('.')[2] or end}"


def units_text(units: float, whole: float = 0.0) -> str:
    """Units with three digits; what is nothing beside a whole (rounding) is 0."""
    value = 0.0 if abs(units) <= 1e-6 * whole else float(f"{units:.3g}")
    if value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.2e}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value or 0:g}"


def shape_text(shape: Sequence[Any], names: dict[str, str] | None = None) -> str:
    """A shape as ``[1, 12, 32]``; of several values the shape of each; sizes that may change by their names."""
    if not shape:
        return ""
    if isinstance(shape[0], tuple):
        return ", ".join(shape_text(part, names) for part in shape[:3]) + (", …" if len(shape) > 3 else "")
    known = names or {}
    sizes = (re.sub(r"\b[su]\d+\b", lambda found: known.get(found[0], found[0]), str(size)) for size in shape)
    return f"[{', '.join(sizes)}]"


def size_names(shapes: Iterable[Sequence[Any]]) -> dict[str, str]:
    """Names for sizes that may change, by the inputs that have them: B for the first one, T, U, ... for others."""
    found: dict[str, str] = {}
    spare = iter("TUVWXYZKLMN")
    for shape in shapes:
        for dim, size in enumerate(shape):
            if isinstance(size, str) and size not in found:
                found[size] = "B" if dim == 0 else next(spare, size)
    return found


def fills(units: Sequence[float]) -> list[tuple[str, str]]:
    """For each number the colour of the scale, white at zero, and that of text which can be read on it."""
    limit = max(map(abs, units), default=0.0) / STRONGEST
    painted = colours(torch.tensor([[*units]], dtype=torch.float64), limit)[0]
    return [(_hex(rgb), _ink(rgb)) for rgb in painted.tolist()]


def width(units: float, largest: float) -> float:
    """The width of an edge, in points."""
    return 0.7 + (WIDEST - 0.7) * min(abs(units) / (largest or 1.0), 1.0)


def _hex(rgb: Sequence[int]) -> str:
    return "#" + "".join(f"{part:02x}" for part in rgb)


def _ink(rgb: Sequence[int]) -> str:
    """The first colour of text that can be read on a fill; black or white always can."""
    return next((ink for ink in (INK, PAPER) if _contrast(rgb, ink) >= READ), "#000000")


def _contrast(rgb: Sequence[int], ink: str) -> float:
    """How well text can be read, from 1 to 21."""
    one, other = _light(rgb), _light(bytes.fromhex(ink[1:]))
    return (max(one, other) + 0.05) / (min(one, other) + 0.05)


def _light(rgb: Sequence[int]) -> float:
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in (part / 255 for part in rgb)]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
