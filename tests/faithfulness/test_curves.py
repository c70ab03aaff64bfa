"""The measure itself, on a linear model, where the best and the worst order are known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .curves import Area, Curves
from .document import BEGIN, END, PAGE, write
from .methods import RANDOM, mode
from .problems import Problem
from .randomisation import likeness, shuffled
from .report import Record


def linear_problem(samples: int = 6, features: int = 5) -> Problem:
    generator = torch.Generator().manual_seed(3)
    model = nn.Linear(features, 2).eval().requires_grad_(False)
    x = torch.randn(samples, features, generator=generator)
    baseline = torch.randn(features, generator=generator)
    targets = torch.arange(samples) % 2
    return Problem("linear", "tabular", "", model, x, targets, baseline, steps=features)


def contributions(problem: Problem) -> Tensor:
    return problem.model.weight[problem.targets] * (problem.x - problem.baseline)


def test_the_area_is_what_the_two_orders_written_out_give() -> None:
    problem = linear_problem()
    relevance = contributions(problem)
    expected = []
    for i, x in enumerate(problem.x):
        difference = 0.0
        for order, sign in ((relevance[i].argsort(), 1), (relevance[i].argsort(descending=True), -1)):
            hidden = x.clone()
            for feature in order[:-1]:
                hidden[feature] = problem.baseline[feature]
                difference += sign * problem.model(hidden)[problem.targets[i]].item()
        expected.append(difference / (len(x) - 1))
    torch.testing.assert_close(Curves(problem).areas(relevance), torch.tensor(expected))


def test_no_order_beats_the_contributions_of_a_linear_model_and_reversed_they_are_the_worst() -> None:
    problem = linear_problem()
    curves = Curves(problem)
    best = curves.areas(contributions(problem))
    torch.testing.assert_close(curves.areas(-contributions(problem)), -best)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        other = curves.areas(torch.randn(problem.x.shape, generator=generator))
        assert bool((other <= best + 1e-5).all())


def test_padding_is_never_hidden_and_tokens_hide_as_a_whole() -> None:
    x = torch.arange(24.0).reshape(2, 4, 3)
    present = torch.tensor([[True, True, False, False], [True] * 4])
    problem = Problem(
        "tokens", "", "", nn.Identity(), x, torch.zeros(2, dtype=torch.long), torch.full((4, 3), -1.0),
        present=present, trailing=1, steps=2,
    )  # fmt: skip
    assert problem.features(x).tolist() == x.sum(2).tolist()
    hidden = Curves(problem)._hidden(torch.tensor([[5.0, 6, 0, 0], [4.0, 3, 2, 1]]))[:, 0]
    assert hidden.tolist() == [[True, False, False, False], [False, False, True, True]]
    assert problem.hide(x, hidden)[0].tolist() == [[-1.0] * 3, *x[0, 1:].tolist()]


def test_a_constant_or_random_map_is_told_from_one_that_follows_the_weights() -> None:
    problem = linear_problem()
    assert not torch.equal(shuffled(problem.model).weight, problem.model.weight)
    epsilon = mode("epsilon", "epsilon")
    assert likeness(epsilon, problem, epsilon.relevance(problem)) < 0.9
    flat = mode("flat", "flat")
    assert likeness(flat, problem, flat.relevance(problem)) == 1.0


def test_the_document_keeps_the_prose_and_replaces_what_was_measured(tmp_path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
    problem = linear_problem()
    ran = Record.of(problem, RANDOM, values=(1.0, 2.0, 3.0), likeness=0.25)
    failed = Record.of(problem, mode("default", "default"), reason="it broke")
    write([ran, failed], page)
    text = page.read_text()
    assert text.startswith("before\n")
    assert text.endswith("\nafter\n")
    assert "old" not in text
    assert "2.00 ± 1.13" in text
    assert "it broke" in text
    assert BEGIN in PAGE.read_text()
    assert Area.of(torch.tensor([1.0, 2.0, 3.0])).samples == 3
