"""A program folded by module: what is drawn at each level, and that its units are those of the ledger."""

from __future__ import annotations

import math
import time
from collections import defaultdict
from typing import Any

import pytest

from dlb_core import Ledger
from dlb_core.viz.graph.modules import OUTPUT, Levels, levels
from viz.graphs import books, entry, evaluated


@pytest.fixture(scope="module")
def ledger() -> Ledger:
    found: Ledger = evaluated()._evaluated.ledgers[0]
    return found


def test_a_level_holds_what_lies_directly_in_a_module(ledger: Ledger) -> None:
    found = levels(ledger)
    root = found.levels[""]
    assert [found.boxes[box].kind for box in root.boxes] == ["input", "input", "module", "module", "op", "op", "output"]
    assert [found.boxes[box].label for box in root.boxes] == [
        "left",
        "right",
        "blocks.0",
        "blocks.1",
        "stack",
        "head",
        "output",
    ]
    assert root.ports == ()
    block = found.levels["blocks.0"]
    assert [found.boxes[box].label for box in block.boxes] == ["branch", "add", "inner.0.0"]
    assert set(block.ports) == {"i:left", "m:blocks.1"}  # what is outside is seen as the level around sees it
    assert found.around("blocks.0.branch") == ["", "blocks.0", "blocks.0.branch"]


def test_a_module_around_one_box_is_no_level(ledger: Ledger) -> None:
    found = levels(ledger)
    assert set(found.levels) == {"", "blocks.0", "blocks.0.branch", "blocks.1", "blocks.1.branch"}
    stands = found.boxes[found.shown["blocks.0.inner"]]
    assert (stands.kind, stands.path, stands.label) == ("op", "blocks.0.inner.0.0", "inner.0.0")
    assert found.shown["blocks.0.inner.0"] == found.shown["blocks.0.inner.0.0"] == stands.id
    assert found.shown["head"] in found.levels[""].boxes
    assert "flat" not in found.shown  # only a layout op lies in it


def test_layout_ops_vanish_into_the_edges(ledger: Ledger) -> None:
    found, whole = levels(ledger), levels(ledger, fold=False)
    moved = {name for name, entry in ledger.by_node.items() if entry.rule == "move"} - {"stack"}
    assert moved
    assert moved <= set(whole.boxes)
    assert moved.isdisjoint(found.boxes)
    assert moved == {name for box in found.boxes.values() if box.kind != "module" for name in box.folded}
    assert all(name in ledger.by_node for name in found.boxes["m:blocks.0"].folded)
    kept = {box for box in whole.boxes if box not in moved}
    assert {box for box in found.boxes if not box.startswith("m:")} == {b for b in kept if not b.startswith("m:")}


@pytest.mark.parametrize("shape", [(2, 3), (2, 12), (2, 6, 1), (12,), ((2, 3), (2, 3))])
def test_an_op_that_keeps_a_part_or_copies_stays(shape: tuple[Any, ...]) -> None:
    moved = entry("moved", {"a": 1.0}, "move", shape=shape)
    nodes = [entry("b", {"moved": 1.0}), moved, entry("a", {"x": 1.0}, shape=(2, 6))]
    found = levels(books(nodes, {"x": 1.0}, {"b": 1.0}))
    assert ("moved" in found.boxes) == (shape in [(2, 3), (2, 12)])


def test_the_item_of_a_split_is_laid_out_only() -> None:
    taken = entry("item", {"parts": 1.0}, "move", op="operator.getitem", shape=(2, 3))
    parts = entry("parts", {"a": 1.0}, "move", shape=((2, 3), (2, 3)))
    nodes = [entry("b", {"item": 1.0}), taken, parts, entry("a", {"x": 1.0}, shape=(2, 6))]
    found = levels(books(nodes, {"x": 1.0}, {"b": 1.0}))
    assert found.boxes["a"].folded == ("parts", "item")
    assert ("a", "b", 1.0) in found.levels[""].edges


def test_what_books_units_is_no_layout() -> None:
    moved = entry("moved", {"x": 0.5}, "move", accounts={"constant:fill": 0.5}, shape=(2,))
    found = levels(books([moved], {"x": 0.5}, {"moved": 1.0}), shapes={"x": (2,)})
    assert found.boxes["moved"].booked == 0.5
    assert found.boxes["moved"].accounts == {"constant:fill": 0.5}


