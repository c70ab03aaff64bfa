"""The tape: the same program as export writes, and programs for models that decide on values."""

from __future__ import annotations

import logging
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from transformers import (
    MixtralConfig,
    MixtralForCausalLM,
    SwitchTransformersConfig,
    SwitchTransformersForConditionalGeneration,
)
from zoo import CASES, MLP, SLIM

from dlb_core import DLBacktrace, Relevance
from dlb_core.kernel.ops import module_chain
from dlb_core.kernel.program import Program
from dlb_core.kernel.tape import trace_tape
from dlb_core.rules import elementwise

WARNING = "every call is recorded instead"
#: Their code asks whether it is being exported and then builds its masks in another way, so later names count on.
ASKS = ("vit-sdpa", "vit-eager")


@cache
def both(name: str) -> tuple[DLBacktrace, DLBacktrace, dict[str, Tensor]]:
    """A model of the zoo by either tracer; with fixed shapes, since arithmetic on free ones takes names too."""
    case = CASES[name]
    model, call = case.model(torch.float64), case.example(dtype=torch.float64)
    return DLBacktrace(model, call, tracer="export", dynamic_shapes=None), DLBacktrace(model, call, tracer="tape"), call


def assert_equal(one: Any, other: Any, what: str) -> None:
    for a, b in zip(*((t,) if isinstance(t, Tensor) else t for t in (one, other)), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-9 * float(a.abs().max()), msg=what)


@pytest.mark.parametrize(
    "name", ["mlp", "net", "digits", "resnet18", "bert-sdpa", "bert-eager", "llama-sdpa", "vit-sdpa"]
)
def test_both_tracers_give_the_same(name: str) -> None:
    """Names, values, relevance at every node in both modes, and the books."""
    exported, taped, call = both(name)
    values, same = exported.predict(**call), taped.predict(**call)
    if name not in ASKS:
        assert list(same) == list(values)
        for key, node_io in values.items():
            if isinstance(node_io.output, Tensor) and node_io.output.is_floating_point():
                assert_equal(same[key].output, node_io.output, key)
    assert_equal(same["output"].output, values["output"].output, "output")
    for mode in ("default", "epsilon"):
        expected, relevance = exported.evaluation(mode), taped.evaluation(mode)
        assert relevance.ledger.accounts == pytest.approx(dict(expected.ledger.accounts), rel=1e-9, abs=1e-9)
        for key in expected if name not in ASKS else expected.inputs:
            assert_equal(relevance[key], expected[key], f"{mode} {key}")


@pytest.mark.parametrize("name", ["digits", "bert-sdpa", "llama-sdpa", "vit-sdpa"])
def test_modules_answer_by_their_paths(name: str) -> None:
    exported, taped, call = both(name)
    exported.predict(**call), taped.predict(**call)
    expected, relevance = exported.evaluation("epsilon"), taped.evaluation("epsilon")
    found = 0
    for path, _ in CASES[name].model().named_modules():
        if path in expected:
            assert_equal(relevance[path], expected[path], path)
            found += 1
    assert found > 5


class Shared(nn.Module):
    """One block called twice, one module under two names, two names for one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
        self.head = nn.Linear(4, 4)
        self.head.weight = self.block[0].weight
        self.again = self.block[0]
        self.plain = torch.ones(4)
        self.register_buffer("scale", torch.full((4,), 2.0), persistent=False)

    def forward(self, input: Tensor, sum: dict[str, Tensor]) -> Tensor:
        x = self.block(self.block(input)) + self.again(sum["Of.All"])
        return self.head(x) * self.scale + self.plain + torch.tensor([1.0, 2.0, 3.0, 4.0])


def nodes_of(program: Program) -> list[tuple[str, tuple[str, ...]]]:
    """Names and places of what an output depends on."""
    return [(n.name, module_chain(n)) for n in program.graph.nodes if n.op == "call_function" and n.users]


def test_names_of_parameters_inputs_and_second_calls_are_those_of_export() -> None:
    from dlb_core.kernel.trace import trace_export

    x = torch.randn(2, 4)
    model, call = Shared().eval(), (x, {"Of.All": x + 1})
    exported, taped = trace_export(model, call, {}, dynamic_shapes=None), trace_tape(model, call, {})
    assert nodes_of(taped) == nodes_of(exported)
    assert ("linear_1", ("block@1", "block.0@1")) in nodes_of(taped)
    assert [(i.name, i.node and i.node.name, i.shape) for i in taped.inputs] == [
        (i.name, i.node and i.node.name, i.shape) for i in exported.inputs
    ]
    read = {n.name for n in exported.graph.nodes if n.op == "placeholder" and n.users}
    known = {name: (p.name, p.kind) for name, p in exported.parameters.items() if name in read}
    assert {name: (p.name, p.kind) for name, p in taped.parameters.items()} == known


def test_parameters_are_shared_and_no_activation_is_held() -> None:
    model, x = MLP().eval(), torch.randn(3, 6)
    program = trace_tape(model, (x,), {})
    mine = {p.data_ptr() for p in model.parameters()}
    assert {p.tensor.data_ptr() for p in program.parameters.values()} == mine
    assert all(n.meta["val"].fake_mode for n in program.graph.nodes if "val" in n.meta)


class Decides(nn.Module):
    """Branches on a sum, repeats until it is large, cuts by a number that it read."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 4), nn.Linear(4, 4)
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        layer = self.up if x.sum() > 0 else self.down
        x = layer(x)
        while x.norm() < 20:
            x = x * 2
            self.steps += 1
        rows = (x > 0).any(1).nonzero().flatten().tolist()
        k = int(x.abs().max().item()) % 3 + 1
        return torch.cat([x[rows, :k].sum().reshape(1, 1).expand(len(x), 1), x], 1)


