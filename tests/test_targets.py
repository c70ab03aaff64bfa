"""Which outputs are explained, and how many units each of them starts with.

`Scores` hands its input out as its output, so that a test writes the output it wants to ask about.
"""

from __future__ import annotations

import math
import re
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zoo import CASES, traced

from dlb_core import Contrast, DLBacktrace, Query, Relevance
from dlb_core.targets import Context, Request, make_seed


class Scores(nn.Module):
    """[B, ...] -> the same: a model that is its own output."""

    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


class Probabilities(nn.Module):
    """[B] -> sigmoid of it."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid()


def ask(x: Any, model: type[nn.Module] = Scores, **question: Any) -> Relevance:
    x = torch.as_tensor(x, dtype=torch.float32)
    return DLBacktrace(model().eval(), x, tracer="tape").explain(x, **question).relevance


def seed(x: Any, **question: Any) -> list[Any]:
    return ask(x, **question)["output"].tolist()


CLASSES = [[1.0, 3.0, 2.0], [5.0, -1.0, 0.0]]


def test_auto_takes_the_winning_class_of_each_sample() -> None:
    relevance = ask(CLASSES)
    assert relevance["output"].tolist() == [[0, 100, 0], [100, 0, 0]]
    assert relevance.target == [1, 0]
    assert torch.equal(relevance["x"], relevance["output"])


CHOICES: dict[str, tuple[Any, list[int]]] = {
    "int": (2, [2, 2]),
    "tuple": ((2,), [2, 2]),
    "from the end": (-1, [2, 2]),
    "list": ([2, 0], [2, 0]),
    "tensor": (torch.tensor([2, 0]), [2, 0]),
    "number tensor": (torch.tensor(2), [2, 2]),
    "numpy number": (np.int64(2), [2, 2]),
    "numpy array": (np.array([2, 0]), [2, 0]),
    "list of number tensors": ([torch.tensor(2), torch.tensor(0)], [2, 0]),
    "list of numpy numbers": ([np.int64(2), np.int64(0)], [2, 0]),
    "callable, one per sample": (lambda output: output.argmin(1), [0, 1]),
    "callable, one for all": (lambda output: 2, [2, 2]),
}


@pytest.mark.parametrize(("target", "chosen"), CHOICES.values(), ids=CHOICES)
def test_a_class_may_be_given_for_all_or_for_each_sample(target: Any, chosen: list[int]) -> None:
    expected = [[100.0 * (i == c) for i in range(3)] for c in chosen]
    assert seed(CLASSES, target=target) == expected


def test_weights_of_the_outputs_shape_are_taken_as_they_are() -> None:
    weights = torch.tensor([[0.5, 0.0, -0.5], [1.0, 2.0, 0.0]])
    assert seed(CLASSES, target=weights, multiplier=10.0) == [[5, 0, -5], [10, 20, 0]]
    assert seed(CLASSES, target=lambda output: (output > 1.5).float()) == [[0, 100, 100], [100, 0, 0]]


def test_weights_with_the_logit_or_probability_as_units() -> None:
    weights = torch.tensor([[0.0, 1.0, 1.0], [2.0, 0.0, 0.0]])
    assert seed(CLASSES, target=weights, seed="logit") == [[0, 3, 2], [10, 0, 0]]
    probabilities = torch.tensor(CLASSES).softmax(-1) * weights
    torch.testing.assert_close(ask(CLASSES, target=weights, seed="probability")["output"], probabilities)


def test_seed_logit_gives_the_value_itself() -> None:
    relevance = ask(CLASSES, seed="logit")
    assert relevance["output"].tolist() == [[0, 3, 0], [5, 0, 0]]
    assert relevance.ledger.seed == 8
    assert seed(CLASSES, seed="logit", target=1, scaler=2.0) == [[0, 6, 0], [0, -2, 0]]


def test_seed_probability_gives_the_softmax() -> None:
    expected = torch.tensor(CLASSES).softmax(-1)[:, 1]
    torch.testing.assert_close(ask(CLASSES, seed="probability", target=1)["output"][:, 1], expected)
    torch.testing.assert_close(
        ask([0.3, -0.3], seed="probability")["output"].sum(), torch.tensor([0.3, -0.3]).sigmoid().sum()
    )


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_binary_supports_the_side_that_was_taken(shape: tuple[int, ...]) -> None:
    """The seed is positive on either side: what is positive supports the decision that was made."""
    relevance = ask(torch.tensor([2.0, -2.0]).reshape(shape))
    assert relevance["output"].flatten().tolist() == [100, 100]
    assert relevance.target == [1, 0]
    assert ask(torch.tensor([0.3, -0.3]).reshape(shape), thresholding=0.6).target == [0, 0]
    assert ask(torch.tensor([0.3, -0.3]).reshape(shape), task="binary-classification", target=0).target == 0


def test_binary_knows_a_probability_when_it_sees_one() -> None:
    """A sigmoid's 0.45 is below one half, whatever a second sigmoid would make of it."""
    logit = math.log(0.45 / 0.55)
    assert ask([logit, -logit], model=Probabilities).target == [0, 1]
    relevance = ask([logit, -logit], model=Probabilities, seed="probability")
    torch.testing.assert_close(relevance["output"], torch.tensor([0.45, 0.55]))


