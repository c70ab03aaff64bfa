"""Models in a wrapping: the one inside is explained under its own names, or an error says what to do."""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import zoo
from torch import Tensor, nn
from torch.nn.utils import parametrizations, parametrize, prune
from zoo import CASES, MLP, Net

from dlb_core import DLBacktrace, TraceError, UnsupportedOpError
from dlb_core.errors import MissingOp


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(1)
    return torch.randn(2, 3, 8, 8)


def net() -> nn.Module:
    torch.manual_seed(0)
    return Net().eval()


@cache
def traced(tracer: str) -> DLBacktrace:
    return DLBacktrace(net(), torch.zeros(2, 3, 8, 8), tracer=tracer)


def partly_compiled(model: nn.Module) -> nn.Module:
    model.conv1 = torch.compile(model.conv1)
    return model


def compiled_in_place(model: nn.Module) -> nn.Module:
    model.compile()
    model.conv1.compile()
    return model


def distributed(model: nn.Module) -> nn.Module:
    return nn.parallel.DistributedDataParallel(model).eval()


WRAPPINGS: dict[str, Callable[[nn.Module], nn.Module]] = {
    "compiled": torch.compile,
    "partly compiled": partly_compiled,
    "compiled in place": compiled_in_place,
    "data parallel": lambda model: nn.DataParallel(model).eval(),
    "data parallel and compiled": lambda model: torch.compile(nn.DataParallel(model).eval()),
    "distributed": distributed,
    "a graph module": lambda model: torch.fx.symbolic_trace(model).eval(),
    "scripted": torch.jit.script,
}


@pytest.fixture
def process_group() -> Iterator[None]:
    with tempfile.TemporaryDirectory() as folder:
        dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
        yield
        dist.destroy_process_group()


@pytest.mark.parametrize("tracer", ["auto", "tape"])
@pytest.mark.parametrize("name", WRAPPINGS)
@pytest.mark.usefixtures("process_group")
def test_the_model_inside_is_explained_under_its_own_names(name: str, tracer: str, x: Tensor) -> None:
    plain = traced(tracer).explain(x, mode="epsilon", keep="all")
    model = WRAPPINGS[name](net())
    children, implementation = dict(model.named_modules()), model.__dict__.get("_compiled_call_impl")
    found = DLBacktrace(model, x, tracer=tracer).explain(x, mode="epsilon", keep="all")
    torch.testing.assert_close(found.inputs["x"], plain.inputs["x"], rtol=1e-4, atol=1e-3)
    assert set(found.ledger.accounts) == set(plain.ledger.accounts)
    if name != "scripted":  # it has lost its modules; its parameters keep their names
        assert set(found.by_module()) == set(plain.by_module())
        assert "conv1" in found.relevance
    assert dict(model.named_modules()) == children  # as it was found
    assert model.__dict__.get("_compiled_call_impl") is implementation


def weights_of(model: nn.Module) -> nn.Module:
    """A plain model with the weights that a parametrised one computes."""
    plain = net()
    with torch.no_grad():
        plain.conv1.weight.copy_(model.conv1.weight)
        plain.fc.weight.copy_(model.fc.weight)
    return plain


def old_weight_norm(model: nn.Module) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.nn.utils.weight_norm(model.conv1)


COMPUTED: dict[str, Callable[[nn.Module], Any]] = {
    "weight norm": lambda model: parametrizations.weight_norm(model.conv1),
    "spectral norm": lambda model: parametrizations.spectral_norm(model.conv1),
    "orthogonal": lambda model: parametrizations.orthogonal(model.fc),
    "weight norm by a hook": old_weight_norm,
    "spectral norm by a hook": lambda model: torch.nn.utils.spectral_norm(model.conv1),
    "pruned": lambda model: prune.l1_unstructured(model.conv1, "weight", 0.5),
}


@pytest.mark.parametrize("name", COMPUTED)
def test_weights_that_are_computed_are_weights(name: str, x: Tensor) -> None:
    model = net().train()
    COMPUTED[name](model)
    with torch.no_grad():
        model.train()(x)  # a spectral norm estimates while it trains
        model.eval()(x)  # a hook writes the weight down while it runs
    dlb, plain = DLBacktrace(model, x), DLBacktrace(weights_of(model), x)
    for mode in ("default", "epsilon"):
        found, expected = (each.explain(x, mode=mode, target=3) for each in (dlb, plain))
        torch.testing.assert_close(found.output, expected.output)
        torch.testing.assert_close(found.inputs["x"], expected.inputs["x"], rtol=1e-4, atol=1e-3)
    still = any(parametrize.is_parametrized(module) for module in model.modules())
    assert still == (name in ("weight norm", "spectral norm", "orthogonal"))


def test_a_traced_module_says_what_to_explain_instead(x: Tensor) -> None:
    traced = torch.jit.trace(net(), x)
    with pytest.raises(TraceError, match=r"no Python code left.*explain the nn.Module that it was made from"):
        DLBacktrace(traced, x)


def test_a_wrapping_in_training_mode_is_told_of_the_model_inside(x: Tensor) -> None:
    with pytest.raises(TraceError, match=r"the model is in training mode.*model.eval\(\)"):
        DLBacktrace(torch.compile(net().train()), x)


def test_a_model_with_quantised_kernels_is_refused() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        quantised = torch.ao.quantization.quantize_dynamic(MLP().eval())
    with pytest.raises(TraceError, match=r"'fc1' is quantised.*as it was before quantisation"):
        DLBacktrace(quantised, torch.randn(2, 6))


