"""Figures of the books: the waterfall, the layers, the experts, held to the numbers they come from."""

from __future__ import annotations

import dataclasses
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from moe.mixture import Net

from dlb_core import DLBacktrace, Explanation
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.ledger_lines import ledger_lines
from dlb_core.relevance import Relevance
from dlb_core.viz.plots.books import layers
from dlb_core.viz.plots.digits import Digits
from viz.drawn import bars, outside, overlapping, panels, shown_map, texts
from viz.explained import explained, traced


@pytest.fixture(scope="module")
def routed() -> DLBacktrace:
    torch.manual_seed(0)
    return DLBacktrace(Net().eval(), torch.randn(2, 3, 5))


@pytest.fixture(scope="module")
def mixed(routed: DLBacktrace) -> Explanation:
    return routed.explain(torch.randn(2, 3, 5), mode="epsilon", targets=[0, 2])


def check_waterfall(axes: Any, ledger: Ledger) -> None:
    rows = sorted(axes.patches, key=lambda bar: bar.get_y())
    assert (rows[0].get_x(), rows[0].get_width()) == (0.0, pytest.approx(ledger.seed))
    left = ledger.seed
    for bar, line in zip(rows[1:], ledger_lines(ledger, 25), strict=True):
        assert bar.get_x() == pytest.approx(left, abs=1e-9)
        assert -bar.get_width() == pytest.approx(line.units, abs=1e-9)
        left += bar.get_width()
    assert left == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("mode", ["default", "epsilon"])
def test_the_waterfall_leads_from_the_seed_to_nothing(mode: str) -> None:
    explanation = explained("both", mode)
    picture = explanation.plot_ledger()
    check_waterfall(panels(picture)["ledger"], explanation.ledger)
    shares = [float(t[:-2].replace("\N{MINUS SIGN}", "-")) for t in texts(picture) if t.endswith(" %")]
    assert shares[0] == 100.0
    assert round(sum(shares[1:]), 2) == 100.0
    lines = ledger_lines(explanation.ledger, 25)
    assert [text for text in texts(picture) if text in {line.account for line in lines}] == [n.account for n in lines]
    assert texts(picture)[1] == f"mode {mode} · sum of 3 samples"


def test_two_ledgers_stand_side_by_side() -> None:
    explanation = explained("image", "contrastive")
    here = panels(explanation.plot_ledger())
    pair = [here["ledger for the target"], here["ledger against it"]]
    check_waterfall(pair[0], explanation.positive.ledger)
    check_waterfall(pair[1], explanation.negative.ledger)
    assert pair[0].get_xlim() == pair[1].get_xlim()


def test_the_ledger_of_one_of_several_targets() -> None:
    explanation = explained("features", "epsilon", (0, 2))
    check_waterfall(panels(explanation.plot_ledger(target=1))["ledger"], explanation.ledger[1])
    with pytest.raises(ValueError, match=r"target=2: choose from 0 \.\. 1"):
        explanation.plot_ledger(target=2)


def test_many_accounts_and_signs_that_cancel() -> None:
    accounts = {f"bias:a.module.whose.path.is.rather.long.{i}.bias": (-1.0) ** i * (i + 1) for i in range(60)}
    units = sum(accounts.values())
    ledger = Ledger(0.0, {"x": -units}, accounts, 1.0, 30.0, 200.0, 1e-5)
    relevance = Relevance({"x": torch.zeros(1, 2)}, (ledger,), inputs=("x",), target=0, mode="epsilon")
    picture = Explanation(relevance, torch.zeros(1, 2)).plot_ledger()
    check_waterfall(panels(picture)["ledger"], ledger)
    assert "... 36 more accounts" in texts(picture)
    assert not any("%" in text for text in texts(picture))
    assert (outside(picture), overlapping(picture)) == ([], [])