def decided() -> Decides:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Decides().double().eval()


def inputs(*shape: int) -> tuple[Tensor, Tensor]:
    """One that goes up, one that goes down."""
    torch.manual_seed(0)
    x = torch.rand(shape, dtype=torch.float64) + 0.1
    return x, -x


def test_python_decides_anew_at_every_call() -> None:
    model = decided()
    up, down = inputs(3, 4)
    dlb = DLBacktrace(model, up)
    for x, taken, other in (
        (up, "up", "down"),
        (down, "down", "up"),
        (up[:1] * 3, "up", "down"),
        (-up[:2], "down", "up"),
    ):
        with torch.no_grad():
            expected = decided()(x)
        node_io = dlb.predict(x)
        torch.testing.assert_close(node_io["output"].output, expected, rtol=0, atol=0)
        relevance = dlb.evaluation("epsilon")
        assert taken in relevance
        assert other not in relevance
        assert {f"bias:{taken}.bias"} == {name for name in relevance.ledger.accounts if name.startswith("bias")}
        torch.testing.assert_close(dlb.explain(x, mode="epsilon").relevance["x"], relevance["x"])
    assert model.steps == 0


def test_evaluation_explains_the_last_predict_whatever_came_between() -> None:
    up, down = inputs(3, 4)
    dlb = DLBacktrace(decided(), up, tracer="tape")
    dlb.predict(down)
    before = dlb.evaluation("epsilon")
    dlb.explain(up)
    dlb.plan("epsilon").table()
    dlb.graph()
    after: Relevance = dlb.evaluation("epsilon", targets=[0, 1])
    torch.testing.assert_close(dlb.evaluation("epsilon")["x"], before["x"], rtol=0, atol=0)
    torch.testing.assert_close(after["x"][1], dlb.evaluation("epsilon", target=1)["x"])


def test_falling_back_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    up, down = inputs(3, 4)
    with caplog.at_level(logging.WARNING, logger="dlb"):
        dlb = DLBacktrace(decided(), up)
        dlb.predict(down)
        dlb.explain(up)
        dlb.register_layer(nn.Linear, elementwise("mine"))
        dlb.predict(up)
    assert dlb.tracer == "tape"
    assert [record.getMessage().count(WARNING) for record in caplog.records] == [1]
    assert "data-dependent" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="dlb"):
        assert DLBacktrace(MLP().eval(), torch.randn(2, 6)).tracer == "export"
        DLBacktrace(decided(), up, tracer="tape").predict(down)
    assert caplog.records == []


def test_a_registered_layer_is_one_node() -> None:
    up, _ = inputs(3, 4)
    dlb = DLBacktrace(decided(), up, tracer="tape")
    dlb.register_layer(nn.Linear, elementwise("mine"))
    dlb.predict(up)
    relevance = dlb.evaluation("epsilon")
    torch.testing.assert_close(relevance["x"], relevance["up"])


@pytest.mark.parametrize("name", ["mixtral", "switch"])
def test_experts_in_a_python_loop(name: str) -> None:
    """The loop asks the router which experts there are to run, and Switch exchanges its modules on the way."""
    ids = torch.arange(1, 15).reshape(2, 7)
    if name == "mixtral":
        sizes: dict[str, Any] = {"num_key_value_heads": 2, "num_local_experts": 4, **SLIM}
        config = MixtralConfig(vocab_size=50, max_position_embeddings=16, **sizes)
        config._experts_implementation = "eager"
        model, call = MixtralForCausalLM(config), {"input_ids": ids}
    else:
        sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_heads": 4, "num_experts": 4}
        layers = {
            "num_layers": 2,
            "num_sparse_encoder_layers": 1,
            "num_decoder_layers": 2,
            "num_sparse_decoder_layers": 1,
        }
        model = SwitchTransformersForConditionalGeneration(SwitchTransformersConfig(vocab_size=50, **sizes, **layers))
        call = {"input_ids": ids, "decoder_input_ids": ids[:, :3]}
    model = model.double().eval()
    dlb = DLBacktrace(model, call, tracer="tape", output="logits")
    for inputs in (call, {key: tensor.flip(0, 1)[:1] for key, tensor in call.items()}):
        with torch.no_grad():
            expected = model(**inputs).logits
        torch.testing.assert_close(dlb.predict(**inputs)["output"].output, expected, rtol=0, atol=0)
        relevance = dlb.evaluation("default", target=(2, 5))
        ends = [*relevance.ledger.inputs.values(), *relevance.ledger.accounts.values()]
        assert sum(ends) == pytest.approx(100 * len(inputs["input_ids"]), rel=1e-9)
        assert all(bool((relevance[key] != 0).any()) for key in inputs)


def test_numbers_that_the_model_draws_are_constants_of_the_call() -> None:
    class Drawn(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x) + torch.randn(3, generator=torch.Generator().manual_seed(3))

    torch.manual_seed(0)
    model, x = Drawn().eval(), torch.randn(2, 4)
    dlb = DLBacktrace(model, x)  # a generator is no input that torch.export can write down for us
    assert dlb.tracer == "tape"
    done = dlb.explain(x, mode="epsilon", target=0)
    assert torch.equal(done.output, model(x))
    assert done.ledger.check() == []
