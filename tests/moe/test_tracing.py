"""What tracing leaves of a model's settings, half precision, and what is said of bad input; random small decoders."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dlb_core import DLBacktrace, NonFiniteError, TraceError
from dlb_core.kernel.packs import registry

from .dense import asked, densely, registered
from .models import BIASED, FAMILIES, NARROW, PAIRS, VOCABULARY, drawn, hf
from .test_families import EPS, SAME, relative


@pytest.mark.parametrize("chosen", [None, "eager", "batched_mm"])
def test_settings_and_outputs_are_what_they_were(chosen: str | None) -> None:
    """Whatever implementation the user has chosen, and although another one stood in."""
    family = FAMILIES["Olmoe"]
    model: Any = family.model()
    if chosen is not None:
        model.set_experts_implementation(chosen)
    call, before, known = family.example(), asked(model), registered()
    expected = model(**call).logits
    dlb = DLBacktrace(model, call, output="logits", dynamic_shapes=None, tracer="export")
    assert any(step.node.name.startswith("expert_linear") for step in dlb.plan().steps)
    assert asked(model) == before
    assert registered() == known
    assert torch.equal(model(**call).logits, expected)
    torch.testing.assert_close(dlb.predict(call)["output"].output, expected, rtol=1e-5, atol=1e-5)


def test_settings_are_what_they_were_after_a_failure_on_the_way() -> None:
    family = FAMILIES["GptOss"]
    model: Any = family.model()
    before, known = asked(model), registered()
    seen = []

    def stop(module: nn.Module, arguments: Any) -> None:
        seen.append(registered())
        if torch.compiler.is_compiling():
            raise RuntimeError("no further")

    hook = model.lm_head.register_forward_pre_hook(stop)
    with pytest.raises(TraceError, match="no further"):
        DLBacktrace(model, family.example(), output="logits", dynamic_shapes=None, tracer="export")
    assert any(during != known for during in seen)  # the failure was one of tracing
    assert asked(model) == before
    assert registered() == known
    hook.remove()
    assert DLBacktrace(model, family.example(), output="logits", dynamic_shapes=None).tracer == "export"


@pytest.mark.parametrize("name", ["Olmoe", "GptOss"])
def test_half_precision(name: str) -> None:
    """The forward is the model's to the last bits that bfloat16 has; relevance is float32, its books close."""
    family = FAMILIES[name]
    model, call = family.model(torch.bfloat16), family.example()
    dlb = DLBacktrace(model, call, output="logits", dynamic_shapes=None)
    expected = model(**call).logits.detach()
    assert relative(dlb.predict(call)["output"].output, expected) < 2e-2
    wide = DLBacktrace(model.float(), call, output="logits", tracer="tape")
    wide.predict(call)
    for mode in ("default", "epsilon", "attnlrp"):
        relevance = dlb.evaluation(mode)
        assert relevance["input_ids"].dtype == torch.float32
        assert relevance.ledger.check() == []
        assert bool(relevance["input_ids"].isfinite().all())
    assert relative(dlb.evaluation("default")["input_ids"], wide.evaluation("default")["input_ids"]) < 2e-2


def test_a_router_that_gives_no_numbers_is_named() -> None:
    family = FAMILIES["Olmoe"]
    model: Any = family.model()
    dlb = DLBacktrace(model, family.example(), output="logits", tracer="tape")
    with torch.no_grad():
        model.model.layers[1].mlp.gate.weight[2, 3] = float("nan")
    with pytest.raises(NonFiniteError, match=r"first at node 'linear_\d+'.*'model\.layers\.1\.mlp\.gate"):
        dlb.explain(family.example())


@pytest.mark.parametrize("tracer", ["auto", "export", "tape"])
def test_more_experts_asked_for_than_there_are(tracer: str) -> None:
    model = hf("Olmoe", num_experts=2, num_experts_per_tok=3, intermediate_size=12, **PAIRS)().eval()
    with pytest.raises(TraceError, match=r"(?s)the model itself fails.*index k out of range.*layers\.0\.mlp\.gate"):
        DLBacktrace(model, FAMILIES["Olmoe"].example(), tracer=tracer)


@st.composite
def calls(draw: st.DrawFn) -> tuple[int, int, bool, Tensor, int]:
    """Experts, how many each token takes, are their weights normalised; ids, and a seed for the weights."""
    experts = draw(st.integers(1, 6))
    k = draw(st.integers(1, experts))
    shape = draw(st.tuples(st.integers(1, 3), st.integers(1, 5)))
    seed = draw(st.integers(0, 2**31 - 1))
    ids = torch.randint(1, VOCABULARY, shape, generator=torch.Generator().manual_seed(seed))
    return experts, k, draw(st.booleans()), ids, seed


@settings(max_examples=6)
@given(drawn_call=calls(), mode=st.sampled_from(["default", "epsilon", "gamma", "alpha-beta", "z-plus", "attnlrp"]))
def test_random_decoders(drawn_call: tuple[int, int, bool, Tensor, int], mode: str) -> None:
    """One layer, any number of experts, tokens that all choose the same, experts that nobody chooses."""
    experts, k, normalised, ids, seed = drawn_call
    sizes = {**PAIRS, **NARROW, **BIASED, "num_hidden_layers": 1, "num_experts": experts, "num_experts_per_tok": k}
    build = hf("Olmoe", norm_topk_prob=normalised, **sizes)
    torch.manual_seed(seed)
    model: Any = drawn(build()).double().eval()
    model.set_experts_implementation("eager")
    call = {"input_ids": ids}
    options = {"eps": EPS} if "eps" in registry().mode(mode).options else {}
    dlb = DLBacktrace(model, call, output="logits", dynamic_shapes=None, tracer="export")
    done = dlb.explain(call, mode=mode, **options)
    assert done.ledger.check() == []
    torch.testing.assert_close(done.output, model(**call).logits, rtol=1e-9, atol=1e-9)
    with densely(model):
        dense = DLBacktrace(model, call, output="logits", tracer="tape").explain(call, mode=mode, **options)
    assert relative(done.inputs["input_ids"], dense.inputs["input_ids"]) < SAME
