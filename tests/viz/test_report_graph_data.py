"""The graph of the report as data: every number is the ledger's, every op is in one picture."""

import hashlib
import json
import math
import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

import dlb_core.viz.report as report
from dlb_core import DLBacktrace
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.viz.colour import STOPS
from dlb_core.viz.report.graph_data import graph_document
from dlb_core.viz.report.graph_page import graph_script, graph_style

HERE = Path(report.__file__).parent


class Residual(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner = nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Linear(8, 6))
        self.norm = nn.LayerNorm(6)

    def forward(self, x):
        return self.norm(x + self.inner(x)).reshape(-1, 6)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.left, self.blocks, self.head = nn.Linear(4, 6), nn.Sequential(Residual(), Residual()), nn.Linear(6, 3)

    def forward(self, a, b):
        return self.head(self.blocks(self.left(a) * 2 + b))


@pytest.fixture(scope="module")
def ledger():
    torch.manual_seed(0)
    net, given = Net().eval(), (torch.randn(2, 4), torch.randn(2, 6))
    return DLBacktrace(net, given).explain(*given, mode="epsilon", target=1).ledger


@pytest.fixture(scope="module")
def document(ledger):
    return json.loads(json.dumps(graph_document(ledger, {"a": (2, 4)}), allow_nan=False))


def chain(count, step=7):
    """A ledger of `count` ops without modules; every `step`th of them is read a second time, nine ops later."""
    nodes, passing = {}, [0.0] * count
    passing[-1] = 100.0
    for i in reversed(range(count)):
        edges = {f"add_{i - 1}" if i else "x": passing[i]}
        if i >= 9 and i % step == 0:
            edges = {f"add_{i - 1}": 0.75 * passing[i], f"add_{i - 9}": 0.25 * passing[i]}
            passing[i - 9] += edges[f"add_{i - 9}"]
        if i:
            passing[i - 1] += edges[f"add_{i - 1}"]
        nodes[f"add_{i}"] = NodeEntry(
            f"add_{i}", "aten::add.Tensor", (), "sum", "builtin", passing[i], passing[i], {}, 200.0, 1e-5, edges, (1, 8)
        )
    return Ledger(100.0, {"x": passing[0]}, {}, 200.0, 100.0, 100.0, 1e-5, nodes, {f"add_{count - 1}": 100.0})


def flows(document, path):
    """What leaves and enters each box of a level, forward."""
    out, into = Counter(), Counter()
    for start, end, units in document["levels"][path]["edges"]:
        out[start] += units
        into[end] += units
    return out, into


def home(document):
    return {name: path for path, level in document["levels"].items() for name in level["boxes"]}


def check_books(document):
    """Boxes agree with the edges of the level they stand in."""
    for name, path in home(document).items():
        box, (out, into) = document["boxes"][name], flows(document, path)
        near = {"rel": 1e-5, "abs": 1e-4}
        if box["kind"] != "output":
            assert out[name] == pytest.approx(box["into"], **near), name
        if box["kind"] not in ("input", "output"):
            assert into[name] == pytest.approx(box["out"], **near), name
            assert box["into"] - box["out"] - box["booked"] == pytest.approx(box["residual"], abs=1e-3)
            assert math.fsum(box.get("accounts", {}).values()) == pytest.approx(box["booked"], **near)


def test_boxes_of_ops_say_what_the_ledger_says(ledger, document):
    ops = {name: box for name, box in document["boxes"].items() if box["kind"] == "op"}
    assert {"m:blocks", "m:blocks.0", "m:blocks.0.inner", "i:a", "i:b", "o:output"} <= document["boxes"].keys()
    for name, box in ops.items():
        entry = ledger.by_node[name]
        assert (box["op"], box["rule"], box["pack"], box["path"]) == (entry.op, entry.rule, entry.pack, entry.module)
        for field in ("into", "out", "booked", "residual"):
            assert box[field] == pytest.approx(getattr(entry, field), rel=1e-6)
        assert box["shape"] == " × ".join(map(str, entry.shape))
        booked = {name: units for name, units in entry.accounts.items() if units}
        assert box.get("accounts", {}) == pytest.approx(booked, rel=1e-6)
    assert document["boxes"]["i:a"]["shape"] == "2 × 4"


def test_every_op_is_drawn_once_or_folded(ledger, document):
    drawn = Counter(name for level in document["levels"].values() for name in level["boxes"])
    assert set(drawn) == set(document["boxes"])
    assert set(drawn.values()) == {1}
    folded = {name for box in document["boxes"].values() for name in box.get("folded", ())}
    assert folded | (drawn.keys() & ledger.by_node.keys()) == ledger.by_node.keys()
    assert folded.isdisjoint(drawn)
    assert {ledger.by_node[name].op for name in folded} == {"aten::view.default"}


def test_flows_carry_the_ledger(ledger, document):
    out, into = flows(document, "")
    assert into["o:output"] == pytest.approx(ledger.seed, rel=1e-6)
    for name, units in ledger.inputs.items():
        assert out[f"i:{name}"] == pytest.approx(units, rel=1e-5)
        assert document["boxes"][f"i:{name}"]["into"] == pytest.approx(units, rel=1e-6)
    check_books(document)


