"""Seeds with two signs: contrasts of classes as targets, and what starts against a target."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from dlb_core import Contrast
from dlb_core.targets import Context, Request, Seed, against_seed, make_seed

SCORES = torch.tensor([[1.0, 3.0, 2.0, -1.0], [5.0, -1.0, 0.0, 0.5]], dtype=torch.float64)


def start(output: Any, context: Context | None = None, **question: Any) -> tuple[Tensor, Request, Seed]:
    output, request = torch.as_tensor(output, dtype=torch.float64), Request(**question)
    return output, request, make_seed(output, request, context or Context(), torch.float64)


def against(output: Any, by: Any = "rest", context: Context | None = None, **question: Any) -> Tensor:
    output, request, seed = start(output, context, **question)
    return against_seed(output, seed, request, by)


def spread_by_hand(scores: Tensor, chosen: set[int], units: float) -> Tensor:
    """The softmax written out over the classes that were not chosen."""
    powers = [0.0 if i in chosen else float(torch.exp(s)) for i, s in enumerate(scores)]
    return torch.tensor([units * p / sum(powers) for p in powers], dtype=torch.float64)


@pytest.mark.parametrize("multiplier", [100.0, 8.0])
def test_the_rest_shares_the_targets_units_by_a_softmax_among_them(multiplier: float) -> None:
    found = against(SCORES, target=[2, 0], multiplier=multiplier)
    expected = [spread_by_hand(SCORES[0], {2}, multiplier), spread_by_hand(SCORES[1], {0}, multiplier)]
    torch.testing.assert_close(found, torch.stack(expected))


def test_of_two_classes_the_rest_is_the_other_one() -> None:
    assert against([[0.3, 0.1], [4.0, 9.0]]).tolist() == [[0, 100], [100, 0]]


def test_one_logit_has_nothing_against_it() -> None:
    for output in ([0.3, -2.0], [[0.3], [-2.0]], 0.3):
        assert not against(output).any()


def test_a_class_takes_the_same_units_at_the_same_position() -> None:
    assert against(SCORES, 3, target=1).tolist() == [[0, 0, 0, 100]] * 2
    tokens = torch.randn(2, 3, 4, dtype=torch.float64)
    expected = torch.zeros(2, 3, 4)
    expected[0, 1, 3] = expected[1, 2, 3] = 100
    assert torch.equal(against(tokens, 3, target=[(1, 0), (2, 1)]).float(), expected)
    pixels = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    mask = torch.tensor([[True, False], [True, False]])
    assert against(pixels, 2, target=(1, mask)).tolist() == [[[[0, 0]] * 2, [[0, 0]] * 2, [[50, 0], [50, 0]]]]


def test_several_classes_take_them_by_a_softmax_among_them() -> None:
    torch.testing.assert_close(against(SCORES, (1, 2), target=0)[0], spread_by_hand(SCORES[0], {0, 3}, 100))


def test_none_means_nothing() -> None:
    assert not against(SCORES, None).any()


def test_every_position_and_pixel_spreads_its_own_units() -> None:
    tokens = torch.randn(1, 3, 4, dtype=torch.float64)
    found = against(tokens, target=((0, 2), 1))[0]
    for position in (0, 1):
        torch.testing.assert_close(found[position], spread_by_hand(tokens[0, position], {1}, 50))
    assert not found[2].any()
    pixels = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    found = against(pixels, target=1)[0]
    for y in range(2):
        for x in range(2):
            torch.testing.assert_close(found[:, y, x], spread_by_hand(pixels[0, :, y, x], {1}, 25))


def test_what_is_negative_in_a_seed_is_against_and_all_there_is() -> None:
    weights = torch.tensor([[0.5, 0, -0.5, 0], [1, 0, 0, 0]], dtype=torch.float64)
    found = against(SCORES, target=weights)
    assert found[0].tolist() == [0, 0, 50, 0]
    torch.testing.assert_close(found[1], spread_by_hand(SCORES[1], {0}, 100))
    assert against([[1.0, -3.0]], task="regression").tolist() == [[0, 75]]
    assert against([[2.0, 3.0]], task="regression").tolist() == [[0, 0]]


def test_a_probability_spreads_as_the_logits_behind_it() -> None:
    """Samples of a softmax's output: the softmax among the others is their probability over its sum."""
    p = SCORES.softmax(1)
    torch.testing.assert_close(against(p, context=Context(probability=True), target=1), against(SCORES, target=1))


def test_a_sample_does_not_see_the_others() -> None:
    together = against(SCORES, target=1, seed="logit")  # the second one's logit is negative
    for sample in (0, 1):
        alone = against(SCORES[sample : sample + 1], target=1, seed="logit")
        torch.testing.assert_close(together[sample : sample + 1], alone)


