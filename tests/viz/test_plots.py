"""Figures of the inputs: the numbers that they show, what fits on them, and that they leave no trace."""

from __future__ import annotations

import sys
import warnings
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
import torch
from matplotlib.text import Text

from dlb_core import Explanation
from dlb_core.viz.colour import colour_limit
from dlb_core.viz.plots.digits import Digits, plain
from dlb_core.viz.plots.scale import COLOURS, Scale
from dlb_core.viz.view import views
from viz.drawn import bars, boxes, outside, overlapping, panels, shown_map, texts, with_units
from viz.explained import explained

KINDS = ("image", "tokens", "features", "series", "values")
LONG = "a name of sixty characters, which is $x_1^2$ and <b>bold</b>"


def units_of(explanation: Explanation, **which: int) -> np.ndarray:
    (view,) = views(explanation, **which)
    return view.units.numpy()


def test_an_image_is_drawn_beside_its_relevance() -> None:
    explanation = explained("image", "epsilon")
    (view,) = views(explanation, sample=1)
    picture = explanation.plot(sample=1)
    here = panels(picture)
    np.testing.assert_array_equal(shown_map(here[view.name]), view.plane.numpy())
    limit = colour_limit(view.plane)
    assert here[view.name].images[-1].get_clim() == (-limit, limit)
    assert view.picture is not None
    np.testing.assert_allclose(shown_map(here[f"{view.name} picture"]), view.picture.permute(1, 2, 0), rtol=1e-6)
    below = np.asarray(here[view.name].images[0].get_array())  # what the colours lie on
    assert (below[..., 0] == below[..., 1]).all()
    assert below.min() >= 0.5
    assert {Digits.of(limit).text(limit), Digits.of(limit).text(-limit)} <= {*texts(picture)}


def test_an_image_by_channel_has_one_scale() -> None:
    explanation = explained("image", "epsilon")
    (view,) = views(explanation)
    here = panels(explanation.plot(channels=True))
    maps = [here[f"{view.name} channel {i}"] for i in range(3)]
    for axes, units in zip(maps, view.units, strict=True):
        np.testing.assert_array_equal(shown_map(axes), units.numpy())
    assert {axes.images[-1].get_clim() for axes in maps} == {(-colour_limit(view.units), colour_limit(view.units))}


def test_of_many_channels_the_strongest_are_drawn() -> None:
    units = torch.zeros(1, 20, 4, 4)
    units[0] += torch.arange(20.0)[:, None, None]
    picture = with_units(explained("image"), units).plot(channels=True)
    (name,) = explained("image").inputs
    assert {*panels(picture)} == {"colours", *(f"{name} channel {i}" for i in range(4, 20))}
    assert "4 more channels, with less relevance" in texts(picture)


def test_tokens_are_boxes_with_their_units() -> None:
    explanation = explained("tokens", "epsilon").captioned(tokens=[["a", " b", "\n", "\0", "$x$", "<i>", "  "]] * 3)
    units = units_of(explanation, sample=2)
    picture = explanation.plot(sample=2)
    axes = panels(picture)["ids"]
    np.testing.assert_array_equal(boxes(axes).get_array(), units)
    shown = [text.get_text() for text in axes.texts or axes.findobj(Text) if text.get_text()]
    assert shown[::2] == ["a", " b", "⏎", "\\0", "$x$", "<i>", "␣␣"]
    digits = Digits.of(colour_limit(torch.tensor(units)))
    assert shown[1::2] == [digits.text(n) for n in units]


@pytest.mark.parametrize("count", [1, 512])
def test_every_token_has_room_in_its_box(count: int) -> None:
    words = ["the", " quick", "##ing", ".", " " + "long" * 60][: max(1, min(count, 5))]
    units = torch.randn(1, count, generator=torch.Generator().manual_seed(0))
    made = with_units(explained("tokens"), units, torch.zeros(1, count, dtype=torch.long))
    picture = made.captioned(tokens=[(words * count)[:count]]).plot()
    axes = panels(picture)["ids"]
    collection = boxes(axes)
    assert len(collection.get_paths()) == count
    assert picture.get_size_inches()[0] < 10
    corners = np.array([path.vertices[:4] for path in collection.get_paths()])
    assert corners[..., 0].max() <= axes.get_xlim()[1] + 1e-9
    assert corners[..., 1].max() < axes.get_ylim()[0]
    for line in np.unique(corners[:, 0, 1]):  # boxes of a line follow each other
        row = corners[corners[:, 0, 1] == line]
        assert (row[1:, 0, 0] >= row[:-1, 1, 0]).all()
    written = [text for text in axes.findobj(Text) if text.get_text()]
    for text, number, box in list(zip(written[::2], written[1::2], corners, strict=True))[:30]:
        left, right = axes.transData.transform(box[:2])[:, 0]
        for each in (text, number):
            extent = each.get_window_extent()
            assert left - 1 <= extent.x0
            assert extent.x1 <= right + 1


