"""autoLRP: epsilon on dense and convolutional networks without biases, and attention rules on a LLaMA.

Where theirs differs, as seen from single ops:

- a bias is added to the denominator by its size, in the direction of what the inputs say, so networks without biases
  are compared.
- addends and factors share by magnitude, |a| / (|a| + |b|); ours by epsilon and half and half. A LLaMA agrees in a mode
  of our own with these two rules in place; attention alone agrees as it is.
- a pooling average is divided evenly, whatever its values are; maximum pools are compared.
- a mask of minus infinity gives NaN there, so attention is the fused op.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

from dlb_core import DLBacktrace
from dlb_core.rules import Call, Mode, Shares, formula, sum_to
from dlb_ops_builtin.modes.attnlrp import ATTNLRP
from dlb_ops_builtin.modes.default import DEFAULT
from dlb_ops_builtin.modes.epsilon import CP_LRP

from .models import assert_agrees, finished, image, mlp, row

autolrp = pytest.importorskip("autolrp", reason="autolrp is not installed: the extra `parity`")

EPS = 1e-11  # theirs


def theirs(model: Callable[[Tensor], Tensor], x: Tensor, target: int, preset: dict[str, Any] | None = None) -> Tensor:
    """Of one sample: the target's unit at the last place of the output."""
    wrapped = autolrp.tensor(x)
    output = model(wrapped)
    config = autolrp.LRPConfig(rule={**autolrp.BASE, **(preset or {})}, eps=EPS)
    output.reshape(-1, output.shape[-1])[-1, target].lrp(config=config)
    found: Tensor = wrapped.relevance
    return found.detach()


def convolutions() -> nn.Sequential:
    layers = (nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.ReLU(), nn.MaxPool2d(2))
    more = (nn.Conv2d(8, 12, 3, stride=2, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(12, 5, bias=False))
    return finished(nn.Sequential(*layers, *more))


NETWORKS: dict[str, tuple[Callable[[], nn.Sequential], Callable[[], Tensor]]] = {
    "dense": (lambda: mlp(bias=False), row),
    "convolutions": (convolutions, image),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_epsilon_without_biases(name: str) -> None:
    build, inputs = NETWORKS[name]
    model, x = build().requires_grad_(True), inputs()
    targets = [0, 3]
    done = DLBacktrace(model, x).explain(x, mode="epsilon", target=targets, multiplier=1.0, eps=EPS)
    expected = [theirs(model, x[i : i + 1], target) for i, target in enumerate(targets)]
    assert_agrees(done.inputs["input"], torch.cat(expected))


class Attending(nn.Module):
    """Two heads over [1, T, 8], fused."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.qkv, self.head = nn.Linear(8, 24, bias=False), nn.Linear(8, 3, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))
        return self.head(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)[:, -1])


PRESETS = {"attnlrp": ATTNLRP, "cp-lrp": CP_LRP}


def preset(mode: str) -> dict[str, Any]:
    found: dict[str, Any] = {"attnlrp": autolrp.ATTNLRP, "cp-lrp": autolrp.CPLRP}[mode]
    return found


@pytest.mark.parametrize("mode", PRESETS)
def test_attention(mode: str) -> None:
    model = Attending().double().eval()
    x = torch.randn(1, 5, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    done = DLBacktrace(model, x).explain(x, mode=mode, target=2, multiplier=1.0, eps=EPS)
    assert_agrees(done.inputs["x"], theirs(model, x, 2, preset(mode)))


@formula(reads=("a", "b"))
def by_size(k: tuple[tuple[str, ...], Call], r: Tensor, mode: Any) -> Shares:
    """R_a = R |a| / (|a| + |b|)."""
    names, call = k
    sizes = [getattr(call, name).abs() for name in names]
    s = r / sum(sizes)
    return Shares({name: sum_to(s * size, call.shape(name)) for name, size in zip(names, sizes, strict=True)})


@pytest.mark.parametrize("mode", PRESETS)
def test_a_llama_with_their_rules_for_sums_and_products(mode: str) -> None:
    config = LlamaConfig(
        vocab_size=23,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        attn_implementation="sdpa",
    )
    torch.manual_seed(0)
    model = LlamaForCausalLM(config).double().eval()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.4)
    x = model.model.embed_tokens(torch.randint(23, (1, 6))).detach()
    base = PRESETS[mode]
    rules = {**base.formulas, "sum": DEFAULT.formulas["sum"], "product": by_size}
    mine = Mode(f"{mode} by size", rules, options={**DEFAULT.options, "eps": EPS, "bias": "absorb"}, gates=base.gates)
    done = DLBacktrace(model, {"inputs_embeds": x}).explain({"inputs_embeds": x}, mode=mine, target=7, multiplier=1.0)
    expected = theirs(lambda t: model(inputs_embeds=t).logits, x, 7, preset(mode))
    assert_agrees(done.inputs["inputs_embeds"], expected)


def test_their_average_is_even_ours_by_what_it_adds_up() -> None:
    model = nn.Sequential(nn.AvgPool2d(2), nn.Flatten(), nn.Linear(1, 1, bias=False)).double().eval()
    x = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]], dtype=torch.float64)
    assert theirs(model, x, 0).flatten().tolist() == pytest.approx([0.25] * 4)
    done = DLBacktrace(model, x).explain(x, mode="epsilon", target=0, multiplier=1.0, eps=EPS)
    assert done.inputs["input"].flatten().tolist() == pytest.approx([0.1, 0.2, 0.3, 0.4])
