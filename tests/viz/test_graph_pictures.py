"""Pictures of programs: which nodes they show, what their edges say, and that names stay names."""

from __future__ import annotations

import html
import importlib.util
import re
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path
from typing import Any

import networkx as nx
import pytest

from dlb_core import DLBacktrace, Ledger
from dlb_core.viz.graph import dot
from dlb_core.viz.graph.cut import READABLE, cut
from dlb_core.viz.graph.drawing import Drawing
from dlb_core.viz.graph.modules import OUTPUT, levels
from dlb_core.viz.graph.render import rendered
from dlb_core.viz.graph.strongest import draw_strongest
from dlb_core.viz.graph.ways import ways
from viz.graphs import books, drawn_by_lot, entry, evaluated, example, model

ABOUT: dict[str, Any] = {"title": "", "top_k": 9, "direction": "TB", "labels": "full", "fold_layout": True}
NASTY = ['say "hi"', "back\\slash\\N\\", "<b>bold</b>", "a|{b}|c", "&lt;&amp;&#65;", "two\nlines"]
NASTY += ["<script>x()</script>", "]]><b/>", "\\G\\\\E\\l"]
drawn = pytest.mark.skipif(importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed")


@pytest.fixture
def dlb() -> DLBacktrace:
    return evaluated()


def names(drawing: Drawing) -> list[str]:
    """The names in bold: of boxes, frames and the picture."""
    return [html.unescape(name).split("   ")[0] for name in re.findall(r"<B>(.*?)</B>", drawing.dot)]


# --- the architecture ---------------------------------------------------------------------------------------------


def test_the_architecture_opens_as_many_modules_as_can_be_read(dlb: DLBacktrace) -> None:
    drawing = dlb.visualize()
    assert {"left", "right", "stack", "head", "output", "blocks.0", "branch", "branch.0"} <= {*names(drawing)}
    assert "view" not in names(drawing)
    assert names(drawing).count("branch") == drawing.dot.count("subgraph") / 2 == 2


def test_depth_decides_how_deep(dlb: DLBacktrace) -> None:
    assert names(dlb.visualize(depth=1)) == ["left", "right", "blocks.0", "blocks.1", "stack", "head", "output"]
    assert names(dlb.visualize(depth=2)).count("branch") == 2
    assert "subgraph" not in dlb.visualize(depth=1).dot
    assert dlb.visualize(depth=9).dot == dlb.visualize(depth=3).dot


def test_a_module_is_drawn_with_what_is_around_it(dlb: DLBacktrace) -> None:
    drawing = dlb.visualize(module="blocks.1", depth=1)
    assert names(drawing) == ["blocks.1", "branch", "add", "inner.0.0", "blocks.0", "stack"]  # the title first
    assert drawing.dot.count(" -> ") == 5


def test_the_default_depth_stays_readable() -> None:
    def block(i: int, source: str) -> list[Any]:
        path = ("net", f"net.block.{i}")
        return [entry(f"n{i}.{j}", {f"n{i}.{j - 1}" if j else source: 1.0}, modules=path) for j in (2, 1, 0)]

    nodes = [node for i in range(30, -1, -1) for node in block(i, f"n{i - 1}.2" if i else "x")]
    found = levels(books([entry("head", {"n30.2": 1.0}), *nodes], {"x": 1.0}, {"head": 1.0}))
    seen = cut(found)
    assert len(seen.boxes) == 34 <= READABLE  # the blocks are closed: open, there would be 96
    assert seen.opened == ("net",)
    assert len(cut(found, depth=3).boxes) == 96
    assert all(a != b for a, b, _ in seen.edges)


def test_what_carries_no_relevance_is_dashed(dlb: DLBacktrace) -> None:
    view = dlb.graph()
    one = DLBacktrace(model(), example(), explain_inputs=["left"], tracer="tape")
    assert "dashed" not in dlb.visualize().dot
    assert not one.graph().nodes["right"]["active"]
    assert one.visualize().dot.count("rounded,filled,dashed") == 1
    assert view.nodes["right"]["active"]


@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        ({"depth": 0}, "depth=0: must be 1 or more"),
        ({"module": "blocks.2"}, "no module of this model that runs an op; did you mean"),
        ({"module": "head"}, r"holds one op, 'linear_\w+'"),
        ({"direction": "up"}, "choose one of 'TB', 'BT', 'LR', 'RL'"),
        ({"labels": "all"}, "choose one of 'short', 'full', 'nodes'"),
        ({"path": "graph.jpg"}, r"ends in one of \.png, \.svg, \.pdf, \.dot, \.gv"),
    ],
)
def test_what_is_unknown_is_refused(dlb: DLBacktrace, wrong: dict[str, Any], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        dlb.visualize(**wrong)


def test_labels_and_direction(dlb: DLBacktrace) -> None:
    short, whole = dlb.visualize(labels="short", direction="LR"), dlb.visualize(labels="nodes")
    assert "rankdir=LR" in short.dot
    assert "POINT-SIZE" not in short.dot
    assert {"blocks.0.branch", "blocks.1"} <= {*names(whole)}
    assert {*names(whole)} - {*dlb.graph()} == {"blocks.0", "blocks.0.branch", "blocks.1", "blocks.1.branch", "output"}
    unfolded = names(dlb.visualize(depth=9, labels="nodes", fold_layout=False))
    assert {*dlb.graph()} <= {*unfolded}


# --- the strongest nodes ------------------------------------------------------------------------------------------


def test_the_strongest_nodes_with_inputs_and_output(dlb: DLBacktrace) -> None:
    ledger: Ledger = dlb._evaluated.ledgers[0]
    chosen = ways(levels(ledger), 3)
    ranked = sorted(ledger.by_node.values(), key=lambda e: -abs(e.into))
    kept = [e.name for e in ranked if e.name in levels(ledger).boxes][:3]
    assert {*chosen.boxes} == {"i:left", "i:right", OUTPUT, *kept}
    assert names(dlb.visualize_dlbacktrace(top_k=3)).count("output") == 1
    assert "mode epsilon" in dlb.visualize_dlbacktrace().dot


@pytest.mark.parametrize("top_k", [0, -1, 1.5, True])
def test_less_than_one_node_is_refused(dlb: DLBacktrace, top_k: Any) -> None:
    with pytest.raises(ValueError, match="top_k="):
        dlb.visualize_dlbacktrace(top_k=top_k)


def test_more_nodes_than_there_are_means_all(dlb: DLBacktrace) -> None:
    drawing = dlb.visualize_dlbacktrace(top_k=1000)
    boxes = [box for box in levels(dlb._evaluated.ledgers[0]).boxes.values() if box.kind == "op"]
    assert len(names(drawing)) == len(boxes) + 4  # two inputs, the output, the title
    assert "more op" not in drawing.dot
    whole = dlb.visualize_dlbacktrace(top_k=1000, fold_layout=False)
    assert len(names(whole)) == len(dlb._evaluated.ledgers[0].by_node) + 4


def test_of_equal_nodes_those_that_share_out_come_first_then_the_later() -> None:
    chain = [entry("f", {"e": 1.0}, "elementwise"), entry("e", {"d": 1.0}), entry("d", {"c": 1.00001})]
    chain += [entry("c", {"x": 1.0}, "elementwise")]
    found = levels(books(chain, {"x": 1.0}, {"f": 1.0}))
    order = [[box for box in ways(found, k).boxes if len(box) == 1] for k in (1, 2, 3, 4)]
    assert order == [["e"], ["d", "e"], ["d", "e", "f"], ["c", "d", "e", "f"]]


def test_a_way_through_hidden_nodes_is_one_edge_with_a_count() -> None:
    chain = [entry("c", {"b": 5.0}, into=5.0), entry("b", {"a": 2.0, "side": 3.0}, "elementwise", into=5.0)]
    chain += [entry("side", {"a": 3.0}, into=3.0), entry("a", {"x": 5.0}, into=5.0)]
    found = ways(levels(books(chain, {"x": 5.0}, {"c": 5.0})), 2)
    assert found.boxes == ("i:x", "a", "c", OUTPUT)
    assert found.passages == (("a", "c", 5.0, 2),)
    assert found.groups == ()


@pytest.mark.parametrize("number", range(12))
def test_the_units_of_the_picture_are_those_of_the_books(number: int) -> None:
    """In is out and booked at every box and group; edges lead forward, whatever is left out."""
    found = levels(drawn_by_lot(number, 60))
    for top_k in (1, 4, 15, 40, 99):
        chosen = ways(found, top_k)
        edges = [*chosen.edges, *((a, b, units) for a, b, units, _ in chosen.passages)]
        graph = nx.MultiDiGraph([(a, b, {"units": units}) for a, b, units in edges])
        assert nx.is_directed_acyclic_graph(graph)
        books_of = {group.id: group.booked for group in chosen.groups}
        books_of |= {box: found.boxes[box].booked for box in chosen.boxes if found.boxes[box].kind == "op"}
        for box, booked in books_of.items():
            went = sum(units for *_, units in graph.in_edges(box, data="units"))
            came = sum(units for *_, units in graph.out_edges(box, data="units"))
            assert came == pytest.approx(went + booked, abs=1e-6)
            assert box in books_of.keys() - {*chosen.boxes} or came == pytest.approx(found.boxes[box].into, abs=1e-6)
        counted = sum(len(group.ops) for group in chosen.groups) + sum(count for *_, count in chosen.passages)
        ops = sum(box.kind == "op" for box in found.boxes.values())
        assert counted + min(top_k, ops) == ops
        assert sum(graph.out_degree(box, "units") for box in ("i:x", "i:y") if box in graph) == pytest.approx(
            found.boxes["i:x"].into + found.boxes["i:y"].into, abs=1e-6
        )


def test_colour_and_width_follow_the_units() -> None:
    fills = dot.fills([-10.0, -5.0, 0.0, 5.0, 10.0])
    assert fills[2] == ("#ffffff", dot.INK)
    (negative, _), *_, (positive, _) = fills
    assert int(negative[5:], 16) > int(negative[1:3], 16)  # blue
    assert int(positive[1:3], 16) > int(positive[5:], 16)  # red
    widths = [dot.width(units, 10.0) for units in (0.0, 1.0, -5.0, 10.0, 99.0)]
    assert widths == sorted(widths)
    assert widths[-1] == widths[-2] == dot.WIDEST


def test_text_can_be_read_on_every_colour() -> None:
    units = [step / 50 for step in range(-50, 51)]
    for fill, ink in dot.fills(units):
        assert dot._contrast(bytes.fromhex(fill[1:]), ink) >= 4.5


def test_units_have_three_digits() -> None:
    shown = [dot.units_text(u, 100.0) for u in (100.0, 99.96, 0.12345, -12.345, 1234.5, 0.0, -1e-9, 2e-4, 1e7)]
    assert shown == ["100", "100", "0.123", "-12.3", "1,230", "0", "0", "2.00e-04", "1.00e+07"]


def test_a_long_name_keeps_its_end() -> None:
    name = "model.language_model.layers.17.self_attn.rotary_embedding.projection"
    assert dot.shortened(name) == "…rotary_embedding.projection"
    assert len(dot.shortened("x" * 99)) == dot.LONGEST


# --- names --------------------------------------------------------------------------------------------------------


@drawn
@pytest.mark.parametrize("name", NASTY)
def test_a_name_is_shown_as_it_is(name: str) -> None:
    inner = entry(name, {name + "?": 1.0}, modules=(name,), op=f"aten::{name}")
    ledger = books([entry("last", {name: 1.0}), inner], {name + "?": 1.0}, {"last": 1.0})
    picture = draw_strongest(ledger, **{**ABOUT, "title": name})
    root = ElementTree.fromstring(rendered(picture.dot, "svg"))
    shown = [text for element in root.iter() if (text := element.text)]
    visible = name.replace("\n", "\\n")
    assert f"{visible} \xa0\xa01" in shown  # the node, with its units
    assert visible in shown  # the title
    assert not [element for element in root.iter() if element.tag.endswith(("script", "}b"))]
    tips = [value for element in root.iter() for key, value in element.attrib.items() if key.endswith("title")]
    assert any(tip.replace("\u2060", "").startswith(f"{visible}:") for tip in tips)


@drawn
def test_a_notebook_shows_the_drawing(dlb: DLBacktrace) -> None:
    svg = dlb.visualize_dlbacktrace(top_k=2)._repr_svg_()
    assert ElementTree.fromstring(svg).tag.endswith("svg")
    assert "left" in svg


# --- before and after an evaluation -------------------------------------------------------------------------------


def test_there_is_nothing_to_draw_before_an_evaluation(tmp_path: Path) -> None:
    dlb = DLBacktrace(model(), example(), tracer="tape", check="ends")
    with pytest.raises(RuntimeError, match=r"call predict\(\.\.\.\) and evaluation\(\.\.\.\) first"):
        dlb.visualize_dlbacktrace()
    assert "relevance" not in dlb.graph().nodes["left"]
    dlb.predict(*example())
    dlb.evaluation()
    with pytest.raises(RuntimeError, match=r'check="ends" recorded nothing by node: use .* check="raise"'):
        dlb.visualize_dlbacktrace(path=tmp_path / "graph.svg")
    assert "relevance" not in dlb.graph().nodes["left"]
    assert not [*tmp_path.iterdir()]


def test_several_targets_and_a_difference() -> None:
    dlb = DLBacktrace(model(), example(), tracer="tape")
    dlb.predict(*example())
    several = dlb.evaluation(targets=[0, 1], mode="epsilon")
    assert [dlb.graph(target=t).nodes["left"]["relevance"] for t in (0, 1)] == [
        ledger.inputs["left"] for ledger in several.ledger
    ]
    assert "target 2 of 2" in dlb.visualize_dlbacktrace(target=1).dot
    assert dlb.visualize_dlbacktrace(target=0).dot != dlb.visualize_dlbacktrace(target=1).dot
    for draw in (dlb.graph, dlb.visualize_dlbacktrace):
        with pytest.raises(ValueError, match=r"target=2: choose from 0 \.\. 1"):
            draw(target=2)
    pair = dlb.evaluation(mode="contrastive")
    assert "for the target less against it" in dlb.visualize_dlbacktrace().dot
    assert dlb.graph().nodes["left"]["relevance"] == pair.ledger.inputs["left"]


def test_without_the_package_the_error_says_what_to_install(dlb: DLBacktrace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "graphviz", None)
    for draw in (dlb.visualize, dlb.visualize_dlbacktrace):
        with pytest.raises(ImportError, match=r'pip install "dlb-core\[viz\]"'):
            draw()