def test_features_are_bars_by_size() -> None:
    explanation = explained("features", "epsilon").captioned(features=["a", "b", "$c$", LONG, "e"])
    units = units_of(explanation, sample=1)
    picture = explanation.plot(sample=1)
    order = np.argsort(-abs(units), kind="stable")
    np.testing.assert_allclose(bars(panels(picture)["input"]), units[order])
    names = [text for text in texts(picture) if text in ("a", "b", "$c$", LONG, "e")]
    assert names == [["a", "b", "$c$", LONG, "e"][i] for i in order]
    (view,) = views(explanation, sample=1)
    assert view.values is not None
    assert {plain(value) for value in view.values.tolist()} <= {*texts(picture)}


@pytest.mark.parametrize(("count", "rows"), [(1, 1), (21, 21), (22, 21), (200, 21)])
def test_beyond_twenty_bars_the_rest_is_summed(count: int, rows: int) -> None:
    units = torch.arange(1.0, count + 1).unsqueeze(0) * torch.tensor([1.0, -1.0]).repeat(count)[:count]
    picture = with_units(explained("features"), units).plot()
    lengths = bars(panels(picture)["input"])
    assert len(lengths) == rows
    assert sum(lengths) == pytest.approx(float(units.sum()))
    assert (f"… {count - 20} more" in texts(picture)) == (count > 21)


def test_series_are_lines_on_strips() -> None:
    explanation = explained("series", "epsilon").captioned(features=["voltage", LONG])
    (view,) = views(explanation, sample=1)
    assert view.values is not None
    here = panels(explanation.plot(sample=1))
    for channel in range(2):
        strip, line = here[f"input {channel}"], here[f"input {channel} values"].lines[-1]
        np.testing.assert_array_equal(shown_map(strip)[0], view.units[:, channel].numpy())
        np.testing.assert_array_equal(line.get_ydata(), view.values[:, channel].double().numpy())


def test_of_many_channels_the_strips_are_a_map() -> None:
    units = torch.randn(1, 40, 120, generator=torch.Generator().manual_seed(0))
    picture = with_units(explained("series"), units, units).plot()
    np.testing.assert_allclose(shown_map(panels(picture)["input"]), units[0])
    assert {"0", "15", "39"} <= {*texts(picture)}


def test_other_values_are_bars_with_their_place() -> None:
    explanation = explained("values", "epsilon")
    units = units_of(explanation)
    picture = explanation.plot()
    flat = np.sort(-abs(units.flatten()))
    np.testing.assert_allclose(-np.abs(bars(panels(picture)["input"])[:20]), flat[:20])
    strongest = np.unravel_index(abs(units).argmax(), units.shape)
    assert next(t for t in texts(picture) if t.startswith("[")) == f"[{', '.join(map(str, strongest))}]"


@pytest.mark.parametrize("kind", KINDS)
def test_two_maps_stand_side_by_side_on_one_scale(kind: str) -> None:
    explanation = explained(kind, "contrastive")
    one, other = views(explanation, sample=1)
    picture = explanation.plot(sample=1)
    here = panels(picture)
    pair = [next(axes for name, axes in here.items() if name.startswith(f"{one.name} {v.side}")) for v in (one, other)]
    assert pair[0].get_position().y0 == pytest.approx(pair[1].get_position().y0)
    assert pair[0].get_position().x1 < pair[1].get_position().x0
    if kind in ("image", "series"):
        assert pair[0].images[-1].get_clim() == pair[1].images[-1].get_clim()
    elif kind == "tokens":
        assert boxes(pair[0]).get_clim() == boxes(pair[1]).get_clim()
    else:
        assert pair[0].get_xlim() == pair[1].get_xlim()
        sums = [float(view.units.sum()) for view in (one, other)]
        assert [sum(bars(axes)) for axes in pair] == pytest.approx(sums)
    assert any("for the target" in text for text in texts(picture))
    assert any("against it" in text for text in texts(picture))


def test_every_input_has_a_row_and_can_be_chosen() -> None:
    explanation = explained("both", "epsilon")
    here = panels(explanation.plot())
    assert here["image"].get_position().y0 > here["facts"].get_position().y1
    assert {*panels(explanation.plot("facts"))} == {"facts"}


def test_targets_and_their_names_are_told() -> None:
    explanation = explained("features", "epsilon", (0, 2)).captioned(classes=["a", "b", LONG, "d"], model="net $1$")
    units = units_of(explanation, target=1)
    picture = explanation.plot(target=1)
    np.testing.assert_allclose(sorted(bars(panels(picture)["input"])), sorted(units))
    assert texts(picture)[0] == f"Relevance · target 2: {LONG}"
    assert texts(picture)[1] == "net $1$ · mode epsilon · sample 0 of 3"


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"name": "y"}, "'y' is no explained input; choose from input"),
        ({"sample": 3}, "sample=3: choose from 0 .. 2"),
        ({"target": 1}, "target=1: choose from 0 .. 0"),
        ({"channels": True}, "channels=True: none of these inputs is an image"),
    ],
)
def test_what_is_not_there_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words.replace(".", r"\.")):
        explained("features").plot(**wrong)


