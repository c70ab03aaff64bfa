"""Views: what an input is, whose units it shows, and what things are called."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from dlb_core import Explanation
from dlb_core.viz.view import AGAINST, FOR, ledger_of, views
from viz.explained import explained, traced

KINDS = ("image", "tokens", "features", "series", "values")


@pytest.mark.parametrize("kind", KINDS)
def test_an_input_is_what_its_shape_and_values_say(kind: str) -> None:
    (view,) = views(explained(kind), sample=1)
    assert view.kind == kind
    assert view.units.dtype is torch.float64


@pytest.mark.parametrize("kind", KINDS)
def test_the_units_of_all_samples_are_the_ledgers(kind: str) -> None:
    explanation = explained(kind)
    total = sum(float(views(explanation, sample=i)[0].units.sum()) for i in range(3))
    assert total == pytest.approx(sum(explanation.ledger.inputs.values()), rel=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_values_are_those_of_the_sample(kind: str) -> None:
    explanation, (given, *_) = explained(kind), traced(kind)[1]
    (view,) = views(explanation, sample=2)
    assert view.values is not None
    expected = given[2].T if kind == "series" else given[2]
    assert torch.equal(view.values, expected)
    assert view.values.shape == view.units.shape


def test_a_series_has_time_first_and_keeps_places() -> None:
    explanation = explained("series")
    (view,) = views(explanation)
    (units,) = explanation.inputs.values()
    assert torch.equal(view.units, units[0].double().T)
    assert view.labels == ("0", "1")


def test_several_inputs_are_views_of_their_own() -> None:
    found = views(explained("both"))
    assert [(v.name, v.kind) for v in found] == [("image", "image"), ("facts", "features")]


def test_a_contrastive_explanation_has_a_view_for_each_side() -> None:
    explanation = explained("image", "contrastive")
    one, other = views(explanation, sample=1)
    assert (one.side, other.side) == (FOR, AGAINST)
    (difference,) = explanation.inputs.values()
    torch.testing.assert_close(one.units - other.units, difference[1].double(), rtol=1e-4, atol=1e-5)


def test_several_targets_are_chosen_by_number() -> None:
    explanation = explained("features", "default", (0, 2))
    alone = traced("features")[0].explain(*traced("features")[1], target=2)
    (view,) = views(explanation, sample=1, target=1)
    torch.testing.assert_close(view.units, alone.inputs["input"][1].double())
    assert ledger_of(explanation.relevance, 1) is explanation.ledger[1]


@pytest.mark.parametrize("wrong", [{"sample": 3}, {"sample": -1}, {"target": 1}])
def test_what_is_not_there_is_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(ValueError, match=r"choose from 0 \.\."):
        views(explained("features"), **wrong)


def test_the_picture_is_the_input_stretched_or_the_one_that_was_given() -> None:
    (given,) = traced("image")[1]
    (view,) = views(explained("image"))
    low, high = given[0].min(), given[0].max()
    torch.testing.assert_close(view.picture, (given[0] - low) / (high - low))
    shown = torch.rand(3, 1, 16, 16)
    (view,) = views(explained("image").captioned(images=shown), sample=1)
    torch.testing.assert_close(view.picture, shown[1])


class Speller:
    """A tokenizer of letters; id 0 is special."""

    all_special_ids = (0,)

    def decode(self, ids: list[int], **_: object) -> str:
        return "".join(chr(96 + i) for i in ids if i)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [chr(96 + i) if i else "<s>" for i in ids]


def test_tokens_are_read_by_the_tokenizer_or_given() -> None:
    explanation, (ids,) = explained("tokens"), traced("tokens")[1]
    (view,) = views(explanation, sample=1)
    assert view.labels == tuple(map(str, ids[1].tolist()))
    (view,) = views(explanation.captioned(tokenizer=Speller()), sample=1)
    assert view.labels == tuple(Speller().convert_ids_to_tokens(ids[1].tolist()))
    texts = [[f"{row}-{i}" for i in range(7)] for row in range(3)]
    (view,) = views(explanation.captioned(tokens=texts), sample=2)
    assert view.labels == tuple(texts[2])


def test_kinds_decide_where_the_shape_does_not() -> None:
    explanation = explained("series").captioned(kinds="image")
    (view,) = views(explanation)
    assert (view.kind, view.units.shape) == ("image", (1, 2, 12))


def test_names_that_do_not_fit_are_refused() -> None:
    image, tokens = explained("image"), explained("tokens")
    for explanation, names, message in (
        (tokens, {"tokens": ["a", "b"]}, "expected 7 for each sample"),
        (image, {"tokenizer": Speller()}, "no explained input holds ids"),
        (tokens, {"tokenizer": Speller(), "tokens": []}, "give one of them"),
        (image, {"classes": ["a", "b"]}, "2 names for an output"),
        (image, {"images": torch.zeros(1, 3, 8, 8)}, r"\[3, 1 or 3, H, W\]"),
        (image, {"features": ["a"] * 7}, "7 names"),
        (image, {"kinds": "sound"}, "choose one of"),
        (image, {"kinds": {"picture": "image"}}, "is no explained input"),
        (explained("both"), {"features": ["a"] * 5}, "give a mapping by name"),
    ):
        with pytest.raises(ValueError, match=message):
            explanation.captioned(**names)


def test_names_are_saved_with_the_explanation(tmp_path: object) -> None:
    shown = torch.rand(3, 3, 8, 8)
    explanation = explained("both").captioned(
        model="<net>",
        classes={0: "cat", 2: "dog", 1: "hen", 3: "ox"},
        features={"facts": "abcde"},
        images={"image": shown},
    )
    explanation.save(f"{tmp_path}/saved")
    loaded = Explanation.load(f"{tmp_path}/saved")
    assert loaded.captions.classes == ("cat", "hen", "dog", "ox")
    for one, other in zip(views(explanation, sample=1), views(loaded, sample=1), strict=True):
        assert (one.name, one.kind, one.labels) == (other.name, other.kind, other.labels)
        assert _same(one.units, other.units)
        assert _same(one.values, other.values)
        assert _same(one.picture, other.picture)


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other or (one is not None and other is not None and torch.equal(one, other))


def test_what_was_explained_stays_when_the_caller_changes_his_tensor() -> None:
    dlb, (x,) = traced("features")
    mine = x.clone()
    explanation = dlb.explain(mine)
    mine.zero_()
    assert torch.equal(explanation.given["input"], x)


def test_the_ledger_knows_shapes_and_the_callers_names() -> None:
    ledger = explained("both").ledger
    assert ledger.by_node["linear"].shape == (3, 4)
    assert ledger.by_node["conv2d"].shape == (3, 4, 6, 6)
    assert "image" in ledger.by_node["conv2d"].edges


@pytest.mark.parametrize(("kind", "drawn"), [("tokens", "image"), ("image", "features"), ("values", "series")])
def test_a_kind_that_does_not_fit_is_refused(kind: str, drawn: str) -> None:
    with pytest.raises(ValueError, match=f"cannot be drawn as {drawn}: a sample of it has the shape"):
        views(explained(kind).captioned(kinds=drawn))