def test_layers_show_what_came_in_and_what_was_booked() -> None:
    explanation = explained("both", "epsilon")
    picture = explanation.plot_layers()
    books = explanation.by_module()
    names = ["input:image", "input:facts", "conv", "(outside modules)", "head"]
    assert [text for text in texts(picture) if text in names] == names  # as they run
    here = panels(picture)
    inputs = [explanation.ledger.inputs[name] for name in ("image", "facts")]
    paths = ["conv", "", "head"]
    assert bars(here["layers units in"]) == pytest.approx([*inputs, *(books[path]["in"] for path in paths)])
    booked = bars(here["layers booked there"])
    assert booked == pytest.approx([0.0, 0.0, *(books[path]["booked"] for path in paths)])
    assert sum(booked) + sum(inputs) == pytest.approx(explanation.ledger.seed, rel=1e-5)
    written = texts(picture)
    assert {Digits.of(max(map(abs, booked))).exact(n) for n in booked[2:]} <= {*written}


def test_layers_of_two_maps_share_their_scale() -> None:
    explanation = explained("both", "contrastive")
    here = panels(explanation.plot_layers())
    for what in ("units in", "booked there"):
        one, other = (here[f"layers {what}, {side}"] for side in ("for the target", "against it"))
        assert one.get_xlim() == other.get_xlim()
    assert bars(here["layers units in, against it"])[-1] == pytest.approx(explanation.negative.ledger.seed)


def deep(blocks: int, width: int) -> Ledger:
    """Books of a model with so many blocks of so many layers, each of them an op; an op lies beside the layers."""
    modules = [
        *((f"net.{i}", f"net.{i}.layer{j}") for i in range(blocks) for j in range(width)),
        *((f"net.{i}",) for i in range(blocks)),
        ("head",),
    ]
    entries = {f"op{i}": NodeEntry(f"op{i}", "", path, "", "", 1.0, 1.0, {}, 1.0) for i, path in enumerate(modules)}
    return SimpleNamespace(by_node=dict(reversed(entries.items())))  # type: ignore[return-value]


@pytest.mark.parametrize(
    ("blocks", "width", "depth", "rows"),
    [(4, 3, None, 17), (12, 3, None, 13), (3, 12, None, 40), (40, 1, None, 41), (4, 3, 1, 5), (4, 3, 9, 17)],
)
def test_layers_are_listed_as_deep_as_there_is_room(blocks: int, width: int, depth: int | None, rows: int) -> None:
    found = layers(deep(blocks, width), depth)
    assert len(found) == len({*found}) == rows
    assert found[-1] == "head"
    assert ("net.0" in found) == (rows == blocks + 1)
    assert ("net.0.(ops)" in found) == (rows > blocks + 1)


def test_beyond_what_can_be_read_layers_are_summed() -> None:
    entries = {}
    for i in reversed(range(90)):
        goes = {f"op{i - 1}" if i else "x": 1.0 + i}
        entries[f"op{i}"] = NodeEntry(f"op{i}", "", (f"{i}",), "", "", 2.0 + i, 1.0 + i, {"bias": 1.0}, 1.0, edges=goes)
    ledger = Ledger(91.0, {"x": 1.0}, {"bias": 90.0}, 1.0, 1.0, 91.0, 1e-5, entries, {"op89": 91.0})
    relevance = Relevance({"x": torch.ones(1, 1)}, (ledger,), inputs=("x",), target=0, mode="epsilon")
    explanation = Explanation(relevance, torch.zeros(1, 2))
    picture = explanation.plot_layers()
    booked = bars(panels(picture)["layers booked there"])
    assert len(booked) == 1 + 80 + 1
    assert "... 10 more" in texts(picture)
    assert sum(booked) + sum(explanation.ledger.inputs.values()) == pytest.approx(explanation.ledger.seed, rel=1e-5)


def test_a_depth_is_a_positive_number() -> None:
    with pytest.raises(ValueError, match="depth=0: choose 1 or more"):
        explained("both").plot_layers(depth=0)


