"""attnlrp is gradient times input of a network with detached statistics, halved products and the softmax as it is."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

import pytest
import torch
from cells import Algebra, Cells, Gru, Lstm, Weighing, redrawn
from gradient_oracle import Softmaxes, attention, halves, layer_norm, passing, rms_norm
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM
from zoo import CASES, traced

from dlb_core import DLBacktrace, Explanation

EPS = 1e-12
few = settings(max_examples=6)
seeds = st.integers(0, 2**31 - 1)


def explained(dlb: DLBacktrace, call: Any, **options: Any) -> Explanation:
    """The logit itself as the seed."""
    return dlb.explain(call, mode="attnlrp", eps=EPS, seed="logit", **options)


def assert_equal(ours: Tensor, oracle: Tensor) -> None:
    largest = float(oracle.abs().max())
    torch.testing.assert_close(ours, oracle, rtol=1e-6, atol=1e-7 * max(largest, 1e-9))


# a decoder without biases


class Llama(NamedTuple):
    """A tiny LLaMA in float64 and its trace."""

    model: Any
    dlb: DLBacktrace


@cache
def llama(implementation: str) -> Llama:
    config = LlamaConfig(
        vocab_size=23,
        hidden_size=16,
        intermediate_size=20,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=32,
        attn_implementation=implementation,
    )
    model = LlamaForCausalLM(config).double().eval()
    assert not any(name.endswith("bias") for name, _ in model.named_parameters())
    return Llama(model, DLBacktrace(model, {"input_ids": torch.arange(10).reshape(2, 5)}))


def rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, -1)
    return x * cos + torch.cat([-second, first], -1) * sin


def decoder(model: Any, embedded: Tensor, softmax: Softmaxes) -> Tensor:
    """LLaMA's forward by hand, from its own weights."""
    config, core, x = model.config, model.model, embedded
    batch, length, width = x.shape
    cos, sin = (t.double()[:, None] for t in core.rotary_emb(x, torch.arange(length)[None]))

    def norm(layer: Any, t: Tensor) -> Tensor:
        return rms_norm(t, layer.weight, config.rms_norm_eps, torch.float32)

    for layer in core.layers:
        y = norm(layer.input_layernorm, x)
        block = layer.self_attn
        q, k, v = (
            F.linear(y, part.weight).reshape(batch, length, -1, width // config.num_attention_heads).transpose(1, 2)
            for part in (block.q_proj, block.k_proj, block.v_proj)
        )
        o = attention(rotated(q, cos, sin), rotated(k, cos, sin), v, softmax, causal=True)
        x = x + F.linear(o.transpose(1, 2).flatten(2), block.o_proj.weight)
        y = norm(layer.post_attention_layernorm, x)
        gate = passing(F.silu, F.linear(y, layer.mlp.gate_proj.weight))
        x = x + F.linear(halves(torch.mul, gate, F.linear(y, layer.mlp.up_proj.weight)), layer.mlp.down_proj.weight)
    return F.linear(norm(core.norm, x), model.lm_head.weight)


@pytest.mark.parametrize("implementation", ["eager", "sdpa"])
@few
@given(seed=seeds, length=st.integers(1, 7), target=st.integers(0, 22))
def test_a_llama_without_biases(implementation: str, seed: int, length: int, target: int) -> None:
    model, dlb = llama(implementation)
    redrawn(model, seed)
    ids = torch.randint(23, (2, length), generator=torch.Generator().manual_seed(seed))
    softmax = Softmaxes(torch.float32 if implementation == "eager" else torch.float64)
    embedded = model.model.embed_tokens(ids).detach().requires_grad_()
    output = decoder(model, embedded, softmax)
    torch.testing.assert_close(output, model(input_ids=ids).logits, rtol=1e-8, atol=1e-10)
    logit = output[:, -1, target].sum()
    logit.backward()
    assert embedded.grad is not None

    done = explained(dlb, {"input_ids": ids}, target=target)
    assert_equal(done.inputs["input_ids"], (embedded * embedded.grad).sum(-1).detach())
    accounts = dict(done.ledger.accounts)
    scale = sum(abs(v) for v in accounts.values()) + float(done.inputs["input_ids"].abs().sum())
    assert accounts.pop("softmax", 0.0) == pytest.approx(softmax.left(), rel=1e-6, abs=1e-7 * scale)
    kept = accounts.pop("stabiliser", 0.0)
    assert abs(kept) <= 1e-5 * scale
    assert all(v == 0 for v in accounts.values()), accounts  # a mask of zeros and minus infinity weighs nothing
    assert float(done.inputs["input_ids"].sum()) + softmax.left() + kept == pytest.approx(
        float(logit.detach()), abs=1e-6 * scale
    )


# cells in plain ops


CELLS: dict[str, Callable[[], Cells]] = {"lstm": Lstm, "gru": Gru, "weighed steps": Weighing}


@cache
def cell(name: str) -> tuple[Cells, DLBacktrace]:
    model = CELLS[name]().double().eval()
    return model, DLBacktrace(model, torch.randn(2, 3, 4, dtype=torch.float64))


@pytest.mark.parametrize("name", CELLS)
@few
@given(seed=seeds, target=st.integers(0, 1))
def test_cells_in_plain_ops(name: str, seed: int, target: int) -> None:
    model, dlb = cell(name)
    redrawn(model, seed)
    x = torch.randn(3, 3, 4, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    softmax = Softmaxes()
    output = model.written(x, Algebra(lambda p, q: halves(torch.mul, p, q), passing, softmax))
    torch.testing.assert_close(output, model(x))
    output[:, target].sum().backward()
    assert x.grad is not None

    done = explained(dlb, x.detach(), target=target)
    assert_equal(done.inputs["x"], (x * x.grad).detach())
    largest = float(done.inputs["x"].abs().sum())
    assert done.ledger.accounts.get("softmax", 0.0) == pytest.approx(softmax.left(), rel=1e-6, abs=1e-7 * largest)


# encoders


class Block(nn.Module):
    """One encoder layer, fused or written out, and a head: [B, T, 8]."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.fused = fused
        self.qkv, self.out, self.head = nn.Linear(8, 24), nn.Linear(8, 8), nn.Linear(8, 3)
        self.norm = nn.LayerNorm(8)
        self.up, self.down = nn.Linear(8, 12), nn.Linear(12, 8)

    def heads(self, x: Tensor) -> tuple[Tensor, ...]:
        return tuple(t.unflatten(-1, (2, 4)).transpose(1, 2) for t in self.qkv(x).chunk(3, -1))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.heads(x)
        o = F.scaled_dot_product_attention(q, k, v) if self.fused else (q @ k.mT * 0.5).softmax(-1) @ v
        y = self.norm(x + self.out(o.transpose(1, 2).flatten(2)))
        return self.head((y + self.down(F.gelu(self.up(y)))).mean(1))

    def oracle(self, x: Tensor, softmax: Softmaxes) -> Tensor:
        o = attention(*self.heads(x), softmax, causal=False)
        z = x + self.out(o.transpose(1, 2).flatten(2))
        y = layer_norm(z, self.norm.weight, self.norm.bias, self.norm.eps)
        return self.head((y + self.down(passing(F.gelu, self.up(y)))).mean(1))


@cache
def block(fused: bool) -> tuple[Block, DLBacktrace]:
    model = Block(fused).double().eval()
    return model, DLBacktrace(model, torch.randn(2, 3, 8, dtype=torch.float64), dynamic_shapes={"x": (1,)})


@pytest.mark.parametrize("fused", [True, False])
@few
@given(seed=seeds, length=st.integers(1, 6), target=st.integers(0, 2))
def test_an_encoder_block_with_biases(fused: bool, seed: int, length: int, target: int) -> None:
    """Biases take what gradient times input leaves out."""
    model, dlb = block(fused)
    redrawn(model, seed)
    x = torch.randn(2, length, 8, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).requires_grad_()
    softmax = Softmaxes()
    output = model.oracle(x, softmax)
    torch.testing.assert_close(output, model(x), rtol=1e-9, atol=1e-10)
    weights = dict(model.named_parameters())
    biases = [name for name in weights if name.endswith("bias")]
    for parameter in weights.values():
        parameter.grad = None
    output[:, target].sum().backward()
    assert x.grad is not None

    done = explained(dlb, x.detach(), target=target)
    assert_equal(done.inputs["x"], (x * x.grad).detach())
    scale = float(done.inputs["x"].abs().sum()) + sum(abs(v) for v in done.ledger.accounts.values())
    assert done.ledger.accounts.get("softmax", 0.0) == pytest.approx(softmax.left(), rel=1e-6, abs=1e-7 * scale)
    for name in biases:
        gradient = weights[name].grad
        expected = 0.0 if gradient is None else float((weights[name] * gradient).detach().sum())
        assert done.ledger.accounts[f"bias:{name}"] == pytest.approx(expected, rel=1e-6, abs=1e-6 * scale)


# the foundation's models with attention


@cache
def transformer(name: str) -> Explanation:
    case = CASES[name]
    call = case.example(dtype=torch.float64)
    return traced(name, torch.float64).explain(**call, mode="attnlrp", eps=EPS, multiplier=1.0)


@pytest.mark.parametrize("name", [name for name in CASES if name.endswith(("eager", "sdpa"))])
def test_transformers_close_their_books(name: str) -> None:
    done = transformer(name)
    assert done.ledger.check() == []
    accounts = done.ledger.accounts
    total = math.fsum([*accounts.values(), *(float(t.sum()) for t in done.inputs.values())])
    assert total == pytest.approx(2.0, abs=1e-9 * (sum(map(abs, accounts.values())) + 1))
    assert accounts["softmax"] != 0


@pytest.mark.parametrize("name", ["bert", "vit", "llama"])
def test_fused_and_written_attention_agree(name: str) -> None:
    one, other = (transformer(f"{name}-{form}") for form in ("eager", "sdpa"))
    for key, relevance in one.inputs.items():
        largest = float(relevance.abs().max())
        torch.testing.assert_close(relevance, other.inputs[key], rtol=1e-6, atol=1e-6 * largest)
    assert one.ledger.accounts["softmax"] == pytest.approx(other.ledger.accounts["softmax"], rel=1e-6)