def test_what_is_empty_is_refused() -> None:
    with pytest.raises(ValueError, match="'input' is empty: there is nothing to draw"):
        with_units(explained("features"), torch.zeros(1, 0)).plot()


@pytest.mark.parametrize("factor", [0.0, -1e-40, 1e38])
@pytest.mark.parametrize("kind", ["image", "tokens", "features"])
def test_any_size_of_relevance_can_be_drawn(kind: str, factor: float) -> None:
    explanation = explained(kind)
    ((name, units),) = explanation.inputs.items()
    units = units.double().abs() / units.double().abs().max() * factor
    picture = with_units(explanation, units, explanation.given[name]).plot()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture.canvas.draw()
    assert outside(picture) == []
    mark = {0.0: "0", -1e-40: "e\N{MINUS SIGN}4", 1e38: "e3"}[factor]
    assert any(mark in text for text in texts(picture)[2:])


@pytest.mark.parametrize(("kind", "mode"), [("both", "epsilon"), *((kind, "contrastive") for kind in KINDS)])
def test_nothing_is_cut_off_or_covered(kind: str, mode: str) -> None:
    names: dict[str, Any] = {"classes": [LONG] * 4, "model": "a model with a name"}
    if kind == "tokens":
        names["tokens"] = [[LONG, " b", "c", "d", "e", "f", "g"]] * 3
    if kind in ("features", "series"):
        names["features"] = [f"{i} {LONG}" for i in range(5 if kind == "features" else 2)]
    picture = explained(kind, mode).captioned(**names).plot(sample=1)
    assert outside(picture) == []
    assert overlapping(picture) == []


def test_text_is_never_a_formula_and_no_glyph_is_missing() -> None:
    odd = ["$\\frac{1}", "中文", "\U0001f9ff", "a\u202eb", "é", "\ud800", "$"]
    explanation = explained("tokens").captioned(tokens=[odd] * 3, classes=["$a", "中", "\n", "d$"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = explanation.plot()
        picture.canvas.draw()
    assert not any(text.get_parse_math() or text.get_usetex() for text in picture.findobj(Text) if text.get_text())
    assert {"$\\frac{1}", "a\\u202eb", "é", "\\ud800", "$"} <= {*texts(picture)}
    assert not any("\n" in text for text in texts(picture))


def settings() -> dict[str, Any]:
    """As they lie there: to ask for the backend would choose one, and import pyplot."""
    return {name: dict.__getitem__(matplotlib.rcParams, name) for name in dict.keys(matplotlib.rcParams)}


def test_nothing_global_is_touched(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delitem(sys.modules, "matplotlib.pyplot", raising=False)
    before = settings()
    picture = explained("both", "contrastive").plot()
    picture.savefig(tmp_path / "picture.svg")
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert "matplotlib.pyplot" not in sys.modules
    assert settings() == before


def test_a_dark_style_changes_nothing() -> None:
    plain_one = explained("tokens").plot()._repr_png_()
    dark = {"savefig.facecolor": "black", "figure.facecolor": "black", "text.color": "white", "text.usetex": True}
    with matplotlib.rc_context({**dark, "font.family": "serif", "axes.grid": True, "figure.autolayout": True}):
        assert explained("tokens").plot()._repr_png_() == plain_one


def test_without_matplotlib_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("dlb_core.viz.plots")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match=r'matplotlib is missing: pip install "dlb-core\[viz\]"'):
        explained("features").plot()


def test_text_on_colours_can_be_read() -> None:
    def luminance(colour: Any) -> float:
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in matplotlib.colors.to_rgb(colour)]
        return float(np.dot([0.2126, 0.7152, 0.0722], linear)) + 0.05

    scale = Scale(2.0)
    for value in np.linspace(-3, 3, 61):
        ground, ink = luminance(COLOURS(scale.norm(value))), luminance(scale.ink(float(value)))
        assert max(ground, ink) / min(ground, ink) > 4


@pytest.mark.parametrize(
    ("limit", "value", "text", "exact"),
    [
        (0.0, 0.0, "0", "0"),
        (24.0, -12.345, "\N{MINUS SIGN}12.3", "\N{MINUS SIGN}12.3"),
        (24.0, 0.01, "0.0", "+0.01"),
        (24.0, -3e-5, "0.0", "\N{MINUS SIGN}3e\N{MINUS SIGN}5"),
        (0.5, 0.25, "+0.250", "+0.250"),
        (2e-9, 1e-9, "+1.00e\N{MINUS SIGN}9", "+1.00e\N{MINUS SIGN}9"),
        (2e30, 1e28, "+0.01e30", "+0.01e30"),
        (2e30, 1e25, "0.00", "+1e25"),
        (3e3, 12.0, "+12", "+12"),
    ],
)
def test_numbers_of_a_row_have_the_same_digits(limit: float, value: float, text: str, exact: str) -> None:
    digits = Digits.of(limit)
    assert (digits.text(value), digits.exact(value)) == (text, exact)
