"""What holds for every target: a sample's units, samples apart from each other, a seed that is linear in its units."""

from __future__ import annotations

from typing import Any

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from dlb_core import Contrast, Query
from dlb_core.targets import Context, Request, Seed, against_seed, make_seed

SIZES = {1: (), 2: (4,), 3: (3, 4), 4: (4, 2, 3)}
ONE = st.integers(-4, 3)
SOME = st.sets(st.integers(0, 3), min_size=1, max_size=3)
CONTRAST = st.builds(Contrast, SOME)
TARGETS: dict[int, st.SearchStrategy[Any]] = {
    1: st.just(0),
    2: st.one_of(ONE, st.just(slice(1, 3)), CONTRAST),
    3: st.one_of(
        st.tuples(st.integers(-3, 2), ONE), ONE, st.just(((0, 2), 1)), st.just(slice(1, 3)), CONTRAST,
        st.builds(Query, st.one_of(st.none(), st.integers(0, 2)), st.none(), st.one_of(st.none(), st.integers(0, 3))),
    ),
    4: st.one_of(ONE, st.just((1, torch.tensor([[True, False, True], [False, True, False]]))), CONTRAST),
}  # fmt: skip
AUTOMATIC = {
    1: ("binary-classification", "regression"),
    2: ("multi-class classification", "regression"),
    3: ("generation", "detection", "bbox-regression"),
    4: ("segmentation",),
}


@st.composite
def asked(draw: st.DrawFn) -> tuple[Tensor, Request]:
    """A batch of scores and a question about it."""
    rank, batch = draw(st.sampled_from(sorted(SIZES))), draw(st.integers(1, 3))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    output = torch.randn(batch, *SIZES[rank], generator=generator, dtype=torch.float64)
    units = {"multiplier": draw(st.sampled_from([100.0, 3.0])), "scaler": draw(st.sampled_from([1.0, 0.5]))}
    if draw(st.booleans()):
        return output, Request(task=draw(st.sampled_from(AUTOMATIC[rank])), **units)
    per_sample = st.lists(TARGETS[rank], min_size=batch, max_size=batch)
    return output, Request(target=draw(st.one_of(TARGETS[rank], per_sample)), **units)


def start(output: Tensor, request: Request) -> Seed:
    return make_seed(output, request, Context(), torch.float64)


@given(asked())
def test_every_sample_has_its_units(question: tuple[Tensor, Request]) -> None:
    output, request = question
    seed = start(output, request).relevance.reshape(len(output), -1)
    units = request.multiplier * request.scaler
    positive, size = seed.clamp_min(0).sum(1), seed.abs().sum(1)
    signed = request.task in ("regression", "bbox-regression")
    torch.testing.assert_close(size if signed else positive, torch.full_like(size, units))


@given(asked())
def test_a_sample_does_not_see_the_others(question: tuple[Tensor, Request]) -> None:
    output, request = question
    together = start(output, request)
    for i in range(len(output)):
        own = request.at([request.target[i]]) if isinstance(request.target, list) else request
        alone = start(output[i : i + 1], own)
        torch.testing.assert_close(alone.relevance[0], together.relevance[i])
        opposed, by_itself = (against_seed(o, s, request) for o, s in ((output, together), (output[i : i + 1], alone)))
        torch.testing.assert_close(by_itself[0], opposed[i])


@given(asked(), st.sampled_from([0.25, 2.0]))
def test_a_seed_is_linear_in_its_units(question: tuple[Tensor, Request], factor: float) -> None:
    output, request = question
    more = Request(request.task, request.target, multiplier=request.multiplier, scaler=request.scaler * factor)
    torch.testing.assert_close(start(output, more).relevance, factor * start(output, request).relevance)


@given(asked())
def test_what_is_against_a_target_has_its_units_at_the_same_places(question: tuple[Tensor, Request]) -> None:
    output, request = question
    seed = start(output, request)
    opposed = against_seed(output, seed, request)
    assert bool((opposed >= 0).all())
    assert not bool((opposed * seed.relevance.clamp_min(0)).any())  # never where the target itself is
    if output.dim() > 1 and request.task not in ("regression", "bbox-regression"):
        axis = 1 if output.dim() == 4 else -1
        units = seed.relevance.clamp_min(0).sum(axis)
        everywhere = (seed.relevance > 0).all(axis)  # no class is left to be against
        torch.testing.assert_close(opposed.sum(axis), torch.where(everywhere, 0, units))