def test_binary_with_two_outputs_is_a_choice_between_two() -> None:
    assert seed([[1.0, 2.0], [2.0, 1.0]], task="binary-classification") == [[0, 100], [100, 0]]


def test_binary_with_two_outputs_goes_by_the_threshold_too() -> None:
    """The second class has probability 0.73 and 0.27."""
    question: dict[str, Any] = {"task": "binary-classification"}
    assert ask([[1.0, 2.0], [2.0, 1.0]], thresholding=0.8, **question).target == [0, 0]
    assert ask([[1.0, 2.0], [2.0, 1.0]], thresholding=0.2, **question).target == [1, 1]


def test_regression_keeps_the_sign_and_shares_by_size() -> None:
    assert seed([2.0, -2.0, 0.0], task="regression") == [100, -100, 100]
    assert seed([[1.0, -3.0], [0.0, 0.0]], task="regression") == [[25, -75], [50, 50]]
    assert seed([[1.0, -3.0, 4.0]], task="bbox-regression", multiplier=8.0) == [[1, -3, 4]]
    assert seed([[1.0, -3.0]], task="regression", target=1) == [[0, -100]]


def test_one_number_is_explained_without_a_batch() -> None:
    class Total(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum()

    for question, units in (({}, 100.0), ({"target": 0}, 100.0), ({"task": "regression"}, -100.0)):
        assert seed([1.0, -3.0], model=Total, **question) == units
    assert seed([1.0, -3.0], model=Total, seed="logit") == -2
    with pytest.raises(ValueError, match="can only be 0"):
        ask([1.0, 2.0], model=Total, target=1)


TOKENS = torch.arange(24.0).reshape(2, 3, 4).flip(-1)


def test_a_token_alone_is_meant_at_the_last_position() -> None:
    expected = torch.zeros(2, 3, 4)
    expected[:, 2, 1] = 100
    assert torch.equal(ask(TOKENS, target=1)["output"], expected)


@pytest.mark.parametrize(
    ("target", "index"),
    [((0, 3), (slice(None), 0, 3)), ((slice(1, 3), 2), (slice(None), slice(1, 3), 2))],
    ids=["position and class", "span"],
)
def test_positions_may_be_named(target: Any, index: Any) -> None:
    expected = torch.zeros(2, 3, 4)
    expected[index] = 1
    expected *= 100 / expected.sum((1, 2), keepdim=True)
    assert torch.equal(ask(TOKENS, target=target)["output"], expected)
    assert torch.equal(ask(TOKENS, target=[target, target], task="token-classification")["output"], expected)


def test_positions_must_be_named_unless_the_model_is_causal() -> None:
    with pytest.raises(ValueError, match=r"give target=\(position, class\), or task='generation'"):
        ask(TOKENS)
    with pytest.raises(ValueError, match=r"give target=\(position, class\)"):
        ask(TOKENS, task="token-classification")
    expected = torch.zeros(2, 3, 4)
    expected[:, 2, 0] = 100
    for question in ({"task": "generation"}, {"model_type": "decoder"}, {"model_type": "encoder-decoder"}):
        assert torch.equal(ask(TOKENS, **question)["output"], expected)


def test_a_causal_model_is_asked_for_the_token_after_the_last_one_that_is_no_padding() -> None:
    case = CASES["llama-sdpa"]
    call = case.example(2, 7)
    dlb = traced(case.name)
    explanation = dlb.explain(**call)
    lengths = call["attention_mask"].sum(1)
    assert lengths.tolist() == [7, 5]
    expected = [(int(n) - 1, int(explanation.output[i, n - 1].argmax())) for i, n in enumerate(lengths)]
    assert explanation.target == expected
    with pytest.raises(ValueError, match="has positions"):
        dlb.explain(**call, model_type="encoder")


def image() -> Tensor:
    """Two samples, three channels of 2 x 2: background wins once, then class 2; class 1 everywhere."""
    scores = torch.zeros(2, 3, 2, 2)
    scores[0, 0, 0, 0] = 1
    scores[0, 2, 0, 1] = scores[0, 2, 1, 0] = scores[0, 1, 1, 1] = 1
    scores[1, 1] = 1
    return scores


def test_segmentation_asks_about_the_largest_foreground_class() -> None:
    relevance = ask(image())
    assert relevance.target == [2, 1]
    expected = torch.zeros(2, 3, 2, 2)
    expected[0, 2, 0, 1] = expected[0, 2, 1, 0] = 50
    expected[1, 1] = 25
    assert torch.equal(relevance["output"], expected)
    assert torch.equal(ask(image(), task="segmentation")["output"], expected)


def test_segmentation_by_class_and_by_mask() -> None:
    mask = torch.tensor([[True, False], [False, True]])
    expected = torch.zeros(2, 3, 2, 2)
    expected[:, 1, 0, 0] = expected[:, 1, 1, 1] = 50
    assert torch.equal(ask(image(), target=(1, mask))["output"], expected)
    assert ask(image(), target=1)["output"][:, 1].tolist() == [[[25, 25], [25, 25]]] * 2
    with pytest.raises(ValueError, match=r"mask of a \(class, mask\) target must have shape \[2, 2\]"):
        ask(image(), target=(1, torch.ones(3, 3)))


def test_segmentation_of_one_channel_is_by_threshold() -> None:
    scores = torch.tensor([[[[2.0, -2.0], [0.1, -0.1]]]])
    assert seed(scores) == [[[[50, 0], [50, 0]]]]
    assert seed(scores, task="binary-segmentation", thresholding=0.8) == [[[[100, 0], [0, 0]]]]


def test_a_sample_without_foreground_is_explained_by_its_background() -> None:
    """Every sample has its units: of one channel, too, the side that it is on."""
    scores = torch.tensor([[[[2.0, -2.0]]], [[[-1.0, -2.0]]]])
    relevance = ask(scores)
    assert relevance["output"].tolist() == [[[[100, 0]]], [[[50, 50]]]]
    assert relevance.target == [1, 0]
    background = torch.tensor([[[[3.0, 3.0]], [[1.0, 2.0]]]])
    assert ask(background)["output"].tolist() == [[[[50, 50]], [[0, 0]]]]


def test_a_mask_for_each_sample() -> None:
    masks = torch.tensor([[[True, False], [False, False]], [[False, False], [True, True]]])
    found = ask(image(), target=(1, masks))["output"][:, 1]
    assert found.tolist() == [[[100, 0], [0, 0]], [[0, 0], [50, 50]]]
    with pytest.raises(ValueError, match="chooses no pixel"):
        ask(image(), target=(1, torch.zeros(2, 2, dtype=torch.bool)))


def test_a_half_precision_output_counts_all_its_pixels() -> None:
    """Ones in float16 add up to 65504 at most."""
    seed = make_seed(torch.ones(1, 1, 300, 300).half(), Request(), Context(), torch.float32)
    assert float(seed.relevance.double().sum()) == pytest.approx(100)
    assert seed.relevance.dtype is torch.float32


SPANS: dict[str, tuple[Any, list[tuple[int, int]]]] = {
    "start and stop": (((0, 2), 3), [(0, 3), (1, 3)]),
    "slice": ((slice(0, 2), 3), [(0, 3), (1, 3)]),
    "from the end": ((slice(-2, None), 3), [(1, 3), (2, 3)]),
    "winners of a span": (slice(1, 3), [(1, 0), (2, 0)]),
    "winner of a position": ((1, None), [(1, 0)]),
    "classes of a position": ((1, slice(0, 2)), [(1, 0), (1, 1)]),
    "a position's every class": ((1, slice(None)), [(1, c) for c in range(4)]),
}


@pytest.mark.parametrize(("target", "chosen"), SPANS.values(), ids=SPANS)
def test_positions_may_be_a_span(target: Any, chosen: list[tuple[int, int]]) -> None:
    found = ask(TOKENS, target=target)["output"]
    expected = torch.zeros(2, 3, 4)
    for position, unit in chosen:
        expected[:, position, unit] = 100 / len(chosen)
    torch.testing.assert_close(found, expected)


def test_a_number_made_of_the_output_is_explained_by_its_gradient() -> None:
    assert seed(CLASSES, target=lambda output: output[:, 2] - output[:, 0]) == [[-100, 0, 100]] * 2
    assert seed(CLASSES, target=lambda output: (2 * output[:, 1]).sum(), multiplier=1.0) == [[0, 2, 0]] * 2
    difference = ask(CLASSES, target=lambda output: output[:, 2] - output[:, 0], seed="logit")
    assert difference.ledger.seed == pytest.approx((2 - 1) + (0 - 5))
    softmax = ask(CLASSES, target=lambda output: output.logsumexp(1))["output"]
    torch.testing.assert_close(softmax, 100 * torch.tensor(CLASSES).softmax(1))


def test_a_callable_may_return_any_target() -> None:
    assert seed(CLASSES, target=lambda output: Contrast(2, 0)) == [[-100, 0, 100]] * 2
    assert seed(CLASSES, target=lambda output: [Contrast(2, 0), 1]) == [[-100, 0, 100], [0, 100, 0]]
    assert seed(CLASSES, target=lambda output: None) == seed(CLASSES)


def test_the_list_of_seeds_may_depend_on_the_output() -> None:
    relevance = ask(CLASSES, targets=lambda output: range(output.shape[1]))
    assert relevance["output"][:, 0].tolist() == (100 * torch.eye(3)).tolist()
    assert relevance.target == [0, 1, 2]


def test_a_contrast_keeps_its_books() -> None:
    relevance = ask(CLASSES, target=Contrast(2, against=0), mode="epsilon")
    assert relevance.ledger.seed == 0
    assert relevance.ledger.inputs["x"] == pytest.approx(0, abs=1e-3)
    shares = [row[2] for row in relevance.ledger.table().rows]
    assert all(abs(share) < 1e-3 for share in shares)  # of the sum of sizes: the seed itself is nothing


def test_several_targets_add_a_leading_axis_to_relevance_and_ledger() -> None:
    relevance = ask(CLASSES, targets=[0, [1, 2], torch.ones(2, 3)], keep="all")
    assert relevance["output"].shape == relevance["x"].shape == (3, 2, 3)
    assert relevance["output"][1].tolist() == [[0, 100, 0], [0, 0, 100]]
    assert [ledger.seed for ledger in relevance.ledger] == [200, 200, 600]
    assert relevance.target[:2] == [0, [1, 2]]


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"target": 3}, r"target 3 is out of range: choose an int in 0 .. 2"),
    ({"target": -4}, "out of range"),
    ({"target": 1.5}, "1.5"),
    ({"target": "cat"}, "cat"),
    ({"target": True}, "True"),
    ({"target": [0]}, "list of 1 for a batch of 2: give one per sample"),
    ({"target": (0, 1)}, "has 2 parts"),
    ({"target": torch.ones(2, 4)}, r"must have the output's shape \[2, 3\], got \[2, 4\]"),
    ({"target": 0, "targets": [1]}, "not both"),
    ({"targets": []}, "give at least one target"),
    ({"task": "ranking"}, "'auto', 'binary-classification', 'multi-class classification'"),
    ({"task": "generation"}, r"generation expects an output \[B, T, C\], got \[2, 3\]"),
    ({"task": "segmentation"}, r"segmentation expects an output \[B, C, H, W\]"),
    ({"task": "binary-classification"}, r"expects an output \[B\], \[B, 1\] or \[B, 2\]"),
    ({"seed": "gradient"}, "'multiplier', 'logit', 'probability'"),
    ({"seed": "logit", "multiplier": 10.0}, "use scaler="),
    ({"model_type": "diffusion"}, "'encoder', 'decoder', 'encoder-decoder'"),
    ({"multiplier": 0}, "multiplier=0: must be a finite number other than 0"),
    ({"multiplier": math.nan}, "must be a finite number"),
    ({"scaler": math.inf}, "must be a finite number"),
    ({"thresholding": 2}, "between 0 and 1"),
    ({"thresholding": 0.7}, "decides nothing here"),
    ({"target": slice(3, 5)}, "chooses nothing or is out of range: choose a span in 0 .. 3"),
    ({"target": slice(1, 1)}, "chooses nothing"),
    ({"target": (0, slice(0, 2))}, "has 2 parts"),
    ({"target": lambda output: output.sum(0)}, r"returned shape \[3\] for an output \[2, 3\]"),
    ({"target": lambda output: torch.tensor(1.0)}, "does not depend on the output"),
    ({"targets": lambda output: []}, "give at least one target"),
    ({"target": Query(0)}, r"Query\(.*is for outputs \[B, Q, C\]"),
    ({"task": "detection"}, r"detection expects an output \[B, Q, C\]"),
    ({"task": "token-classification", "target": 1}, "expects an output of 3 dimensions"),
    ({"task": "binary-segmentation"}, r"binary-segmentation expects an output \[B, 1, H, W\]"),
    ({"task": "regression", "seed": "probability"}, "has no probabilities"),
]


@pytest.mark.parametrize(
    ("question", "says"),
    REFUSED,
    ids=[re.sub(r"<function.*? at .*?>", "a callable", str(question)) for question, _ in REFUSED],
)
def test_what_cannot_be_asked_is_refused_with_the_choices(question: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        ask(CLASSES, **question)


def test_an_output_of_one_unit_has_only_unit_0() -> None:
    assert seed([1.0, 2.0], target=0) == [100, 100]
    with pytest.raises(ValueError, match="target can only be 0"):
        ask([1.0, 2.0], target=1)


def test_an_output_that_no_task_fits_asks_for_weights() -> None:
    cube = torch.ones(1, 2, 2, 2, 2)
    with pytest.raises(ValueError, match="give target= as a weight tensor"):
        ask(cube)
    assert ask(cube, target=cube).ledger.seed == 1600