def check_levels(document):
    """Levels are what boxes open, and hold what their edges lead to."""
    opening = {box["opens"] for box in document["boxes"].values() if "opens" in box}
    assert opening == document["levels"].keys() - {""}
    for level in document["levels"].values():
        assert all(start != end for start, end, _ in level["edges"])
        assert set(level["ports"]).isdisjoint(level["boxes"])
        assert {name for edge in level["edges"] for name in edge[:2]} <= {*level["ports"], *level["boxes"]}


def test_what_opens_is_a_level(document):
    check_levels(document)


def test_an_op_of_the_modules_own_goes_by_its_nodes_name(document):
    adds = [name for name, box in document["boxes"].items() if box.get("op", "").startswith("aten::add")]
    assert len(adds) == 3
    assert {document["boxes"][name]["label"] for name in adds} == set(adds)


def test_without_books_by_node_it_says_why():
    document = graph_document(Ledger(100.0, {"x": 100.0}, {}, 200.0, 100.0, 100.0, 1e-5))
    assert (document["levels"], document["boxes"]) == ({}, {})
    assert 'check="raise"' in document["reason"]


def test_what_json_cannot_say_is_left_open():
    books = chain(3)
    entry = NodeEntry(
        "add_1", "aten::add.Tensor", (), "sum", "", math.nan, math.inf, {}, 1.0, edges={"add_0": math.nan}
    )
    nodes = {name: entry if name == "add_1" else old for name, old in books.by_node.items()}
    document = graph_document(Ledger(100.0, books.inputs, {}, 1.0, 1.0, 100.0, 1e-5, nodes, books.seeded))
    json.dumps(document, allow_nan=False)
    assert document["boxes"]["add_1"]["into"] is None
    assert ["add_0", "add_1", None] in document["levels"][""]["edges"]


def test_a_seed_that_cancels_is_measured_by_its_size():
    document = graph_document(Ledger(0.0, {"x": 0.0}, {}, 200.0, 100.0, 80.0, 1e-5))
    assert (document["seed"], document["whole"]) == (0.0, 80.0)


def test_a_thousand_ops_without_modules_are_grouped():
    books = chain(1000)
    document = graph_document(books)
    assert len(document["levels"]) > 10
    assert max(len(level["boxes"]) for level in document["levels"].values()) <= 60
    drawn = Counter(name for level in document["levels"].values() for name in level["boxes"])
    assert set(drawn) == set(document["boxes"])
    assert set(drawn.values()) == {1}
    assert drawn.keys() >= books.by_node.keys()
    check_books(document)
    check_levels(document)
    groups = [box for box in document["boxes"].values() if box["kind"] == "group"]
    assert sum(box["ops"] for box in groups) == 1000
    assert groups[0]["label"] == "add_0 … add_32"


def test_sixty_ops_are_not():
    assert [*graph_document(chain(60))["levels"]] == [""]


def test_the_layout_library_is_what_was_published():
    vendored = (HERE / "vendor" / "dagre.min.js").read_bytes()
    assert hashlib.sha256(vendored).hexdigest() == "54a503e346f93ca0bb10abe7999587e037262935687aca45eb4e4b0f64bbb578"
    assert "Chris Pettitt" in (HERE / "vendor" / "LICENSE").read_text("utf-8")


def test_the_script_fits_into_a_page():
    script = graph_script()
    assert "Copyright (c) 2012-2014 Chris Pettitt" in script
    assert "</script" not in script.lower()
    assert "<!--" not in script
    assert "sourceMappingURL" not in script
    assert "</style" not in graph_style().lower()
    for word in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function", "http://"):
        own = script[script.index("dlbGraph") :].replace("http://www.w3.org/2000/svg", "")
        assert word not in own


def stops():
    """The colours of graph.css: of light paper, then of dark."""
    found = re.findall(r"--stop-(\d): light-dark\(rgb\(([\d ]+)\), rgb\(([\d ]+)\)\)", graph_style())
    assert [number for number, _, _ in found] == list("01234")
    return [[tuple(map(int, pair[side].split())) for pair in found] for side in (1, 2)]


def test_boxes_are_coloured_on_the_scale_of_pictures():
    assert stops()[0] == [*STOPS]


def luminance(colour):
    steps = [part / 255 for part in colour]
    red, green, blue = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in steps]
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
def test_names_can_be_read_on_every_colour(dark):
    below, above = map(float, re.search(r"DEEP = \{ below: (.*), above: (.*) \}", graph_script()).groups())
    for percent in range(-100, 101):
        share, place = percent / 100, (percent + 100) / 50
        low = min(3, int(place))
        start, end = stops()[dark][low : low + 2]
        ground = luminance([a + (b - a) * (place - low) for a, b in zip(start, end, strict=True)])
        white = (share < below or share > above) != dark
        contrast = 1.05 / (ground + 0.05) if white else (ground + 0.05) / 0.05
        assert contrast >= 4.5, percent
