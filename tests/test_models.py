"""Every model of the zoo in every built-in mode, in float32 and float64: what every explanation must hold."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field

import pytest
import torch
import zoo
from torch import Tensor, nn
from torch.utils import _pytree as pytree
from zoo import CASES, Case

from dlb_core import DLBacktrace, Ledger, Relevance

MODES = ("default", "epsilon")
PER_NODE = {torch.float32: 1e-5, torch.float64: 1e-9}
#: "equal to alone" is a float64 statement; float32 rounds differently, but no sample leaks into another
EQUAL = {torch.float32: 1e-2, torch.float64: 1e-9}
PARAMS = [(name, dtype) for name in CASES for dtype in PER_NODE]


@dataclass(frozen=True)
class Traced:
    """A model, traced once at batch 2, and the call that is explained: another batch size, for text another length."""

    case: Case
    dtype: torch.dtype
    model: nn.Module
    dlb: DLBacktrace
    known: dict[str, Relevance] = field(default_factory=dict)

    def relevance(self, mode: str) -> Relevance:
        """The explanation of the call in a mode; several tests look at the same one."""
        if mode not in self.known:
            self.known[mode] = evaluate(self, mode)
        return self.known[mode]

    def call(self, batch: int = 3, more: int = 4) -> dict[str, Tensor]:
        """Inputs that were not traced."""
        return self.case.example(batch, self.case.length + more if self.case.length else None, self.dtype)


@pytest.fixture(scope="module", params=PARAMS, ids=[f"{name}-{str(dtype)[6:]}" for name, dtype in PARAMS])
def traced(request: pytest.FixtureRequest) -> Traced:
    case, dtype = CASES[request.param[0]], request.param[1]
    dlb = zoo.traced(case.name, dtype)
    return Traced(case, dtype, dlb.model, dlb)


@pytest.fixture(params=MODES)
def mode(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


def evaluate(traced: Traced, mode: str, multiplier: float = 100.0) -> Relevance:
    traced.dlb.predict(**traced.call())
    return traced.dlb.evaluation(mode, multiplier)


def leaves(relevance: Relevance) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of every entry; a tuple gives several."""
    for name, value in relevance.items():
        for tensor in value if isinstance(value, tuple) else (value,):
            yield name, tensor


def assert_same(one: Tensor, other: Tensor, relative: float, what: str) -> None:
    """Equal to within `relative` of the largest |R|."""
    assert one.shape == other.shape, what
    largest = max(float(one.abs().max()), float(other.abs().max()))
    assert float((one - other).abs().max()) <= relative * largest, what


def end_tolerance(ledger: Ledger, dtype: torch.dtype) -> float:
    return PER_NODE[dtype] * ledger.scale * math.sqrt(len(ledger.by_node))


@pytest.mark.parametrize(("batch", "more"), [(2, 0), (3, 4), (1, 1)], ids=["as traced", "larger", "one"])
def test_the_traced_forward_equals_the_model(traced: Traced, batch: int, more: int) -> None:
    call = traced.call(batch, more)
    with torch.no_grad():
        output = traced.model(**call)
    expected = output if isinstance(output, Tensor) else output.logits
    got = traced.dlb.predict(**call)["output"].output
    assert_same(got, expected, 1e-5 if traced.dtype is torch.float32 else 1e-12, "forward")


def test_the_ledger_closes_at_every_node_and_end_to_end(traced: Traced, mode: str) -> None:
    ledger = traced.relevance(mode).ledger
    assert ledger.seed == pytest.approx(300, rel=1e-6)
    assert ledger.by_node
    for entry in ledger.by_node.values():
        assert abs(entry.residual) <= PER_NODE[traced.dtype] * entry.scale, entry
    assert ledger.check() == []
    ends = math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values())
    assert ends == pytest.approx(300, abs=end_tolerance(ledger, traced.dtype))
    assert ledger.residual == pytest.approx(300 - ends, abs=end_tolerance(ledger, traced.dtype))


def test_the_ledger_says_what_the_relevance_says(traced: Traced, mode: str) -> None:
    """The books are kept on the way; summing the result again gives the same units."""
    relevance = traced.relevance(mode)
    ledger = relevance.ledger
    for name, entry in ledger.by_node.items():
        parts = [t.double() for key, t in leaves(relevance) if key == name]
        size = sum(float(t.abs().sum()) for t in parts)
        assert sum(float(t.sum()) for t in parts) == pytest.approx(entry.into, abs=1e-5 * size + 1e-9), name
    for name, units in ledger.inputs.items():
        tensor = relevance[name].double()
        assert float(tensor.sum()) == pytest.approx(units, abs=1e-5 * float(tensor.abs().sum())), name
    booked: dict[str, float] = {}
    for entry in ledger.by_node.values():
        for account, units in entry.accounts.items():
            booked[account] = booked.get(account, 0.0) + units
    assert booked == pytest.approx(dict(ledger.accounts), rel=1e-9, abs=1e-9)


def test_each_sample_has_its_own_hundred_units(traced: Traced, mode: str) -> None:
    for sample in range(2):
        call = {name: value[sample : sample + 1] for name, value in traced.call().items()}
        ledger = traced.dlb.explain(**call, mode=mode).ledger
        assert ledger.seed == pytest.approx(100, rel=1e-6)
        ends = math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values())
        assert ends == pytest.approx(100, abs=end_tolerance(ledger, traced.dtype))


