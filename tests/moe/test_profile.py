"""`ExpertProfile`: what it adds up, in any order, from any form of groups, and what it says of it."""

from __future__ import annotations

import dataclasses
import functools
import operator
import random
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dlb_core import DLBacktrace, Explanation, integrated
from dlb_ops_moe import ExpertProfile
from dlb_ops_moe.profile import OF

from .mixture import Net
from .profiles import EXPERTS, Explained, expert_layer, explained, profile_of, same


def totals_by_hand(data: Sequence[tuple[Explained, list[list[Any]]]], name: str) -> dict[Any, dict[str, Any]]:
    """Group -> what every kind of total is for it, counted token by token."""
    found: dict[Any, dict[str, Any]] = {}
    for one, groups in data:
        layer = one.experts[name]
        for b, row in enumerate(groups):
            for group in {*row} - {None}:
                found.setdefault(group, dict.fromkeys(("relevance", "magnitude", "load", "probability"), 0.0))
                found[group]["samples"] = found[group].get("samples", 0) + 1
            for t, group in enumerate(row):
                if group is None:
                    continue
                mine = found[group]
                mine["tokens"] = mine.get("tokens", 0) + 1
                mine["relevance"] = mine["relevance"] + layer.by_token[b, t].double()
                mine["magnitude"] = mine["magnitude"] + layer.by_token[b, t].double().abs()
                mine["load"] = mine["load"] + layer.selected[b, t].long()
                mine["probability"] = mine["probability"] + layer.probability[b, t].double()
    return found


LABELS = st.sampled_from([None, "noun", "verb", 0, 7, -3])


@st.composite
def data_sets(draw: st.DrawFn) -> list[tuple[Explained, list[list[Any]]]]:
    """Explanations of any sizes, each with a label for each token."""
    found = []
    for _ in range(draw(st.integers(1, 4))):
        samples, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 4))
        groups = [[draw(LABELS) for _ in range(tokens)] for _ in range(samples)]
        found.append((explained(samples, tokens, draw(st.integers(0, 99))), groups))
    return found


@given(data_sets(), st.randoms())
@settings(max_examples=60, deadline=None)
def test_the_totals_are_those_of_every_token_in_any_order_and_split(
    data: list[tuple[Explained, list[list[Any]]]], random: random.Random
) -> None:
    whole = profile_of(data)
    for name in EXPERTS:
        expected = totals_by_hand(data, name)
        assert set(whole.groups) == set(expected)
        tensors = whole.totals(name).tensors()
        for i, group in enumerate(whole.groups):
            for kind, tensor in tensors.items():
                torch.testing.assert_close(tensor[i], torch.as_tensor(expected[group][kind]).to(tensor), msg=kind)
    shuffled = [*data]
    random.shuffle(shuffled)
    same(whole, profile_of(shuffled))
    cut = random.randint(0, len(data))
    same(whole, profile_of(shuffled[:cut]) + profile_of(shuffled[cut:]))
    same(whole, functools.reduce(operator.add, [profile_of([one]) for one in data]))


def test_all_groups_together_are_what_the_layers_say() -> None:
    one = explained(3, 5, 1)
    profile = profile_of([(one, ["a", "b", "a"])])
    for name, layer in one.experts.items():
        totals = profile.totals(name)
        torch.testing.assert_close(totals.relevance.sum(0), layer.by_token.double().sum((0, 1)))
        assert totals.load.sum(0).tolist() == layer.selected.sum((0, 1)).tolist()
        assert totals.tokens.tolist() == [10, 5]
        assert totals.samples.tolist() == [2, 1]


