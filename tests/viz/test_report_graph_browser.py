"""The drill-down graph in a browser: what it shows, what clicks and keys do, and that names do nothing."""

import re

import pytest
import torch

from dlb_core import DLBacktrace
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.viz.colour import colours
from dlb_core.viz.report.graph_data import graph_document
from dlb_core.viz.report.graph_page import graph_script
from viz.browser import errors, requests
from viz.graph_page import Shown, number
from viz.test_report_graph_data import Net, chain


@pytest.fixture(scope="module")
def ledger():
    torch.manual_seed(0)
    net, given = Net().eval(), (torch.randn(1, 4), torch.randn(1, 6))
    return DLBacktrace(net, given).explain(*given, mode="epsilon", target=1).ledger


@pytest.fixture
def shown(browser, ledger, tmp_path):
    found = Shown(browser, tmp_path / "graph.html", graph_document(ledger))
    yield found
    assert errors(browser) == []
    assert requests(browser) == []


def test_the_first_level_is_the_model(shown, ledger):
    assert shown.crumbs() == ["model"]
    assert {"a", "b", "left", "blocks", "head", "output"} <= set(shown.names())
    assert shown.names(".input") == ["a", "b"]
    assert shown.names(".module") == ["blocks"]
    assert not shown.all(".port")
    across = {box.text: box.location["y"] for box in shown.all(".box .name")}
    assert across["a"] < across["left"] < across["blocks"] < across["head"] < across["output"]
    units = shown.texts(".input .end")
    assert units == [number(ledger.inputs["a"]), number(ledger.inputs["b"])]
    edges = len(graph_document(ledger)["levels"][""]["edges"])
    assert len(shown.all(".edge")) == edges
    assert {"Seed": "100", "a": units[0]}.items() <= shown.details().items()


def test_colours_and_widths_say_the_units(shown, ledger):
    document = graph_document(ledger)
    edges = [(units, min(1, abs(units) / 100)) for _, _, units in document["levels"][""]["edges"]]
    drawn = shown.run(
        "[...document.querySelectorAll('.edge')].map(e => [e.classList[1], +e.getAttribute('stroke-width')])"
    )
    assert [sign for sign, _ in drawn] == ["plus" if units > 0 else "minus" for units, _ in edges]
    assert {"plus", "minus"} == {sign for sign, _ in drawn}
    for (_, share), (_, width) in zip(edges, drawn, strict=True):
        assert width == pytest.approx(1 + 4 * share**0.5)
    found = shown.run(
        "[...document.querySelectorAll('.box')].map(b => [b.querySelector('.name').textContent, "
        "getComputedStyle(b.querySelector('.face')).fill])"
    )
    units = {box["label"]: box["into"] for box in document["boxes"].values() if not box["path"].startswith("blocks.")}
    for name, fill in found:
        seen = [255 * float(part) for part in re.findall(r"[\d.]+", fill.removeprefix("color(srgb"))[:3]]
        assert seen == pytest.approx(colours(torch.tensor([[units[name]]]), 100.0)[0, 0].tolist(), abs=2), name


def test_a_click_shows_the_numbers_of_the_ledger(shown, ledger):
    shown.box("head").click()
    entry = next(entry for entry in ledger.by_node.values() if entry.module == "head")
    assert shown.heading() == "head"
    assert shown.details() == {
        "Node": entry.name,
        "Op": entry.op,
        "Rule": entry.rule,
        "Pack": "builtin",
        "Module": "head",
        "Shape": "1 × 3",
        "Relevance in": number(entry.into),
        "Relevance out": number(entry.out),
        "Booked": number(entry.booked),
        "Residual": number(entry.residual) if abs(entry.residual) >= 1e-4 else shown.details()["Residual"],
    }
    tables = shown.one(".details").text
    assert "bias:head.bias" in tables
    assert number(entry.accounts["bias:head.bias"]) in tables
    assert "chosen" in shown.box("head").get_attribute("class")
    shown.all(".details .flow-end")[0].click()
    assert shown.heading() == "blocks"


def test_a_double_click_opens_a_module_and_the_path_leads_back(shown, ledger):
    shown.double_click("blocks")
    assert shown.crumbs() == ["model", "blocks"]
    assert shown.names(".module") == ["blocks.0", "blocks.1"]
    assert shown.names(".port")[-1] == "to head"
    assert shown.heading() == "blocks"
    books = ledger.by_module()["blocks"]
    assert shown.details()["Relevance in"] == number(books["in"])
    assert shown.details()["Relevance out"] == number(books["out"])
    shown.double_click("blocks.1")
    assert shown.crumbs() == ["model", "blocks", "blocks.1"]
    shown.all(".crumbs button")[0].click()
    assert shown.crumbs() == ["model"]
    assert "head" in shown.names()


def test_a_port_leads_to_where_it_lives(shown):
    shown.double_click("blocks")
    shown.all(".port")[-1].click()
    assert shown.crumbs() == ["model"]
    assert shown.heading() == "head"


