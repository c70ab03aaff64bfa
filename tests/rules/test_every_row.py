"""What all rows have in common, on the arguments of `cases`; and that no row is without a case."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.rules import Attention, Bilinear, Linear, LinearView
from dlb_ops_builtin.rows import ALL

from .case import Case
from .cases import CASES, complex_numbers, constants
from .harness import MODE_NAMES, MODES, Bound, ModeName, assert_conserved, pack
from .tensors import LAYOUTS, SIGNS, Tensors

every_case = pytest.mark.parametrize("case", CASES, ids=str)
FORMULATED = set().union(*(pack().mode(name).formulas for name, _ in MODES))
SEVERAL = {"compound", "choice", "rule", "accumulate", "complex"}  # kinds that become others


def by_mode(case: Case) -> bool:
    """Does a mode have a say? A kind that no mode has a formula for goes by the one of its own in all of them."""
    row = pack().find(case.op)
    return case.program is not None or row.kind in FORMULATED | SEVERAL


PAIRS = [(case, name, mode) for case in CASES for name, mode in zip(MODE_NAMES, MODES, strict=True)]
ASKED = [(case, name, mode) for case, name, mode in PAIRS if mode is MODES[0] or by_mode(case)]
every_case_and_mode = pytest.mark.parametrize(
    ("case", "mode"), [pytest.param(case, mode, id=f"{case}-{name}") for case, name, mode in ASKED]
)
NATURAL = (MODES[0], MODES[2])  # each mode with the policy for biases that it has by itself
every_case_and_natural_mode = pytest.mark.parametrize(
    ("case", "mode"),
    [
        pytest.param(case, mode, id=f"{case}-{name}", marks=[] if mode in NATURAL else pytest.mark.exhaustive)
        for case, name, mode in ASKED
    ],
)
MIXED = complex_numbers.CASES  # maps between pairs of numbers have tests of their own
LINEAR = [c for c in CASES if isinstance(pack().find(c.op), (Linear, Bilinear, Attention)) and c not in MIXED]
DTYPES = (torch.float64, torch.float32)


def seed_of(bound: Bound, t: Tensors, factor: float = 1.0) -> Any:
    """Units of both signs for every element of the output."""
    output = bound.output
    seed = pytree.tree_map_only(Tensor, lambda o: units_like(o, t) * factor, output)
    return list(seed) if isinstance(output, (tuple, list)) else seed


def units_like(output: Tensor, t: Tensors) -> Tensor:
    """Units for both parts of a complex output."""
    units = t.normal(*output.shape).to(output.dtype)
    return units + 1j * t.normal(*output.shape).to(output.dtype) if output.is_complex() else units


def test_every_row_has_a_case() -> None:
    """A new row needs arguments in `cases`, which puts it through all tests of this file."""
    covered = {pack().find(case.op).op for case in CASES} | set(constants.CALLS)
    assert sorted({row.op for row in ALL} - covered) == []


@every_case
def test_the_forward_is_the_op_and_leaves_inputs_alone(case: Case) -> None:
    for dtype in DTYPES:
        arguments = case.arguments(Tensors(1, dtype, layout="strided"))
        tensors = [leaf for leaf in pytree.tree_leaves(arguments) if isinstance(leaf, Tensor)]
        before = [(tensor.clone(), tensor._version) for tensor in tensors]
        expected = case.run(arguments)
        for mode in MODES:
            bound = case.bind(arguments, mode)
            near = 16 * torch.finfo(dtype).eps if pack().find(case.op).kind == "compound" else 0  # in another order
            torch.testing.assert_close(bound.output, expected, rtol=near, atol=near)
            bound.back(seed_of(bound, Tensors(2, dtype)))
        for tensor, (values, version) in zip(tensors, before, strict=True):
            assert torch.equal(tensor, values)
            assert tensor._version == version


@pytest.mark.parametrize("case", LINEAR, ids=str)
def test_the_map_and_its_bias_are_the_op(case: Case) -> None:
    """`apply` with the weight of this call, plus the bias, is what the op gives."""
    arguments = case.arguments(Tensors(1))
    bound = case.bind(arguments)
    views = bound.view()
    for view in views if isinstance(views, tuple) else (views,):
        assert isinstance(view, LinearView)
        mapped = view.apply(view.x, view.weight)
        torch.testing.assert_close(mapped if view.bias is None else mapped + view.bias, case.run(arguments))


def tensors_of(case: Case, mode: ModeName, every: bool) -> list[tuple[str, tuple[torch.dtype, str]]]:
    """Signs with a dtype and its layout: all pairs, or half of them in one policy for biases and half in the other."""
    pairs = list(product(SIGNS, zip(DTYPES, ("reversed", "offset"), strict=True)))
    if every or not by_mode(case):
        return pairs
    return [pair for i, pair in enumerate(pairs) if (i // 2 + i + MODES.index(mode)) % 2 == 0]


@every_case_and_mode
def test_units_are_conserved_and_finite(case: Case, mode: ModeName, request: pytest.FixtureRequest) -> None:
    for signs, (dtype, layout) in tensors_of(case, mode, request.config.getoption("--exhaustive")):
        bound = case.bind(case.arguments(Tensors(3, dtype, signs, layout)), mode)
        done = bound.back(seed_of(bound, Tensors(4, dtype)))
        assert_conserved(done)
        for value in pytree.tree_leaves(list(done.relevance.values())):
            assert bool(torch.isfinite(value).all())


@every_case_and_mode
def test_relevance_is_linear_in_the_seed(case: Case, mode: ModeName) -> None:
    bound = case.bind(case.arguments(Tensors(5)), mode)
    one, two = seed_of(bound, Tensors(6)), seed_of(bound, Tensors(7))
    both = pytree.tree_map(lambda a, b: 2 * a + b, one, two)
    parts, whole = [bound.back(r) for r in (one, two)], bound.back(both)
    for name, value in whole.relevance.items():
        expected = pytree.tree_map(lambda a, b: 2 * a + b, parts[0][name], parts[1][name])
        torch.testing.assert_close(value, expected, rtol=1e-9, atol=1e-9 * float(value.abs().sum()))
    for account, units in whole.accounts.items():
        expected = 2 * parts[0].booked(account) + parts[1].booked(account)
        assert units == pytest.approx(expected, rel=1e-9, abs=1e-9)


@every_case_and_natural_mode
def test_twice_is_bit_identical(case: Case, mode: ModeName) -> None:
    arguments = case.arguments(Tensors(8, torch.float32))
    first, second = (case.bind(arguments, mode) for _ in range(2))
    seed = seed_of(first, Tensors(9, torch.float32))
    one, two = first.back(seed), second.back(seed)
    assert one.accounts == two.accounts
    for name, value in one.relevance.items():
        assert torch.equal(value, two[name])


@every_case_and_natural_mode
def test_a_rule_says_what_it_reads(case: Case, mode: ModeName) -> None:
    """With every value freed that no rule asked for, relevance is the same."""
    arguments = case.arguments(Tensors(14))
    kept, freed = case.bind(arguments, mode), case.bind(arguments, mode, passing=True)
    seed = seed_of(kept, Tensors(15))
    expected, done = kept.back(seed), freed.back(seed)
    assert list(done.relevance) == list(expected.relevance)
    for name, value in expected.relevance.items():
        assert torch.equal(done[name], value)
    assert sorted(done.accounts.values()) == sorted(expected.accounts.values())


@every_case_and_natural_mode
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_several_seeds_at_once_are_each_alone(case: Case, mode: ModeName) -> None:
    """Under vmap, as `targets=[...]` runs."""
    bound = case.bind(case.arguments(Tensors(10)), mode)
    seeds = [seed_of(bound, Tensors(i)) for i in (11, 12, 13)]
    together = bound.back(pytree.tree_map(lambda *parts: torch.stack(parts), *seeds), several=True)
    for at, seed in enumerate(seeds):
        alone = bound.back(seed)
        assert list(alone.relevance) == list(together.relevance)
        for name, value in alone.relevance.items():
            torch.testing.assert_close(together[name][at], value)
        for account, units in alone.accounts.items():
            assert together.ledgers[at].accounts[account] == pytest.approx(units, rel=1e-7, abs=1e-9)


@every_case_and_natural_mode
def test_strides_do_not_matter(case: Case, mode: ModeName) -> None:
    plain = case.bind(case.arguments(Tensors(16)), mode)
    seed = seed_of(plain, Tensors(17))
    expected = plain.back(seed)
    for layout in LAYOUTS[1:]:
        done = case.bind(case.arguments(Tensors(16, layout=layout)), mode).back(seed)
        assert list(done.relevance) == list(expected.relevance)
        for name, value in expected.relevance.items():
            torch.testing.assert_close(done[name], value)
        for account, units in expected.accounts.items():
            assert done.booked(account) == pytest.approx(units, rel=1e-7, abs=1e-9)
