"""While a model is exported its experts run as one op: every flag, nothing left behind, errors that name the place."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import PreTrainedConfig
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS, ExpertsInterface, use_experts_implementation

from dlb_core import DLBacktrace
from dlb_core.errors import NonFiniteError, TraceError
from dlb_ops_moe.lending import NAME, lend_experts

WIDTH, INNER, EXPERTS = 6, 5, 4
FLAGS: dict[str, dict[str, bool]] = {
    "gated": {},
    "plain": {"has_gate": False},
    "biased": {"has_bias": True},
    "plain and biased": {"has_gate": False, "has_bias": True},
    "transposed": {"is_transposed": True, "has_bias": True},
    "interleaved": {"is_concatenated": False},
    "normed": {"has_post_expert_norm": True},
    "all": {"is_transposed": True, "has_bias": True, "is_concatenated": False, "has_post_expert_norm": True},
}


class Experts(nn.Module):
    """What transformers' experts look like; the decorator adds flags and the choice of an implementation."""

    def __init__(self, config: Any, **flags: bool) -> None:
        super().__init__()
        self.num_experts, self.act_fn = EXPERTS, nn.SiLU()
        up, wide = ("gate_up_proj", 2 * INNER) if flags.get("has_gate", True) else ("up_proj", INNER)
        for name, high, low in ((up, wide, WIDTH), ("down_proj", WIDTH, INNER)):
            shape = (low, high) if flags.get("is_transposed") else (high, low)
            setattr(self, name, nn.Parameter(torch.randn(EXPERTS, *shape)))
            setattr(self, f"{name}_bias", nn.Parameter(torch.randn(EXPERTS, high)))
        self.post_expert_norm = nn.RMSNorm(WIDTH)

    def forward(self, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
        """The loop of the eager implementation, written for all flags."""
        out = torch.zeros_like(hidden_states)
        up = "gate_up_proj" if self.has_gate else "up_proj"
        for expert in range(self.num_experts):
            token, place = torch.where(top_k_index == expert)
            if not len(token):
                continue
            inner = self.one(up, expert, hidden_states[token])
            inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
            each = self.one("down_proj", expert, inner)
            each = self.post_expert_norm(each) if self.has_post_expert_norm else each
            out.index_add_(0, token, each * top_k_weights[token, place, None])
        return out

    def one(self, name: str, expert: int, x: Tensor) -> Tensor:
        weight = getattr(self, name)[expert]
        y = x @ (weight if self.is_transposed else weight.mT)
        return y + getattr(self, f"{name}_bias")[expert] if self.has_bias else y


def interleaved(self: Any, gate_up: Tensor) -> Tensor:
    """GPT-OSS's order."""
    return self.act_fn(gate_up[..., ::2]) * gate_up[..., 1::2]


def experts(config: Any, interface: Any = ALL_EXPERTS_FUNCTIONS, **flags: bool) -> Any:
    """A class of its own with these flags, and one module of it."""
    body = {} if flags.get("is_concatenated", True) else {"_apply_gate": interleaved}
    own = type("OwnExperts", (Experts,), {"forward": Experts.forward, "__init__": Experts.__init__, **body})
    return use_experts_implementation(experts_interface=interface, **flags)(own)(config, **flags)


class Block(nn.Module):
    """A router, experts, a head: [S, width] -> [S, 3]."""

    def __init__(self, setting: str | None = None, layers: int = 1, **flags: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.config = PreTrainedConfig()
        self.config._experts_implementation = setting
        self.router, self.head = nn.Linear(WIDTH, EXPERTS), nn.Linear(WIDTH, 3)
        self.layers = nn.ModuleList(experts(self.config, **flags) for _ in range(layers))
        self.double().eval()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            weight, index = self.router(x).softmax(-1).topk(2)
            x = x + layer(x, index, weight)
        return self.head(x)


def ops_of(dlb: DLBacktrace) -> set[str]:
    return {data["op"] for _, data in dlb.graph().nodes(data=True) if "op" in data}


@pytest.fixture
def x() -> Tensor:
    return torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


@pytest.fixture(autouse=True)
def _nothing_left_behind() -> Iterator[None]:
    before = dict(ALL_EXPERTS_FUNCTIONS)
    yield
    assert dict(ALL_EXPERTS_FUNCTIONS) == before


@pytest.mark.parametrize("case", FLAGS)
def test_every_flag_computes_what_the_eager_loop_does(case: str, x: Tensor) -> None:
    model = Block("eager", **FLAGS[case])
    expected = model(x)
    with lend_experts(model):
        torch.testing.assert_close(model(x), expected)
    assert model.config._experts_implementation == "eager"
    torch.testing.assert_close(model(x), expected)


@pytest.mark.parametrize("setting", ["eager", "batched_mm", "grouped_mm", None])
def test_whatever_a_model_is_set_to_it_is_traced_as_one_op_and_set_so_again(setting: str | None, x: Tensor) -> None:
    model = Block(setting, layers=2)
    dlb = DLBacktrace(model, x)
    assert dlb.tracer == "export"
    assert "dlb_moe::expert_linear.default" in ops_of(dlb)
    assert model.config._experts_implementation == setting
    expected = Block("eager", layers=2)(x[:3])  # another number of tokens; torch's grouped product has no float64
    torch.testing.assert_close(dlb.explain(x[:3]).output, expected)


@pytest.mark.parametrize(
    ("mode", "options"), [("epsilon", {"eps": 1e-12}), ("default", {}), ("attnlrp", {"eps": 1e-12})]
)
def test_the_eager_loop_gives_the_same_relevance(mode: str, options: dict[str, Any], x: Tensor) -> None:
    """Recorded as it runs; there a bias is an addend of its own, so the stabiliser counts twice and has to be small."""
    model = Block("eager", **FLAGS["all"])
    tracers = [DLBacktrace(model, x), DLBacktrace(model, x, tracer="tape")]
    ours, loop = (dlb.explain(x, mode=mode, target=1, **options) for dlb in tracers)
    torch.testing.assert_close(ours.inputs["x"], loop.inputs["x"], rtol=1e-6, atol=1e-7)
    names = [f"layers.0.{name}_bias" for name in ("down_proj", "gate_up_proj")]
    absorbed = mode != "default"
    for name in names:
        assert (f"bias:{name}" in ours.ledger.accounts) == absorbed
    assert sum(ours.ledger.accounts.values()) == pytest.approx(sum(loop.ledger.accounts.values()), abs=1e-5)


def test_settings_of_all_configs_come_back_also_after_an_error(x: Tensor) -> None:
    """Two configs, one of them shared by two modules."""
    model = nn.Sequential(Block("eager", layers=2), Block("grouped_mm"))

    def fail() -> None:
        assert {m.config._experts_implementation for m in model} == {NAME}
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError), lend_experts(model):
        fail()
    assert [m.config._experts_implementation for m in model] == ["eager", "grouped_mm"]


def test_a_model_that_fails_while_it_is_traced_is_set_as_before(x: Tensor) -> None:
    model = Block("batched_mm")
    model.head = nn.Linear(WIDTH + 1, 3).double()
    with pytest.raises(TraceError):
        DLBacktrace(model, x)
    assert model.config._experts_implementation == "batched_mm"


@pytest.mark.parametrize("local", [False, True])
def test_an_implementation_of_that_name_that_was_there_stays(local: bool, x: Tensor) -> None:
    def mine(*args: Any) -> Any:
        raise AssertionError("the pack's own is meant")

    with registered(mine, local):
        model = Block(None)
        with lend_experts(model):
            assert model(x).shape == (5, 3)
        assert ALL_EXPERTS_FUNCTIONS[NAME] is mine


@contextlib.contextmanager
def registered(function: Callable[..., Any], local: bool) -> Iterator[None]:
    names = ALL_EXPERTS_FUNCTIONS._local_mapping if local else ExpertsInterface._global_mapping
    names[NAME] = function
    try:
        yield
    finally:
        del names[NAME]


def test_lending_twice_gives_back_twice(x: Tensor) -> None:
    """A model is traced while the one around it is."""
    model = Block("eager")
    with lend_experts(model):
        with lend_experts(model):
            pass
        assert model(x).shape == (5, 3)
        assert model.config._experts_implementation == NAME
    assert model.config._experts_implementation == "eager"


def test_threads_wait_for_each_other(x: Tensor) -> None:
    model, seen = Block("eager"), []

    def lend() -> None:
        with lend_experts(model):
            seen.append(model.config._experts_implementation)

    thread = threading.Thread(target=lend)
    with lend_experts(model):
        thread.start()
        thread.join(0.05)
        assert not seen
    thread.join()
    assert seen == [NAME]
    assert model.config._experts_implementation == "eager"


def test_a_model_without_such_experts_is_left_alone(monkeypatch: pytest.MonkeyPatch, x: Tensor) -> None:
    """Of the same mark without a config, or with one that is not transformers'; and where that was never imported."""
    marked, odd = nn.Linear(2, 2), nn.Linear(2, 2)
    marked._is_expert_parallel = odd._is_expert_parallel = False  # type: ignore[assignment]
    odd.config = SimpleNamespace(hidden_size=2)  # type: ignore[assignment]
    with lend_experts(nn.Sequential(marked, odd)):
        assert NAME not in ALL_EXPERTS_FUNCTIONS
    monkeypatch.delitem(sys.modules, "transformers.integrations.moe")
    with lend_experts(Block("eager")):
        assert "transformers.integrations.moe" not in sys.modules


def put(model: Block, name: str, value: Any) -> None:
    delattr(model.layers[0], name)
    setattr(model.layers[0], name, value)


BAD: dict[str, tuple[dict[str, bool], Callable[[Block], Any], str]] = {
    "a flag of tomorrow": ({}, lambda m: setattr(m.layers[0], "has_router_scale", True), "flag has_router_scale=True"),
    "another": ({}, lambda m: setattr(m.layers[0], "is_sparse", False), "flag is_sparse=False"),
    "a flag less": ({}, lambda m: delattr(m.layers[0], "has_bias"), "no flag has_bias"),
    "parallel": ({}, lambda m: setattr(m.layers[0], "_is_expert_parallel", True), "_is_expert_parallel=True"),
    "no weight": ({}, lambda m: delattr(m.layers[0], "gate_up_proj"), "no weight gate_up_proj .*has_gate=True"),
    "no plain weight": ({"has_gate": False}, lambda m: delattr(m.layers[0], "up_proj"), "no weight up_proj"),
    "flat weight": ({}, lambda m: put(m, "down_proj", nn.Parameter(torch.ones(2, 2))), "no weight down_proj"),
    "no bias": ({"has_bias": True}, lambda m: delattr(m.layers[0], "down_proj_bias"), "no down_proj_bias"),
    "no norm": ({"has_post_expert_norm": True}, lambda m: delattr(m.layers[0], "post_expert_norm"), "no post_expert_n"),
    "more experts": (
        {},
        lambda m: setattr(m.layers[0], "num_experts", 5),
        "gate_up_proj 4, down_proj 4, num_experts 5",
    ),
    "fewer maps": ({}, lambda m: put(m, "down_proj", nn.Parameter(torch.ones(3, 6, 5))), "down_proj 3, num_experts 4"),
    "quantised": (
        {},
        lambda m: put(m, "down_proj", nn.Parameter(torch.ones(4, 6, 5).to(torch.float8_e4m3fn), requires_grad=False)),
        "down_proj of torch.float8_e4m3fn",
    ),
}


@pytest.mark.parametrize("wrong", BAD)
def test_experts_that_the_op_does_not_know_are_an_error_with_their_place(wrong: str, x: Tensor) -> None:
    flags, spoil, words = BAD[wrong]
    model = Block("eager", layers=2, **flags)
    spoil(model)
    with pytest.raises(TraceError, match=rf"the experts at 'layers\.0' \(OwnExperts\) .*{words}(.|\n)*tracer=\"tape\""):
        DLBacktrace(model, x)
    assert model.config._experts_implementation == "eager"


def test_an_interface_of_its_own_is_not_ours() -> None:
    model = nn.Module()
    model.experts = experts(PreTrainedConfig(), interface=ExpertsInterface())
    with pytest.raises(TraceError, match=r"'experts' .*an experts interface of their own"), lend_experts(model):
        pass


def test_the_tape_takes_a_flag_that_the_op_does_not_know(x: Tensor) -> None:
    """As the error says."""
    model = Block("eager")
    model.layers[0].has_router_scale = True  # type: ignore[assignment]
    torch.testing.assert_close(DLBacktrace(model, x, tracer="tape").explain(x).output, model(x))


class Broken(Block):
    """A router that goes wrong."""

    def __init__(self, how: str) -> None:
        super().__init__("eager")
        self.how = how

    def forward(self, x: Tensor) -> Tensor:
        scores = self.router(x).softmax(-1)
        scores = scores * float("nan") if self.how == "nan" else scores
        weight, index = scores.topk(5 if self.how == "k" else 2)
        return self.head(self.layers[0](x, index + (self.how == "ids") * 3, weight))


@pytest.mark.parametrize(
    ("how", "kind", "words"),
    [
        ("nan", NonFiniteError, "NaN"),
        ("k", TraceError, "selected index k out of range|k not in range"),
        ("ids", IndexError, "index names expert [456], but weight has 4"),
    ],
)
def test_a_router_that_goes_wrong_is_an_error_and_no_number(how: str, kind: type, words: str, x: Tensor) -> None:
    with pytest.raises(kind, match=words):
        DLBacktrace(Broken(how), x).explain(x)