@pytest.mark.parametrize("fold", [True, False])
def test_what_enters_a_module_leaves_it_or_is_booked_in_it(ledger: Ledger, fold: bool) -> None:
    found, books = levels(ledger, fold=fold), ledger.by_module()
    modules = [box for box in found.boxes.values() if box.kind == "module"]
    assert modules
    for box in modules:
        book = books[box.path]
        assert (box.into, box.out, box.booked) == pytest.approx((book["in"], book["out"], book["booked"]), abs=1e-9)
        assert box.residual == pytest.approx(0, abs=1e-3)
        assert math.fsum(box.accounts.values()) == pytest.approx(box.booked, abs=1e-9)


@pytest.mark.parametrize("fold", [True, False])
def test_the_edges_of_a_level_are_those_of_the_ledger(ledger: Ledger, fold: bool) -> None:
    found = levels(ledger, fold=fold)
    for path, level in found.levels.items():
        came: defaultdict[str, float] = defaultdict(float)
        went: defaultdict[str, float] = defaultdict(float)
        for source, reader, units in level.edges:
            assert {source, reader} <= {*level.boxes, *level.ports}
            assert {source, reader} & {*level.boxes}
            came[source] += units
            went[reader] += units
        for box in level.boxes:
            if box != OUTPUT:
                assert came[box] == pytest.approx(found.boxes[box].into, abs=1e-4), (path, box)
            if not box.startswith("i:"):
                assert went[box] == pytest.approx(found.boxes[box].out, abs=1e-4), (path, box)


def test_the_root_ends_at_the_seed_and_the_inputs(ledger: Ledger) -> None:
    found = levels(ledger)
    assert found.boxes[OUTPUT].into == ledger.seed
    assert {box.label: box.into for box in found.boxes.values() if box.kind == "input"} == ledger.inputs
    assert found.boxes["m:blocks.0"].ops == sum("blocks.0" in entry.modules for entry in ledger.by_node.values())
    assert found.boxes["m:blocks.0"].shape == (2, 6)


def test_a_ledger_of_the_ends_has_no_ops(ledger: Ledger) -> None:
    ends = Ledger(100.0, {"x": 98.0}, {"bias": 2.0}, 1.0, 1.0, 1.0, 1e-5, seeded={"linear": 100.0})
    found = levels(ends)
    assert set(found.boxes) == {"i:x", OUTPUT}
    assert found.levels[""].edges == ()


def test_each_box_lies_in_one_level(ledger: Ledger) -> None:
    found = levels(ledger)
    listed = [box for level in found.levels.values() for box in level.boxes]
    assert sorted(listed) == sorted(found.boxes)
    assert {f"m:{path}" for path in found.levels if path} == {b for b in found.boxes if b.startswith("m:")}
    assert all(len(level.boxes) > 1 for level in found.levels.values())


def deep(layers: int, ops: int) -> Ledger:
    """A chain of nodes in nested modules."""
    nodes = []
    for i in reversed(range(layers * ops)):
        path = f"a.b.layer.{i // ops}"
        around = ("a", "a.b", path, f"{path}.part{i % ops // 5}")
        nodes.append(entry(f"n{i}", {f"n{i - 1}" if i else "x": 1.0}, modules=around))
    return books(nodes, {"x": 1.0}, {nodes[0].name: 1.0})


def test_two_thousand_nodes_take_a_moment() -> None:
    def seconds(ledger: Ledger) -> tuple[float, Levels]:
        start = time.process_time()
        found = levels(ledger)
        return time.process_time() - start, found

    ledger = deep(100, 20)
    taken, found = min((seconds(ledger) for _ in range(3)), key=lambda pair: pair[0])
    assert len(found.levels["a.b"].boxes) == 100  # `a` holds nothing but `a.b`
    assert found.shown["a"] == "m:a.b"
    assert taken < 0.2


def test_a_module_that_two_others_share_lies_in_the_first() -> None:
    nodes = [
        entry("last", {"second": 1.0}, modules=("b", "b.own")),
        entry("second", {"first": 1.0}, modules=("b", "shared")),
        entry("first", {"x": 1.0}, modules=("a", "shared")),
    ]
    found = levels(books(nodes, {"x": 1.0}, {"last": 1.0}))
    assert found.shown["a"] == found.shown["shared"] == "m:shared"
    assert found.levels["shared"].boxes == ("first", "second")
    assert found.levels[""].edges[1] == ("m:shared", "last", 1.0)
