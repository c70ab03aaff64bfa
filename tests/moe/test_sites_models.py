"""Layers of experts found in transformers' models, in the forms their experts run in, by both tracers.

The oracle is the model's own code, run beside: hooks see what its routers decided, and its experts are asked one by
one what they make of every token.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlb_core import DLBacktrace

from .models import FAMILIES, LENGTH, traced
from .test_sites import check, read


class Told(dict[str, Any]):
    """What modules were called with and what they returned, by path."""


@contextlib.contextmanager
def overheard(model: nn.Module) -> Iterator[Told]:
    """Within, every call of a module is kept."""
    told = Told()

    def keep(path: str) -> Any:
        return lambda module, args, out: told.__setitem__(path, (module, args, out))

    handles = [module.register_forward_hook(keep(path)) for path, module in model.named_modules()]
    try:
        yield told
    finally:
        for handle in handles:
            handle.remove()


def said(model: Any, inputs: dict[str, Tensor], form: str = "eager") -> Told:
    """What the model's modules say on a call, its experts running one after the other."""
    if form:
        model.set_experts_implementation(form)
    with overheard(model) as told, torch.no_grad():
        model(**inputs, **({} if "decoder_input_ids" in inputs else {"use_cache": False}))
    return told


def asked(told: Told, path: str) -> tuple[Tensor, Tensor]:
    """Of an experts module of the interface: what every expert makes of every token, and the weights."""
    experts, (x, index, weight), _ = told[path]
    count = experts.num_experts
    with torch.no_grad():
        ones = torch.ones(len(x), 1, dtype=x.dtype)
        returned = [experts(x, torch.full((len(x), 1), e), ones) for e in range(count)]
    weights = torch.zeros(len(x), count, dtype=x.dtype).scatter_add(1, index, weight.to(x.dtype))
    return torch.stack(returned, 1), weights


FORMS = [
    ("Olmoe", "eager", "export"),
    ("Olmoe", "eager", "tape"),
    ("Olmoe", "batched_mm", "tape"),
    ("Mixtral", "batched_mm", "export"),
    ("Mixtral", "eager", "tape"),
    ("GptOss", "eager", "export"),
    ("GptOss", "eager", "tape"),
    ("DeepseekV3", "eager", "export"),
    ("DeepseekV3", "batched_mm", "tape"),
    ("MuseSparkText", "eager", "tape"),
]


@pytest.mark.parametrize(("name", "form", "tracer"), FORMS)
def test_experts_of_the_interface(name: str, form: str, tracer: str) -> None:
    family = FAMILIES[name]
    inputs = family.inputs(2, LENGTH)
    model: Any
    if (form, tracer) == ("eager", "export"):
        _, model, dlb, _ = traced(name)
        assert dlb.tracer == tracer
    else:
        model = family.model(torch.float64)
        model.set_experts_implementation(form)
        dlb = DLBacktrace(model, inputs, tracer=tracer, output=family.output)
    found = read(dlb, **inputs)
    told = said(model, inputs)
    paths = [path for path, module in model.named_modules() if hasattr(module, "_is_expert_parallel")]
    assert [site.name for site, _, _ in found] == paths
    for site, row, entry in found:
        check(site, row, entry, *asked(told, site.name))
        if site.probability is not None:
            _, _, router = told[
                next(p for p in told if p.startswith(site.name.rpartition(".")[0]) and p.endswith("gate"))
            ]
            logits = router[0] if isinstance(router, tuple) else router
            assert dlb._last is not None
            engine, prediction = dlb._last
            value = prediction.activations.values[engine.layout.slots[site.probability.name]]
            wanted = logits.sigmoid() if name in ("DeepseekV3", "MuseSparkText") else logits.softmax(-1)
            torch.testing.assert_close(value, wanted.reshape(value.shape).to(value.dtype), atol=1e-6, rtol=1e-6)


def test_rows_sorted_for_a_grouped_product() -> None:
    model: Any = FAMILIES["Olmoe"].model(torch.float32)
    inputs = FAMILIES["Olmoe"].inputs(2, LENGTH)
    model.set_experts_implementation("grouped_mm")
    found = read(DLBacktrace(model, inputs, tracer="tape"), **inputs)
    told = said(model, inputs)
    assert len(found) == 2
    for site, row, entry in found:
        check(site, row, entry, *asked(told, site.name))


