"""The report's document and file: numbers are those of the explanation, names are text, one file or none."""

from __future__ import annotations

import dataclasses
import html
import json
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from dlb_core import DLBacktrace, Explanation
from dlb_core.captions import Captions
from dlb_core.viz.report import generation_html, report_html
from dlb_core.viz.report.books import Source, written_books
from viz.reports import HOSTILE, Tokenizer, array, data_of, explained, generation, like, routed

KINDS = ["image", "text", "table", "series"]


def view_of(explanation: Explanation, sample: int = 0, target: int = 0, number: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = data_of(report_html([explanation]))["columns"][0]["views"][target][sample][number]
    return found


def listed(view: dict[str, Any]) -> float:
    """The units that a reader can see of an input."""
    units = array(view["units"]) if "units" in view else np.array([row["units"] for row in view["rows"]])
    drawn = units.sum(dtype=np.float64)
    return float(drawn + view.get("rest", {"units": 0})["units"])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("sample", [0, 1])
def test_what_is_drawn_of_an_input_sums_to_its_relevance(kind: str, sample: int) -> None:
    explanation = explained(kind)
    [units] = [each[sample].double() for each in explanation.inputs.values()]
    view = view_of(explanation, sample)
    assert view["total"] == pytest.approx(float(units.sum()))
    assert listed(view) == pytest.approx(float(units.sum()), abs=1e-5 * float(units.abs().sum()))


def test_an_image_keeps_every_pixel_of_every_channel() -> None:
    explanation = explained("image")
    view = view_of(explanation)
    assert np.allclose(array(view["units"]), explanation.inputs["x"][0])
    picture = explanation.given["x"][0]
    assert np.abs(array(view["picture"]) / 255 - picture.numpy()).max() <= 0.5 / 255 + 1e-6


def test_a_large_image_is_reduced_and_keeps_its_units() -> None:
    torch.manual_seed(0)
    x = torch.rand(1, 3, 1100, 70)
    units = torch.randn(1, 3, 1100, 70)
    explanation = like(explained("image"), "x", x, units)
    data = data_of(report_html([explanation]))
    [[[view]]] = data["columns"][0]["views"]
    assert view["units"]["shape"] == [3, 367, 24]
    block = units[0, :, 3:6, 69:].double().sum((1, 2))  # the last column holds one pixel's width
    assert np.allclose(array(view["units"])[:, 1, 23], block, atol=1e-5)
    assert listed(view) == pytest.approx(float(units.double().sum()), abs=1e-2)
    assert np.allclose(array(view["picture"])[:, 1, 23] / 255, x[0, :, 3:6, 69:].mean((1, 2)), atol=0.003)
    assert any("512 pixels" in note for note in data["notes"])


def test_a_large_batch_stays_a_page_that_opens_at_once() -> None:
    page = report_html([like(explained("image"), "x", torch.rand(40, 3, 224, 224), torch.randn(40, 3, 224, 224))])
    assert len(page) <= 3_000_000
    data = data_of(page)
    shown = len(data["samples"])
    assert 4 <= shown <= 16
    assert len(data["columns"][0]["views"][0]) == shown
    assert f"The first {shown} of 40 samples are shown; the ledger is that of all." in data["notes"]
    assert "Images are shown summed over their channels." in data["notes"]


def test_of_many_features_the_largest_are_listed() -> None:
    explanation = explained("table")
    view = view_of(explanation)
    units = explanation.inputs["input"][0].abs()
    assert {row["label"] for row in view["rows"]} == {f"feature {i}" for i in units.topk(100).indices.tolist()}
    assert view["rest"]["count"] == 30


@pytest.mark.parametrize("kind", KINDS)
def test_the_ledger_is_whole(kind: str) -> None:
    explanation = explained(kind)
    [[book]] = data_of(report_html([explanation]))["columns"][0]["books"]
    units = [line["units"] for line in book["lines"]]
    assert book["seed"] == explanation.ledger.seed
    assert sum(units) == pytest.approx(book["seed"])
    hundredths = [int(line["share"].removesuffix(" %").replace(".", "")) for line in book["lines"]]
    assert sum(hundredths) == 10_000


def test_the_layers_are_the_modules_in_the_order_of_the_model() -> None:
    explanation = explained("image")
    [[book]] = data_of(report_html([explanation]))["columns"][0]["books"]
    books = explanation.by_module()
    assert {row["path"]: {side: row[side] for side in ("in", "out", "booked")} for row in book["layers"]} == books
    named = [(row["name"], row["depth"]) for row in book["layers"] if row["path"]]
    assert named == [("body", 0), ("0", 1), ("1", 1), ("2", 1), ("pool", 0), ("head", 0)]


def test_layers_come_before_graphs_where_room_is_short() -> None:
    ledger = explained("image").ledger
    sources = [Source(ledger, "", {}, None)] * 3
    size = len(json.dumps(sources[0].part("layers")))
    books, notes = written_books(sources, 2 * size + 1)
    assert [book["layers"] is not None for book in books] == [True, True, False]
    assert all(book["graph"] is None and book["lines"] for book in books)
    assert "The layers of 1 of 3 ledgers are left out: the page would be too large." in notes
    assert "The graphs of 3 of 3 ledgers are left out: the page would be too large." in notes


def test_experts_are_those_of_the_explanation() -> None:
    explanation = routed()
    [[book]] = data_of(report_html([explanation]))["columns"][0]["books"]
    for written, (name, layer) in zip(book["experts"], explanation.experts.items(), strict=True):
        assert written["name"] == name
        assert written["units"] == pytest.approx(layer.relevance.tolist())
        assert written["load"] == layer.load.tolist()
    [[none]] = data_of(report_html([explained("text")]))["columns"][0]["books"]
    assert none["experts"] == []


def test_every_target_and_both_sides_of_a_contrast_have_maps_and_books() -> None:
    explanation = explained("image", mode="contrastive", targets=(1, 3))
    data = data_of(report_html([explanation]))
    assert data["targets"] == ["dog", "cup"]
    for target in (0, 1):
        found = data["columns"][0]["views"][target][1]
        assert [view["side"] for view in found] == ["for the target", "against it"]
        for view, side in zip(found, (explanation.positive, explanation.negative), strict=True):
            assert np.allclose(array(view["units"]), side.inputs["x"][target][1])
        assert found[0]["limits"] == found[1]["limits"]
        books = data["columns"][0]["books"][target]
        assert [book["seed"] for book in books] == [
            explanation.positive.ledgers[target].seed,
            explanation.negative.ledgers[target].seed,
        ]


def test_the_prediction_names_classes_and_what_is_explained() -> None:
    explanation = explained("image")
    data = data_of(report_html([explanation]))
    classes = data["predictions"][0][0]["classes"][1]
    best = int(explanation.output[1].argmax())
    assert classes[0]["class"] == best
    assert classes[0]["name"] == explanation.captions.classes[best]
    assert classes[0]["probability"] == pytest.approx(float(explanation.output[1].softmax(0).max()), rel=1e-5)
    assert data["columns"][0]["targets"][0][1] == {"name": explanation.captions.classes[best], "class": best}


def test_where_a_position_is_explained_the_prediction_is_the_one_there() -> None:
    torch.manual_seed(0)
    ids = torch.randint(0, 40, (2, 5))
    by_position = nn.Sequential(nn.Embedding(40, 8), nn.Linear(8, 3))
    explanation = DLBacktrace(by_position.eval(), ids).explain(ids, target=[(1, 2), (3, 0)])
    data = data_of(report_html([explanation]))
    for sample, position in enumerate((1, 3)):
        best = data["predictions"][0][0]["classes"][sample][0]
        assert best["output"] == pytest.approx(float(explanation.output[sample, position].max()))
    assert [each["name"] for each in data["columns"][0]["targets"][0]] == ["1, 2", "3, 0"]


def test_modes_beside_each_other_share_inputs() -> None:
    pair = [explained("image"), explained("image", mode="default")]
    data = data_of(report_html(pair))
    assert [column["mode"] for column in data["columns"]] == ["epsilon", "default"]
    for column, explanation in zip(data["columns"], pair, strict=True):
        assert np.allclose(array(column["views"][0][1][0]["units"]), explanation.inputs["x"][1])


def test_explanations_of_other_inputs_are_refused(tmp_path: Path) -> None:
    one = explained("image")
    path = tmp_path / "report.html"
    one.to_html(path)
    before = path.read_bytes()
    other = dataclasses.replace(one, given={"x": one.given["x"] + 1})
    for beside, why in [
        (explained("table"), "other inputs"),
        (other, "'x' does not hold the same values"),
        (explained("image", targets=(0, 1)), "1 and 2 targets"),
    ]:
        with pytest.raises(ValueError, match=why):
            one.to_html(path, beside=[beside])
    assert path.read_bytes() == before
    assert [*tmp_path.iterdir()] == [path]


def test_the_file_goes_where_it_can(tmp_path: Path) -> None:
    explanation = explained("table")
    with pytest.raises(IsADirectoryError, match="is a folder"):
        explanation.to_html(tmp_path)
    with pytest.raises(FileNotFoundError, match="does not exist"):
        explanation.to_html(tmp_path / "missing" / "report.html")
    assert [*tmp_path.iterdir()] == []
    written = explanation.to_html(str(tmp_path / "report.html"))
    assert written == tmp_path / "report.html"
    assert written.read_text("utf-8") == report_html([explanation])


def test_a_saved_explanation_gives_the_same_page(tmp_path: Path) -> None:
    explanation = explained("image", mode="contrastive", targets=(1, 3))
    explanation.save(tmp_path / "saved")
    saved, fresh = (data_of(report_html([e])) for e in (Explanation.load(tmp_path / "saved"), explanation))
    assert saved == fresh


def test_without_inputs_and_names_there_is_still_a_page() -> None:
    bare = dataclasses.replace(explained("image"), given={}, captions=Captions())
    view = view_of(bare)
    assert view["picture"] is None
    assert listed(view) == pytest.approx(view["total"], abs=1e-4)
    data = data_of(report_html([bare]))
    assert data["columns"][0]["targets"][0][0]["name"] == str(bare.target[0])


def test_without_books_by_node_there_are_no_layers() -> None:
    torch.manual_seed(0)
    x = torch.randn(1, 4)
    explanation = DLBacktrace(nn.Linear(4, 2).eval(), x, check="ends").explain(x)
    [[book]] = data_of(report_html([explanation]))["columns"][0]["books"]
    assert book["layers"] == []
    assert "check=" in book["graph"]["reason"]
    assert sum(line["units"] for line in book["lines"]) == pytest.approx(100)


def test_numbers_that_are_none_are_named() -> None:
    odd = explained("table").given["input"].clone()
    odd[0, 0], odd[0, 1] = float("nan"), float("inf")
    changed = dataclasses.replace(explained("table"), given={"input": odd})
    units = changed.inputs["input"].clone()
    units[0, :2] = 1e6  # so that both are listed
    relevance = type(changed.relevance)(
        {"input": units}, changed.relevance.ledgers, inputs=("input",), target=0, mode=""
    )
    view = view_of(dataclasses.replace(changed, relevance=relevance))
    values = {row["label"]: row["value"] for row in view["rows"]}
    assert values["feature 0"] == "nan"
    assert values["feature 1"] == "inf"


class Elements(HTMLParser):
    """The elements of a page, outside its scripts, and its title."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.title = ""
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.tags.append(tag)
        assert not any(name.startswith("on") for name, _ in attrs)

    def handle_data(self, data: str) -> None:
        if self.tags[-1:] == ["title"] and not self.title:
            self.title = data


@pytest.mark.parametrize("name", HOSTILE)
def test_names_are_text_and_nothing_else(name: str) -> None:
    plain = explained("table")
    features = [name] * 130
    ledger = dataclasses.replace(plain.ledger, accounts={f"bias:{name}": 1.0}, seed=plain.ledger.seed + 1)
    old = plain.relevance
    relevance = type(old)(old.inputs, (ledger,), inputs=("input",), target=0, mode=name)
    explanation = dataclasses.replace(plain, relevance=relevance, options={name: name})
    explanation = explanation.captioned(model=name, features=features, classes=[name] * 4)
    page = report_html([explanation])
    data = data_of(page)
    assert data["model"] == name
    assert {row["label"] for row in data["columns"][0]["views"][0][0][0]["rows"]} == {name}
    assert data["columns"][0]["options"] == [[name, name]]
    assert {each["name"] for each in data["predictions"][0][0]["classes"][0]} == {name}
    found, ordinary = Elements(page), Elements(report_html([plain]))
    assert found.tags.count("script") == ordinary.tags.count("script") == 2
    assert {*found.tags} == {*ordinary.tags}
    assert html.escape(f"bias:{name}") in page  # in the table for those without scripts
    assert found.title.startswith(name)


def test_half_a_character_can_be_written(tmp_path: Path) -> None:
    path = explained("table").captioned(model="half \ud83d").to_html(tmp_path / "report.html")
    assert data_of(path.read_text("utf-8"))["model"] == "half \ud83d"


@pytest.mark.parametrize("contrastive", [False, True])
def test_a_generation_holds_what_each_token_came_from(contrastive: bool, tmp_path: Path) -> None:
    generated = generation(contrastive)
    page = generated.to_html(tmp_path / "report.html", Tokenizer()).read_text("utf-8")
    data = data_of(page)
    assert page == generation_html(generated, Tokenizer())
    for sample, sequence in enumerate(data["generation"]["sequences"]):
        texts = Tokenizer().convert_ids_to_tokens(generated.sequences[sample].tolist())
        assert sequence["tokens"] == texts
        maps = [generated.positive, generated.negative] if contrastive else [generated.relevance]
        for made, units in zip(sequence["maps"], maps, strict=True):
            assert np.allclose(array(made["units"]), units[sample])
    assert len(data["columns"][0]["books"]) == 3


def test_an_encoders_text_is_read_too() -> None:
    units = torch.randn(2, 3, 4)
    source = torch.tensor([[3, 1, 4, 1], [5, 2, 6, 5]])
    generated = dataclasses.replace(generation(), source=source, source_relevance=units)
    data = data_of(generation_html(generated, Tokenizer()))
    for sample, sequence in enumerate(data["generation"]["sequences"]):
        assert sequence["source"] == Tokenizer().convert_ids_to_tokens(source[sample].tolist())
        assert np.allclose(array(sequence["sources"][0]["units"]), units[sample])


def test_a_long_generation_stays_a_page() -> None:
    units = torch.rand(8, 100, 3000)
    short = generation()
    long = dataclasses.replace(
        short,
        sequences=torch.ones(8, 3000, dtype=torch.int64),
        prompt_length=2900,
        generated=torch.ones(8, 100, dtype=torch.bool),
        steps=tuple(range(100)),
        relevance=units,
        ledgers=short.ledgers[:1] * 100,
        scores=None,
    )
    page = generation_html(long)
    assert len(page) <= 3_000_000
    data = data_of(page)
    assert any("of 8 sequences" in note for note in data["notes"])
    assert np.array_equal(array(data["generation"]["sequences"][0]["maps"][0]["units"])[0], units[0, 0].numpy())


def test_a_generation_without_explained_tokens_is_refused() -> None:
    with pytest.raises(ValueError, match="return_relevance=True"):
        generation_html(dataclasses.replace(generation(), relevance=None))