def test_default_puts_all_on_the_inputs_and_is_never_negative(traced: Traced) -> None:
    relevance = traced.relevance("default")
    ledger, kept = relevance.ledger, traced.case.kept
    assert set(ledger.inputs) == set(traced.case.explained)
    stays = sum(ledger.accounts[name] for name in kept)
    assert math.fsum(ledger.inputs.values()) / 3 == pytest.approx(100 - stays / 3, abs=1e-3)
    assert all(ledger.accounts[name] > 0 for name in kept)
    assert {name for name, units in ledger.accounts.items() if units != 0} == set(kept)
    for name, tensor in leaves(relevance):
        assert float(tensor.min()) >= 0, name


def test_epsilon_names_every_sink(traced: Traced) -> None:
    accounts = traced.relevance("epsilon").ledger.accounts
    tensors = {*traced.model.state_dict(), *dict(traced.model.named_buffers()), *traced.dlb.graph("epsilon").nodes}
    for account in accounts:
        found = re.fullmatch(r"(bias|constant):(.+)|stabiliser", account)
        assert found, account
        assert found[2] is None or found[2] in tensors, account
    biases = {name for name, _ in traced.model.named_parameters() if name.endswith("bias")}
    assert bool(biases) == any(account.startswith("bias:") for account in accounts)


def test_a_batch_equals_its_samples_alone(traced: Traced, mode: str) -> None:
    together = traced.relevance(mode)
    for sample in range(3):
        call = {name: value[sample : sample + 1] for name, value in traced.call().items()}
        alone = traced.dlb.explain(**call, mode=mode, keep="all").relevance
        assert list(alone) == list(together)
        for (name, one), (_, all_of_them) in zip(leaves(alone), leaves(together), strict=True):
            assert_same(one, all_of_them[sample : sample + 1], EQUAL[traced.dtype], f"{name} of sample {sample}")


def test_relevance_doubles_when_the_seed_doubles(traced: Traced, mode: str) -> None:
    once, twice = traced.relevance(mode), evaluate(traced, mode, 200.0)
    for (name, one), (_, two) in zip(leaves(once), leaves(twice), strict=True):
        assert_same(2 * one, two, 1e-6 if traced.dtype is torch.float32 else 1e-14, name)


def test_the_same_call_twice_is_bit_identical(traced: Traced, mode: str) -> None:
    first, second = traced.relevance(mode), evaluate(traced, mode)
    for (name, one), (_, two) in zip(leaves(first), leaves(second), strict=True):
        assert torch.equal(one, two), name
    assert first.ledger == second.ledger


def test_relevance_has_the_shape_of_its_node(traced: Traced, mode: str) -> None:
    node_io = traced.dlb.predict(**traced.call())
    relevance = traced.relevance(mode)
    for name, value in relevance.items():
        expected = pytree.tree_map(lambda t: t.shape, node_io[name].output)
        assert pytree.tree_map(lambda t: t.shape, value) == expected, name
    for name in traced.case.explained:
        assert relevance[name].shape == traced.call()[name].shape
        assert relevance[name].dtype is traced.dtype


def test_explain_equals_predict_and_evaluation(traced: Traced, mode: str) -> None:
    slow = traced.relevance(mode)
    quick = traced.dlb.explain(**traced.call(), mode=mode, keep="inputs")
    assert set(quick.relevance) == {*traced.case.explained, "output"}
    for name, tensor in quick.inputs.items():
        assert torch.equal(tensor, slow[name]), name
    assert torch.equal(quick.output, traced.dlb.predict(**traced.call())["output"].output)
    assert quick.ledger == slow.ledger
    assert (quick.mode, quick.target) == (mode, slow.target)


def test_several_targets_equal_one_by_one(traced: Traced, mode: str) -> None:
    targets = [(1, 3), (4, 2)] if traced.case.name.startswith("llama") else [0, 2]
    together = traced.dlb.explain(**traced.call(), mode=mode, targets=targets, keep="all")
    for i, target in enumerate(targets):
        alone = traced.dlb.explain(**traced.call(), mode=mode, target=target, keep="all")
        for (name, many), (_, one) in zip(leaves(together.relevance), leaves(alone.relevance), strict=True):
            assert_same(many[i], one, EQUAL[traced.dtype], name)
        assert together.ledger[i].accounts == pytest.approx(dict(alone.ledger.accounts), rel=1e-3, abs=1e-2)


def test_an_input_of_zeros_loses_nothing(traced: Traced, mode: str) -> None:
    """A first layer that is bright by its biases alone; a text that says one word throughout."""
    call = {name: t if name == "attention_mask" else torch.zeros_like(t) for name, t in traced.call().items()}
    ledger = traced.dlb.explain(**call, mode=mode).ledger
    ends = math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values())
    assert ends == pytest.approx(300, abs=end_tolerance(ledger, traced.dtype))
    if mode == "default":
        assert math.fsum(ledger.inputs.values()) == pytest.approx(
            300 - sum(ledger.accounts[name] for name in traced.case.kept), abs=3e-3
        )