@pytest.mark.parametrize(
    ("by", "question", "says"),
    [
        (4, {}, "class 4 is out of range: choose an int in 0 .. 3"),
        (1, {"target": 1}, "is the target itself"),
        ((1, 2), {"target": 1}, "is the target itself"),
        ("others", {}, "give a class or a collection of classes"),
        ((), {}, "give a class or a collection of classes"),
        (True, {}, "give a class or a collection of classes"),
        ("rest", {"multiplier": -1.0}, "positive multiplier and scaler"),
        (0, {"task": "regression"}, "has no classes"),
    ],
)
def test_what_cannot_be_against_is_refused(by: Any, question: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        against(SCORES, by, **question)


def test_a_contrast_carries_its_units_with_both_signs() -> None:
    seed = start(SCORES, target=Contrast(3, against=1))[2].relevance
    assert seed.tolist() == [[0, -100, 0, 100]] * 2
    rest = start(SCORES, target=Contrast([1, 2]))[2].relevance
    torch.testing.assert_close(
        rest[0], torch.tensor([0, 50.0, 50, 0]).double() - spread_by_hand(SCORES[0], {1, 2}, 100)
    )
    some = start(SCORES, target=Contrast(0, against={1, 3}))[2].relevance
    torch.testing.assert_close(
        some[1], torch.tensor([100.0, 0, 0, 0]).double() - spread_by_hand(SCORES[1], {0, 2}, 100)
    )


def test_a_contrast_is_the_targets_seed_less_what_is_against_it() -> None:
    for by in ("rest", 3, (2, 3)):
        output, request, seed = start(SCORES, target=1)
        contrast = start(SCORES, target=Contrast(1, against=by))[2].relevance
        torch.testing.assert_close(contrast, seed.relevance - against_seed(output, seed, request, by))


def test_what_a_contrast_is_against_is_what_it_says() -> None:
    assert against(SCORES, target=Contrast(3, against=1)).tolist() == [[0, 100, 0, 0]] * 2


def test_exchanging_the_sides_of_a_contrast_changes_the_sign() -> None:
    one, other = (start(SCORES, target=Contrast(*pair))[2].relevance for pair in ((3, 1), (1, 3)))
    assert torch.equal(one, -other)


def test_a_contrast_of_logits_is_their_difference() -> None:
    seed = start(SCORES, target=Contrast(3, against=1), seed="logit")[2].relevance
    torch.testing.assert_close(seed.sum(1), SCORES[:, 3] - SCORES[:, 1])


def test_contrasts_one_per_sample() -> None:
    seed = start(SCORES, target=[Contrast(0, 1), Contrast(2, 3)])[2].relevance
    assert seed.tolist() == [[100, -100, 0, 0], [0, 0, 100, -100]]
    assert start(SCORES, target=[Contrast(0, 1), 2])[2].relevance.tolist() == [[100, -100, 0, 0], [0, 0, 100, 0]]


def test_a_contrast_at_positions() -> None:
    tokens = torch.randn(2, 3, 4, dtype=torch.float64)
    last = start(tokens, target=Contrast(1, 2))[2].relevance
    assert last[:, 2].tolist() == [[0, 100, -100, 0]] * 2
    assert not last[:, :2].any()
    padded = start(tokens, Context(last=torch.tensor([0, 2])), target=Contrast(1, 2))[2].relevance
    assert padded[0, 0].tolist() == padded[1, 2].tolist() == [0, 100, -100, 0]
    span = start(tokens, target=Contrast(1, 2, at=slice(0, 2)))[2].relevance
    assert torch.equal(span, start(tokens, target=Contrast(1, 2, at=(0, 2)))[2].relevance)
    assert span[:, :2].tolist() == [[[0, 50, -50, 0]] * 2] * 2
    assert not span[:, 2].any()


def test_a_contrast_at_pixels() -> None:
    pixels = torch.randn(1, 3, 2, 2, dtype=torch.float64)
    everywhere = start(pixels, target=Contrast(1, 2))[2].relevance
    assert everywhere.tolist() == [[[[0, 0]] * 2, [[25, 25]] * 2, [[-25, -25]] * 2]]
    mask = torch.tensor([[True, False], [True, False]])
    some = start(pixels, target=Contrast(1, 2, at=mask))[2].relevance
    assert some.tolist() == [[[[0, 0]] * 2, [[50, 0]] * 2, [[-50, 0]] * 2]]


@pytest.mark.parametrize(
    ("make", "output", "says"),
    [
        (lambda: Contrast(1, 1), SCORES, "class 1 is on both sides"),
        (lambda: Contrast([0, 3], -1), SCORES, "on both sides of an output with 4 classes"),
        (lambda: Contrast(4), SCORES, "class 4 is out of range: choose an int in 0 .. 3"),
        (lambda: Contrast([]), SCORES, "give a class or a collection of classes"),
        (lambda: Contrast("cat"), SCORES, "give a class or a collection of classes"),
        (lambda: Contrast(1, against=None), SCORES, "give a class or a collection of classes"),
        (lambda: Contrast(1, at=0), SCORES, "at= is for outputs with positions or pixels"),
        (lambda: Contrast(0), SCORES[0], "has no classes"),
        (lambda: Contrast(0, at=9), SCORES[None], "9 is out of range"),
    ],
)
def test_what_is_no_contrast_is_refused(make: Any, output: Tensor, says: str) -> None:
    with pytest.raises(ValueError, match=says):
        start(output, target=make())


def test_a_regression_has_no_contrast() -> None:
    with pytest.raises(ValueError, match="between classes"):
        start(SCORES, target=Contrast(0), task="regression")
