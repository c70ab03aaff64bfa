"""Every family of experts: the forward, the books, and the same relevance as written densely and as a loop.

The families of every run are the ones that are `common`; `--all-models` takes all of them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Ledger, Relevance
from dlb_core.kernel.packs import registry

from .dense import WRITTEN, densely, implementation
from .models import EXACT, FAMILIES, Family, traced

SAME = 1e-8
EPS = 1e-12  # so that what is written in two steps is not stabilised twice
THOROUGH = ("Olmoe", "GptOss")  # asked in every mode
TURNS = ("epsilon", "gamma", "alpha-beta", "attnlrp")
#: Where the loop is another function of the same parts: it writes x @ W + b, and a bias that is added to a product
#: stands beside it as a whole, for modes that share by signs; each of the two is stabilised, by 1e-6 in modes whose
#: parts nobody can ask for less.
PRODUCTS = ("gamma", "alpha-beta", "z-plus", "faithful", "vision", "flat", "w-square")
APART = {"GptOss": PRODUCTS, "OpenAIPrivacyFilter": PRODUCTS}
#: What computes in float32, whatever its dtype: NemotronH's state-space layers and its output, the filter's loop.
COARSE = ("NemotronH", "OpenAIPrivacyFilter")
#: Whose layers of experts are not found where they are written densely: a norm of each expert's own stands between
#: them and the router's weight.
UNSEEN = ("MuseSparkText",)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "name" in metafunc.fixturenames:
        every = metafunc.config.getoption("--all-models")
        fits = FITS.get(metafunc.function.__name__, lambda family: True)
        metafunc.parametrize("name", [n for n, f in FAMILIES.items() if (every or f.common) and fits(f)])


def modes_of(name: str) -> list[str]:
    """`default` and two others, which follow on each other from family to family."""
    if name in THOROUGH:
        return sorted(registry().modes)
    start = list(FAMILIES).index(name)
    return ["default", *(TURNS[(start + i) % len(TURNS)] for i in range(2))]


def explained(dlb: DLBacktrace, family: Family, mode: str) -> Relevance:
    known = registry().mode(mode)
    options = dict(known.example) | ({"eps": EPS} if "eps" in known.options else {})
    return dlb.evaluation(mode, target=family.target, **options)


def output_of(family: Family, model: nn.Module, call: Mapping[str, Tensor]) -> Tensor:
    with torch.no_grad():
        output = model(**call)
    found: Tensor = output if isinstance(output, Tensor) else output[family.output]
    return found


def relative(one: Tensor, other: Tensor) -> float:
    return float((one - other).abs().max() / other.abs().max())


def test_the_forward_is_the_model_s_at_every_size(name: str) -> None:
    family, model, dlb, _ = traced(name)
    assert dlb.tracer == family.tracer
    for batch, more in ((2, 0), *family.calls):
        call = family.example(batch, family.length + more, EXACT)
        got = dlb.predict(call)["output"].output
        assert relative(got, output_of(family, model, call)) < 1e-6, (batch, more)


def test_the_books_close_at_every_node(name: str) -> None:
    family, _, dlb, _ = traced(name)
    batch, more = family.calls[0]
    dlb.predict(family.example(batch, family.length + more, EXACT))
    for mode in modes_of(name):
        relevance = explained(dlb, family, mode)
        for ledger in ledgers(relevance):
            assert ledger.check() == [], mode
            ends = math.fsum([*ledger.inputs.values(), *ledger.accounts.values()])
            assert abs(ledger.seed - ends) <= ledger.tolerance * ledger.scale, mode
            assert set(ledger.inputs) == set(family.explained)
        assert all(bool(relevance[key].any()) for key in family.explained), mode
        if mode == "default":
            assert abs(relevance.ledger.residual) < 1e-6
            assert all(bool((relevance[key] >= 0).all()) for key in family.explained)


def ledgers(relevance: Relevance) -> Iterator[Ledger]:
    """Of the map, or of its sides."""
    for one in (relevance,) if relevance.total is None else (relevance.positive, relevance.negative):
        assert isinstance(one.ledger, Ledger)
        yield one.ledger


def test_the_same_relevance_as_written_densely(name: str) -> None:
    family, model, dlb, call = traced(name)
    with densely(model) as dense:
        assert_the_same(name, dlb, recorded(dense, family, call), modes_of(name))


def test_the_same_relevance_as_the_loop_over_experts(name: str) -> None:
    """The eager loop, recorded."""
    family, model, dlb, call = traced(name)
    modes = [mode for mode in modes_of(name) if mode not in APART.get(name, ())]
    with looped(family, model):
        assert_the_same(name, dlb, recorded(model, family, call), modes)


#: Which families a test is about, where it is not about all of them.
FITS = {
    "test_the_same_relevance_as_written_densely": lambda f: f.interface or f.name in ("JetMoe", "SwitchTransformers"),
    "test_the_same_relevance_as_the_loop_over_experts": lambda f: f.interface or f.name == "JetMoe",
}


def looped(family: Family, model: nn.Module) -> AbstractContextManager[Any]:
    return implementation(model, "eager") if family.interface else nullcontext()


def recorded(model: nn.Module, family: Family, call: dict[str, Tensor]) -> DLBacktrace:
    return DLBacktrace(model, call, output=family.output, tracer="tape")


def assert_the_same(name: str, dlb: DLBacktrace, other: DLBacktrace, modes: list[str]) -> None:
    family, model, _, call = traced(name)
    here, there = dlb.predict(call), other.predict(call)
    same = 1e-5 if name in COARSE else SAME
    assert relative(here["output"].output, there["output"].output) < same
    for mode in modes:
        one, two = explained(dlb, family, mode), explained(other, family, mode)
        for key in family.explained:
            assert relative(one[key], two[key]) < same, f"{mode} {key}"
        if family.interface and (two.experts or name not in UNSEEN):
            assert_the_same_experts(one, two, mode, same)
        for mine, theirs in zip(ledgers(one), ledgers(two), strict=True):
            found, expected = accounts(model, mine), accounts(model, theirs)
            for account in {*found, *expected}:
                apart = abs(found.get(account, 0.0) - expected.get(account, 0.0))
                assert apart <= same * mine.scale, f"{mode} {account}"


def assert_the_same_experts(one: Relevance, two: Relevance, mode: str, same: float) -> None:
    """Whether one op, slices of the weights or a loop: what each expert contributed to each token."""
    assert one.experts, mode
    assert set(one.experts) == set(two.experts), mode
    for layer, mine in one.experts.items():
        theirs = two.experts[layer]
        assert torch.equal(mine.selected, theirs.selected), f"{mode} {layer}"
        assert relative(mine.by_token, theirs.by_token) < same, f"{mode} {layer}"


def accounts(model: nn.Module, ledger: Ledger) -> dict[str, float]:
    """Biases by name, and the softmax's account; the experts' together: written densely each is a slice of its own."""
    biases = {f"bias:{name}" for name, _ in model.named_parameters() if ".experts." not in name}
    found: dict[str, float] = {}
    for name, units in ledger.accounts.items():
        group = name if name in biases or name == "softmax" else "others"
        found[group] = found.get(group, 0.0) + units
    return found


@pytest.mark.parametrize(("loop", "dense"), [("language, loop", "language, dense"), ("table, loop", "table, dense")])
def test_a_plain_block_is_the_same_in_both_forms(loop: str, dense: str) -> None:
    assert_the_same(loop, traced(loop).dlb, traced(dense).dlb, ["default", *TURNS])


def test_what_is_written_densely_is_there() -> None:
    classes = {type(m).__name__ for name in ("JetMoe", "SwitchTransformers") for m in traced(name).model.modules()}
    assert set(WRITTEN) <= classes