def test_a_data_set_through_a_network(tmp_path: Path) -> None:
    """Batches of several sizes, explained, some of them read from disk: what each expert carried of every class."""
    torch.manual_seed(0)
    model = Net().double().eval()
    x, y = torch.randn(7, 3, 5, dtype=torch.float64), torch.tensor([0, 1, 2, 1, 0, 1, 1])
    dlb = DLBacktrace(model, x)
    profile = ExpertProfile()
    for i, (rows, classes) in enumerate(zip(x.split(3), y.split(3), strict=True)):
        found = dlb.explain(rows, mode="epsilon", target=classes.tolist())
        profile.add(Explanation.load(found.save(tmp_path / str(i))) if i else found.relevance, classes)
    whole = dlb.explain(x, mode="epsilon", target=y.tolist())
    assert profile.mode == "epsilon"
    assert profile.groups == (0, 1, 2)
    assert set(profile.layers) == set(whole.experts) == {"first.experts", "second.experts"}
    for name, layer in whole.experts.items():
        totals = profile.totals(name)
        for group in profile.groups:
            torch.testing.assert_close(totals.relevance[group], layer.by_sample[y == group].sum(0))
            torch.testing.assert_close(totals.probability[group], layer.probability[y == group].sum((0, 1)))
            assert totals.load[group].tolist() == layer.selected[y == group].sum((0, 1)).tolist()
        assert float(totals.relevance.sum()) + sum(layer.accounts.values()) == pytest.approx(layer.entered)
        assert totals.tokens.tolist() == [6, 12, 3]
    with pytest.raises(ValueError, match=r"'second.experts' has relevance of 2 targets at once"):
        ExpertProfile(["second.experts"]).add(dlb.explain(x, mode="epsilon", targets=[0, 1]), y)
    with pytest.raises(ValueError, match="several points"):
        profile.add(dlb.explain(x, mode=integrated("epsilon", baseline=0.999 * x, steps=1), target=1), y)
    linear = torch.nn.Linear(3, 2).eval()
    with pytest.raises(ValueError, match="has no expert layers"):
        profile.add(DLBacktrace(linear, torch.randn(1, 3)).explain(torch.randn(1, 3)), ["a"])


FORMS: dict[str, Any] = {
    "a list": [3, 5, 3],
    "a tuple": (3, 5, 3),
    "a tensor": torch.tensor([3, 5, 3]),
    "an array": np.array([3, 5, 3], dtype=np.uint8),
    "numbers of numpy": [np.int64(3), np.int32(5), np.int64(3)],
    "numbers of torch": [torch.tensor(3), torch.tensor(5), torch.tensor(3)],
    "by token": [[3, 3], [5, 5], [3, 3]],
    "a tensor by token": torch.tensor([[3, 3], [5, 5], [3, 3]]),
    "a list of tensors": [torch.tensor([3, 3]), torch.tensor([5, 5]), torch.tensor([3, 3])],
    "an array by token": np.array([[3, 3], [5, 5], [3, 3]]),
}


@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS)
def test_every_form_of_groups(form: Any) -> None:
    one = explained(3, 2, 2)
    same(profile_of([(one, form)]), profile_of([(one, [3, 5, 3])]))


def test_token_ids_become_kinds_by_a_mapping_or_a_function() -> None:
    one, ids = explained(2, 3, 3), torch.tensor([[11, 12, 0], [12, 12, 11]])
    expected = profile_of([(one, [["word", "mark", None], ["mark", "mark", "word"]])])
    kinds = {11: "word", 12: "mark", 0: None}
    for by in (kinds, kinds.get, {11: "word", 12: "mark"}.get):
        profile = ExpertProfile()
        profile.add(one, ids, by=by)
        same(profile, expected)


def test_shares_tables_and_the_top() -> None:
    layer = expert_layer(
        torch.tensor([[[3.0, -1, 0]], [[0, 0, 2]], [[1, 0, 0]]]),
        torch.tensor([[[True, True, False]], [[False, True, True]], [[True, False, True]]]),
        torch.tensor([[[0.5, 0.5, 0]], [[0, 0.25, 0.75]], [[0.5, 0.25, 0.25]]]),
    )
    profile = profile_of([(Explained({"moe": layer}), ["a", 1, "a"])])
    assert profile.groups == (1, "a")
    assert profile.share("moe").tolist() == [[0, 0, 1], [0.8, 0.2, 0]]
    assert profile.share("moe", of="signed").tolist() == [[0, 0, 1], [0.8, -0.2, 0]]
    assert profile.share("moe", of="load").tolist() == [[0, 0.5, 0.5], [0.5, 0.25, 0.25]]
    assert profile.share("moe", of="probability").tolist() == [[0, 0.25, 0.75], [0.5, 0.375, 0.125]]
    assert profile.top("moe", "a", 2) == [(0, pytest.approx(0.8)), (1, pytest.approx(0.2))]
    assert profile.top("moe", "a", 2, of="signed") == [(0, pytest.approx(0.8)), (1, pytest.approx(-0.2))]
    assert profile.table("moe").records() == [
        {"group": 1, "tokens": 1, "0": 0.0, "1": 0.0, "2": 100.0},
        {"group": "a", "tokens": 2, "0": 80.0, "1": 20.0, "2": 0.0},
        {"group": "(all)", "tokens": 3, "0": 57.1, "1": 14.3, "2": 28.6},
    ]
    assert profile.table("moe").title == "moe: per cent of |relevance| by expert (mode epsilon)"
    narrow = profile.table("moe", experts=1)
    assert narrow.columns == ("group", "tokens", "0", "others")
    assert [row[2:] for row in narrow] == [(0.0, 100.0), (80.0, 20.0), (57.1, 42.9)]
    for of in OF:
        assert len(profile.table("moe", of=of)) == 3