def test_the_panel_opens_a_module(shown):
    shown.box("blocks").click()
    shown.one(".details .open").click()
    assert shown.crumbs() == ["model", "blocks"]


def test_search_jumps_to_a_box(shown, ledger):
    field = shown.one(".search input")
    field.send_keys("GELU")
    assert shown.texts(".found .name") == ["inner.1", "inner.1"]
    assert shown.texts(".found .where") == ["blocks.0.inner.1", "blocks.1.inner.1"]
    field.send_keys("\ue015", "\ue007")  # down, Enter
    assert shown.crumbs()[:3] == ["model", "blocks", "blocks.1"]
    assert shown.details()["Op"] == "aten::gelu.default"
    assert shown.details()["Module"] == "blocks.1.inner.1"
    assert len(shown.all(".chosen")) == 1
    assert not shown.one(".found").is_displayed()
    field = shown.one(".search input")
    field.clear()
    field.send_keys("norm")
    shown.all(".found li")[0].click()
    assert shown.details()["Op"].startswith("aten::layer_norm")
    field.clear()
    field.send_keys("no such thing")
    assert shown.one(".found").text == "nothing found"


def test_search_finds_what_was_folded_away(shown):
    folded = next(name for box in shown.run("documents[0].boxes").values() for name in box.get("folded", ()))
    shown.one(".search input").send_keys(folded, "\ue007")
    assert folded in shown.one(".details ul").text