def test_a_program_that_the_user_exported() -> None:
    model: Any = FAMILIES["Olmoe"].model(torch.float64)
    inputs = {"input_ids": FAMILIES["Olmoe"].inputs(2, LENGTH)["input_ids"]}
    model.set_experts_implementation("batched_mm")
    with torch.no_grad():
        program = torch.export.export(model, (), {**inputs, "use_cache": False}, strict=False)
    found = read(DLBacktrace(program, {**inputs, "use_cache": False}), **inputs, use_cache=False)
    told = said(model, inputs)
    for site, row, entry in found:
        check(site, row, entry, *asked(told, site.name))
    assert len(found) == 2


@pytest.mark.parametrize("tracer", ["export", "tape"])
def test_jetmoe_has_experts_in_attention_and_feed_forward(tracer: str) -> None:
    _, model, dlb, call = traced("JetMoe")
    inputs = FAMILIES["JetMoe"].inputs(2, LENGTH)
    found = read(dlb if tracer == "export" else DLBacktrace(model, call, tracer=tracer), **inputs)
    told = said(model, inputs, form="")
    layers = [f"model.layers.{n}" for n in range(2)]
    assert [site.name for site, _, _ in found] == [
        f"{p}.{part}" for p in layers for part in ("self_attention.experts", "mlp")
    ]
    for site, row, entry in found:
        product, (x, counts), _ = told[f"{site.name}.output_linear"]
        _, token, gate, _, _ = told[f"{site.name}.router"][2]
        expert = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
        tokens = 2 * LENGTH
        returned, weights = x.new_zeros(tokens, len(counts), 16), x.new_zeros(tokens, len(counts))
        returned[token, expert] = torch.stack([F.linear(r, product.weight[e]) for r, e in zip(x, expert, strict=True)])
        weights[token, expert] = gate
        check(site, row, entry, returned, weights)


def test_switch_drops_tokens_beyond_an_experts_capacity() -> None:
    model: Any = FAMILIES["SwitchTransformers"].model(torch.float64)
    for module in model.modules():
        if hasattr(module, "expert_capacity"):
            module.expert_capacity = 2
    inputs = FAMILIES["SwitchTransformers"].inputs(2, LENGTH)
    found = read(DLBacktrace(model, inputs, output="logits", tracer="tape"), **inputs)
    told = said(model, inputs, form="")
    assert [site.name for site, _, _ in found] == [p for p in told if p.endswith(".mlp.experts")]
    dropped = 0
    for site, row, entry in found:
        experts, (x, selected, weight), _ = told[site.name]
        returned = torch.stack([experts[f"expert_{e}"](x) for e in range(4)], 1)
        check(site, row, entry, returned, selected.squeeze(1) * weight)
        dropped += int((selected.sum((-2, -1)) == 0).sum())
    assert dropped


def test_nllb_runs_some_experts_for_several_weights_of_a_token() -> None:
    """As its code in transformers 5.23 has it: the mask's value, 0 or 1, is the expert; an oddity that is explained."""
    model = FAMILIES["NllbMoe"].model(torch.float64)
    inputs = FAMILIES["NllbMoe"].inputs(2, LENGTH)
    dlb = DLBacktrace(model, inputs, output="logits", tracer="tape")
    found = read(dlb, **inputs)
    told = said(model, inputs, form="")
    assert [site.name for site, _, _ in found] == [p for p in told if p.endswith(".ffn.experts")]
    for site, row, entry in found:
        experts, (x, mask, weight), out = told[site.name]
        returned = torch.stack([experts[f"expert_{e}"](x) for e in range(4)], 1)
        weights = torch.stack([(weight * (mask == e)).sum(-1) for e in range(4)], 1)
        torch.testing.assert_close(row.value, returned[row.token, row.expert])
        table = torch.zeros_like(weights).index_put((row.token, row.expert), row.weight, accumulate=True)
        torch.testing.assert_close(table, weights)
        torch.testing.assert_close(entry.reshape(out.shape), out)
        assert site.experts == 4
    layers = dlb.evaluation(mode="epsilon", target=(2, 5)).experts  # no chain of gates makes its weights
    assert [*layers] == [site.name for site, _, _ in found]
    assert all("router" not in layer.accounts for layer in layers.values())