def test_a_group_without_relevance_has_no_shares() -> None:
    layer = expert_layer(torch.zeros(1, 1, 2), torch.ones(1, 1, 2, dtype=torch.bool), torch.zeros(1, 1, 2))
    profile = profile_of([(Explained({"moe": layer}), ["a"])])
    assert profile.share("moe").tolist() == [[0, 0]]
    assert profile.share("moe", of="load").tolist() == [[0.5, 0.5]]


def test_only_some_layers() -> None:
    encoder_decoder = Explained(
        {**explained(2, 5, 1).experts, "decoder": explained(2, 3, 2).experts["layers.0.experts"]}
    )
    profile = ExpertProfile(["decoder"])
    profile.add(encoder_decoder, [["x", "y", "x"], ["y", "y", None]])
    assert profile.layers == ("decoder",)
    with pytest.raises(ValueError, match=r"there is no expert layer 'decodr': choose from \['layers.0"):
        ExpertProfile(["decodr"]).add(encoder_decoder, ["x", "y"])


BAD: dict[str, tuple[Any, Any, str]] = {
    "too few": ({}, ["a"], "groups: 1 for the 2 samples of layer 'layers.0.experts'"),
    "too many": ({}, ["a", "b", "c"], "groups: 3 for the 2 samples"),
    "none": ({}, [], "groups: 0 for the 2 samples"),
    "too few tokens": ({}, [["a"], ["b"]], "groups: 1 tokens in a sample, and layer 'layers.0.experts' has 3"),
    "uneven": ({}, [["a", "a", "a"], ["b"]], "1 to 3 labels in a sample; give None where there is no token"),
    "mixed": ({}, ["a", ["b", "b", "b"]], "a label for every sample, or a list of labels for every sample"),
    "a word": ({}, "ab", "give a list with a label for each sample"),
    "a number": ({}, 3, "give a list with a label for each sample"),
    "a scalar": ({}, torch.tensor(3), "give a list with a label for each sample"),
    "fractions": ({}, torch.tensor([0.5, 1.0]), "0.5 is no group: a group is a str or an int"),
    "flags": ({}, [True, False], "(True|False) is no group"),
    "too deep": ({}, torch.zeros(2, 3, 1).long(), r"\[0\] inside a sample"),
    "other layers": ({"experts": {"layers.7.experts": 4}}, ["a", "b"], "expert layers .*layers.0.*layers.7"),
    "other experts": ({"experts": {**EXPERTS, "layers.0.experts": 8}}, ["a", "b"], "has 4 experts in one and 8"),
    "no layers": ({"experts": {}}, ["a", "b"], "this explanation has no expert layers"),
    "another mode": ({"mode": "default"}, ["a", "b"], "mode 'epsilon' and one of 'default'"),
}


@pytest.mark.parametrize(("changes", "groups", "says"), BAD.values(), ids=BAD)
def test_what_does_not_fit_is_refused_and_nothing_is_added(changes: Any, groups: Any, says: str) -> None:
    before = [(explained(2, 3, 1), ["a", "b"])]
    profile = profile_of(before)
    with pytest.raises(ValueError, match=says):
        profile.add(explained(2, 3, 2, **changes), groups)
    same(profile, profile_of(before))


def test_other_refusals() -> None:
    profile = profile_of([(explained(2, 3, 1), ["a", "b"])])
    several = explained(2, 3, 1)
    for name, layer in several.experts.items():
        several.experts[name] = dataclasses.replace(layer, by_token=layer.by_token.expand(5, -1, -1, -1), several=True)
    with pytest.raises(ValueError, match=r"5 targets at once .* one after the other"):
        profile.add(several, ["a", "b"])
    with pytest.raises(ValueError, match="by= says nothing of 'b'"):
        profile.add(explained(2, 3, 1), ["a", "b"], by={"a": "x"})
    with pytest.raises(ValueError, match="of='weight': choose from relevance, signed, load, probability"):
        profile.share("layers.0.experts", of="weight")
    with pytest.raises(KeyError, match="the expert layers of this profile are"):
        profile.table("layers.9.experts")
    with pytest.raises(KeyError, match="the groups of this profile are"):
        profile.top("layers.0.experts", "c")
    with pytest.raises(TypeError):
        profile + 3  # type: ignore[operator]