def test_an_op_that_quantises_is_told_apart_from_an_unknown_one() -> None:
    advice = "rounds what flows through it: explain it as it was before"
    for op, known in (("torchao::quantize_affine.default", True), ("swoosh::swoosh.default", False)):
        error = UnsupportedOpError([MissingOp(op, f"{op}(Tensor x)", "node", "fc1")], ["builtin"], [])
        assert (advice in str(error)) == known


def test_activations_that_are_quantised_are_refused() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    model = MLP().eval()
    torchao.quantize_(model, torchao.Int8DynamicActivationInt8WeightConfig())
    with pytest.raises(UnsupportedOpError, match="rounds what flows through it: explain it as it was before"):
        DLBacktrace(model, torch.randn(2, 6))


def test_weights_alone_may_be_quantised() -> None:
    torchao = pytest.importorskip("torchao.quantization")
    torch.manual_seed(0)
    model, x = MLP().eval(), torch.randn(2, 6)
    whole = DLBacktrace(model, x).explain(x, target=1).inputs["x"]
    quantised = copy.deepcopy(model)
    torchao.quantize_(quantised, torchao.Int8WeightOnlyConfig())
    found = DLBacktrace(quantised, x).explain(x, target=1).inputs["x"]
    torch.testing.assert_close(found, whole, rtol=0, atol=0.02 * float(whole.abs().max()))


# adapters in the layers


def adapted(**options: Any) -> tuple[nn.Module, nn.Module, dict[str, Tensor]]:
    """A small LLaMA with adapters, what PEFT made of it, and a call."""
    peft = pytest.importorskip("peft")
    case = CASES["llama-sdpa"]
    model = case.model()
    torch.manual_seed(3)
    config = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False, **options)
    return model, peft.get_peft_model(model, config).eval(), case.example()


@pytest.mark.parametrize("task", [None, "CAUSAL_LM"])
def test_an_adapters_share_has_a_path_of_its_own(task: str | None) -> None:
    inner, wrapped, call = adapted(task_type=task)
    explanation = DLBacktrace(wrapped, call).explain(**call, mode="epsilon", keep="all")
    books, layer = explanation.by_module(), "model.layers.0.self_attn.v_proj"
    through = [books[f"{layer}.{part}"] for part in ("base_layer", "lora_A.default", "lora_B.default")]
    assert all(abs(units["in"]) > 0 for units in through)
    assert through[0]["in"] + through[2]["in"] == pytest.approx(books[layer]["in"], abs=1e-2)
    assert through[1]["in"] == pytest.approx(through[2]["out"], abs=1e-2)
    torch.testing.assert_close(explanation.output, wrapped(**call).logits, rtol=1e-4, atol=1e-4)
    direct = DLBacktrace(inner, call).explain(**call, mode="epsilon")
    assert direct.ledger == explanation.ledger


def test_an_adapter_that_is_off_or_merged_has_no_share() -> None:
    _, wrapped, call = adapted()
    with wrapped.disable_adapter():
        off = DLBacktrace(wrapped, call).explain(**call)
        assert not [path for path in off.by_module() if "lora" in path]
        torch.testing.assert_close(off.output, wrapped(**call).logits, rtol=1e-4, atol=1e-4)
    on = DLBacktrace(wrapped, call).explain(**call)
    merged = DLBacktrace(wrapped.merge_and_unload(), call).explain(**call)
    assert not [path for path in merged.by_module() if "lora" in path]
    torch.testing.assert_close(on.output, merged.output, rtol=1e-3, atol=1e-3)


def test_prompts_that_are_learned_stay_a_part_of_the_model() -> None:
    peft = pytest.importorskip("peft")
    case = CASES["bert-sdpa"]
    sizes = {"num_virtual_tokens": 3, "token_dim": 32, "num_layers": 2, "num_attention_heads": 4}
    config = peft.PromptTuningConfig(task_type="SEQ_CLS", **sizes)
    wrapped, call = peft.get_peft_model(case.model(), config).eval(), case.example()
    explanation = DLBacktrace(wrapped, call).explain(**call, mode="epsilon", target=1)
    assert explanation.ledger.accounts["constant:prompt_encoder.default.embedding.weight"] != 0
    torch.testing.assert_close(explanation.output, wrapped(**call).logits, rtol=1e-4, atol=1e-4)


def test_a_model_that_was_dispatched_is_explained() -> None:
    accelerate = pytest.importorskip("accelerate")
    case = CASES["bert-sdpa"]
    call = case.example()
    plain = zoo.traced(case.name).explain(**call, mode="epsilon", target=1)
    parts = ["bert.embeddings", "bert.encoder", "bert.pooler", "dropout", "classifier"]
    hooked = accelerate.dispatch_model(case.model(), dict.fromkeys(parts, "cpu"), force_hooks=True)
    assert any(hasattr(module, "_hf_hook") for module in hooked.modules())
    found = DLBacktrace(hooked, call).explain(**call, mode="epsilon", target=1)
    torch.testing.assert_close(found.inputs["input_ids"], plain.inputs["input_ids"])
    assert found.ledger.accounts.keys() == plain.ledger.accounts.keys()


def test_offloaded_weights_are_refused(tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")
    case = CASES["bert-sdpa"]
    offloaded = accelerate.cpu_offload(case.model(), execution_device="cpu")
    with pytest.raises(TraceError, match=r"'bert.embeddings' are offloaded.*load the model whole"):
        DLBacktrace(offloaded, case.example())
    parts = {
        "bert.embeddings": "cpu",
        "bert.encoder": "disk",
        "bert.pooler": "cpu",
        "dropout": "cpu",
        "classifier": "cpu",
    }
    on_disk = accelerate.dispatch_model(case.model(), parts, offload_dir=tmp_path, main_device="cpu")
    with pytest.raises(TraceError, match=r"'bert.encoder.* are offloaded.*load the model whole"):
        DLBacktrace(on_disk, case.example())