@pytest.mark.parametrize("check", ["ends", "off"])
def test_books_that_were_not_kept_are_told(check: str) -> None:
    model, inputs = traced("features")[0].model, traced("features")[1]
    explanation = DLBacktrace(model, inputs, check=check).explain(*inputs)
    remedy = 'explain with check="raise" or check="warn"'
    assert texts(explanation.plot_layers())[-1] == f"nothing was recorded by node: {remedy}"
    ledger = explanation.plot_ledger()
    assert (f"no books were kept: {remedy}" in texts(ledger)) == (check == "off")
    assert outside(ledger) == outside(explanation.plot_layers()) == []


def test_experts_are_a_map_with_shares(mixed: Explanation) -> None:
    picture = mixed.plot_experts(target=1)
    found = [*mixed.experts.values()]
    expected = torch.stack([layer.relevance[1] for layer in found])
    np.testing.assert_allclose(shown_map(panels(picture)["experts"]), expected)
    share = 100 * float(expected[1, 2]) / found[1].entered[1]
    assert Digits(0 if abs(share) >= 100 else 1).text(share, sign=False) in texts(picture)
    assert {*mixed.experts, "0", "1", "2", "3"} <= {*texts(picture)}
    assert (outside(picture), overlapping(picture)) == ([], [])


def test_layers_with_fewer_experts_are_blank_beyond(mixed: Explanation) -> None:
    first, second = mixed.experts.values()
    fewer = dataclasses.replace(second, by_token=second.by_token[..., :3])
    old = mixed.relevance
    relevance = Relevance(
        mixed.inputs, old.ledgers, inputs=("x",), target=old.target, mode="epsilon", several=True,
        experts={"a": first, "$b$": fewer},
    )  # fmt: skip
    picture = dataclasses.replace(mixed, relevance=relevance).plot_experts()
    found = shown_map(panels(picture)["experts"])
    assert np.isnan(found).tolist() == [[False] * 4, [False] * 3 + [True]]
    assert "$b$" in texts(picture)


def test_of_many_experts_the_strongest_have_their_shares_beside(mixed: Explanation) -> None:
    layer = dataclasses.replace(mixed.experts["first.experts"], by_token=torch.zeros(2, 2, 3, 64))
    layer.by_token[0, 0, 0, 7], layer.by_token[0, 1, 1, 40] = 5.0, -6.0
    old = mixed.relevance
    more: Any = {"inputs": ("x",), "target": old.target, "mode": "epsilon", "several": True}
    relevance = Relevance(mixed.inputs, old.ledgers, experts={"first": layer}, **more)
    picture = dataclasses.replace(mixed, relevance=relevance).plot_experts()
    whole = layer.entered[0]
    shares = [100 * units / whole for units in (-6.0, 5.0)]
    written = [Digits(0 if abs(share) >= 100 else 1).text(share, sign=False) for share in shares]
    assert any(f"   40: {written[0]} %, 7: {written[1]} %, " in text for text in texts(picture))
    assert (outside(picture), overlapping(picture)) == ([], [])


def test_experts_of_two_maps(routed: DLBacktrace) -> None:
    explanation = routed.explain(torch.randn(2, 3, 5), mode="contrastive")
    here = panels(explanation.plot_experts())
    for side, relevance in (("for the target", explanation.positive), ("against it", explanation.negative)):
        expected = torch.stack([layer.relevance for layer in relevance.experts.values()])
        np.testing.assert_allclose(shown_map(here[f"experts {side}"]), expected)
    assert here["experts for the target"].images[0].get_clim() == here["experts against it"].images[0].get_clim()


def test_experts_that_are_not_there_are_refused(mixed: Explanation) -> None:
    with pytest.raises(ValueError, match="no relevance came to experts"):
        explained("features").plot_experts()
    with pytest.raises(ValueError, match=r"target=2: choose from 0 \.\. 1"):
        mixed.plot_experts(target=2)
    old = mixed.relevance
    relevance = Relevance(mixed.inputs, old.ledgers, inputs=("x",), target=0, mode="expected", several=True)
    with pytest.raises(ValueError, match="mode 'expected' runs at several points"):
        dataclasses.replace(mixed, relevance=relevance).plot_experts()