def test_zoom_and_pan(shown):
    from selenium.webdriver import ActionChains

    picture = shown.one(".picture")
    first = shown.view()
    shown.one("[aria-label='Zoom in']").click()
    assert shown.view()[2] == pytest.approx(1.25 * first[2])
    shown.one("[aria-label='Zoom out']").click()
    assert shown.view()[2] == pytest.approx(first[2])
    corner = (-picture.size["width"] // 2 + 20, -picture.size["height"] // 2 + 20)
    before = shown.view()
    drag = ActionChains(shown.driver).move_to_element_with_offset(picture, *corner)
    drag.click_and_hold().move_by_offset(60, 25).move_by_offset(10, 15).release().perform()
    after = shown.view()
    assert (after[0] - before[0], after[1] - before[1]) == pytest.approx((70, 40), abs=3)
    wheel = """const event = new WheelEvent("wheel", {deltaY: -100, ctrlKey: arguments[0], cancelable: true});
    document.querySelector(".picture").dispatchEvent(event); return event.defaultPrevented;"""
    assert shown.driver.execute_script(wheel, False) is False  # the page scrolls
    assert shown.view() == after
    assert shown.driver.execute_script(wheel, True) is True
    assert shown.view()[2] > after[2]
    shown.one("[aria-label='Fit all']").click()
    room = shown.run(
        "[...document.querySelectorAll('.box')].every(b => { const r = b.getBoundingClientRect(), "
        "s = document.querySelector('.picture').getBoundingClientRect(); "
        "return r.top >= s.top - 1 && r.bottom <= s.bottom + 1; })"
    )
    assert room is True


def test_a_drag_is_no_click(shown):
    from selenium.webdriver import ActionChains

    shown.box("left").click()
    ActionChains(shown.driver).click_and_hold(shown.box("head")).move_by_offset(30, 10).release().perform()
    assert shown.names(".chosen") == ["left"]


def test_keys(shown):
    keys = {"up": "\ue013", "down": "\ue015", "right": "\ue014", "enter": "\ue007", "escape": "\ue00c", "tab": "\ue004"}
    shown.run("document.querySelector('.picture').focus()")
    x, y, scale = shown.view()
    shown.press(keys["right"])
    assert shown.view()[:2] == [x - 60, y]
    shown.press("+")
    assert shown.view()[2] > scale
    shown.press("-")
    assert shown.view()[2] == pytest.approx(scale)
    shown.press("0")
    assert shown.view()[:2] == pytest.approx([x, y], abs=1)
    shown.press(keys["tab"])
    assert shown.focused().startswith("a, input, relevance ")
    for _ in range(12):
        if shown.focused().startswith("blocks,"):
            break
        shown.press(keys["down"])
    assert "Enter opens it" in shown.focused()
    shown.press(keys["enter"])
    assert shown.crumbs() == ["model", "blocks"]
    assert shown.focused() == "Graph of blocks"
    shown.press(keys["escape"])
    assert shown.crumbs() == ["model"]
    assert shown.focused().startswith("blocks,")
    shown.press(keys["down"])
    assert shown.focused().startswith("head,")
    shown.press(keys["enter"])
    assert shown.heading() == "head"
    shown.press(keys["up"], keys["enter"])
    shown.press("\ue003")  # Backspace
    assert shown.crumbs() == ["model"]


EVIL = [
    "</script><script>window.hit=1</script>",
    "<img src=x onerror=window.hit=2>",
    "\"'><svg onload=window.hit=3>",
    "__proto__",
    "constructor",
    "🙂 ‮ ${window.hit=4} `",
    "module_" + "very_" * 120 + "long",
]


def evil_ledger():
    """Every name in it would rather be something else."""
    nodes, before = {}, "<b>in</b>"
    for place, name in enumerate(EVIL):
        node = f"{name} {place}" if place % 2 else name
        modules = (name, f"{name}.{name}") if place % 3 else ()
        booked = {f"bias:{name}": 1.0}
        nodes[node] = NodeEntry(
            node, f"evil::{name}", modules, name, name, 100.0, 99.0, booked, 1.0, 1.0, {before: 99.0}
        )
        if modules:  # a second op, so that the module is a level of its own
            nodes[f"{node} b"] = NodeEntry(
                f"{node} b", name, modules, name, name, 99.0, 99.0, {}, 1.0, 1.0, {node: 99.0}
            )
            before = f"{node} b"
        else:
            before = node
    backwards = dict(reversed(nodes.items()))
    return Ledger(100.0, {"<b>in</b>": 99.0}, {}, 1.0, 1.0, 100.0, 1.0, backwards, {before: 100.0})


def test_names_are_only_names(browser, tmp_path):
    document = graph_document(evil_ledger())
    shown = Shown(browser, tmp_path / "evil.html", document)
    for place in range(len(shown.all(".box"))):
        shown.run(
            "document.querySelectorAll('.box')[arguments[0]].dispatchEvent(new MouseEvent('click', {bubbles: true}))",
            place,
        )
    labels = {document["boxes"][name]["label"] for name in document["levels"][""]["boxes"]}
    titles = shown.run("[...document.querySelectorAll('.box:not(.port) title')].map(t => t.textContent)")
    assert {title.rpartition("\n")[0] for title in titles} == labels
    shown.one(".search input").send_keys("<")
    assert shown.all(".found li")
    titles = shown.run("[...document.querySelectorAll('.found li')].map(row => row.title)")
    assert any(title.startswith("<img src=x onerror=window.hit=2>") for title in titles)
    shown.run("document.querySelector('.box.module').dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))")
    assert len(shown.crumbs()) > 1
    assert shown.run("window.hit ?? null") is None
    assert not shown.all("img, .dlb-graph b, .dlb-graph script")
    widest = shown.run("Math.max(...[...document.querySelectorAll('.box .face')].map(f => +f.getAttribute('width')))")
    assert widest <= 220
    assert errors(browser) == []
    assert requests(browser) == []


def test_a_long_name_is_cut_in_the_middle(browser, tmp_path):
    shown = Shown(browser, tmp_path / "long.html", graph_document(evil_ledger()))
    long = next(text for text in shown.names() if text.startswith("module_"))
    assert "…" in long
    assert long.endswith("long 6") or long.endswith("long")
    assert EVIL[-1] in shown.run("[...document.querySelectorAll('.box title')].map(t => t.textContent).join(' ')")


def test_several_graphs_and_one_without_books(browser, ledger, tmp_path):
    empty = graph_document(Ledger(100.0, {"x": 100.0}, {}, 200.0, 100.0, 100.0, 1e-5))
    shown = Shown(browser, tmp_path / "two.html", graph_document(ledger), empty, graph_document(chain(1000)))
    assert 'check="raise"' in shown.one("#graph-1").text
    assert shown.run("took[2]") < 2000
    shown.run("document.querySelector('#graph-2').scrollIntoView()")
    assert len(shown.all("#graph-2 .box.group")) > 10
    shown.run(
        "document.querySelector('#graph-2 .box.group').dispatchEvent(new MouseEvent('dblclick', {bubbles: true}))"
    )
    assert shown.one("#graph-2 [aria-current]").text == "add_0 … add_32"
    assert shown.one("#graph-0 [aria-current]").text == "model"
    parts = set(re.findall(r"^(?:function|const) (\w+)", graph_script(), re.MULTILINE))
    assert {"laidOut", "HEIGHT"} < parts
    seen = shown.run("arguments[0].filter(name => name in window)", sorted(parts))
    assert seen == ["dlbGraph"]
    assert errors(browser) == []


def test_a_dense_level_is_drawn_in_time(browser, tmp_path):
    names = [f"cat_{i}" for i in range(48)]
    document = graph_document(chain(48))
    pairs = [[a, b, 1.0] for i, a in enumerate(names) for b in names[i + 1 :]]
    boxes = {name: document["boxes"]["add_1"] | {"label": name} for name in names}
    level = {"boxes": names, "ports": [], "edges": pairs}
    shown = Shown(browser, tmp_path / "dense.html", {**document, "levels": {"": level}, "boxes": boxes})
    assert shown.run("took[0]") < 2000
    assert len(shown.all(".edge")) == len(pairs)
    tops = [box.location["y"] for box in shown.all(".box")]
    assert tops == sorted(set(tops))
    shown.all(".box")[3].click()
    assert len(shown.all(".flow:not(.dim)")) == 47
    assert errors(browser) == []
