"""Graphs that nobody designed: random programs of everyday ops keep every promise of an explanation."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlb_core import DLBacktrace, Relevance

WIDTH = 6
Op = Callable[[Tensor, Tensor, nn.Module], Tensor]


def attend(p: Tensor, q: Tensor, layer: nn.Module) -> Tensor:
    query, value = torch.cat([layer(p), q], -1).chunk(2, -1)
    return (query @ p.mT / WIDTH**0.5).softmax(-1) @ value


def standardise(p: Tensor, q: Tensor, layer: nn.Module) -> Tensor:
    centred = p - p.mean(-1, keepdim=True)
    return centred / (centred.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt()


OPS: dict[str, Op] = {
    "dense": lambda p, q, layer: layer(p),
    "relu": lambda p, q, layer: p.relu(),
    "tanh": lambda p, q, layer: p.tanh(),
    "gelu": lambda p, q, layer: F.gelu(p),
    "silu": lambda p, q, layer: p * p.sigmoid(),
    "add": lambda p, q, layer: p + q,
    "subtract": lambda p, q, layer: p - 2 * q,
    "multiply": lambda p, q, layer: p * q,
    "square": lambda p, q, layer: p * p,
    "gate": lambda p, q, layer: p * layer(q).sigmoid(),
    "weigh": lambda p, q, layer: p.softmax(-1) * q,
    "shift": lambda p, q, layer: p + layer.bias,
    "stretch": lambda p, q, layer: p * layer.bias,
    "affine": lambda p, q, layer: p * 0.5 - 0.3,
    "divide": lambda p, q, layer: p / (1 + q.abs()),
    "concatenate": lambda p, q, layer: torch.cat([p, q], -1)[..., 3 : 3 + WIDTH],
    "split": lambda p, q, layer: torch.cat(p.split([2, 4], -1)[::-1], -1),
    "unbind": lambda p, q, layer: torch.stack(p.unbind(-1), -1),
    "reshape": lambda p, q, layer: p.reshape(*p.shape[:2], 2, 3).transpose(2, 3).reshape(p.shape),
    "pool": lambda p, q, layer: p.mean(1, keepdim=True) + q,
    "expand": lambda p, q, layer: p[:, :1].expand(-1, p.shape[1], -1) * 1.0,
    "where": lambda p, q, layer: torch.where(p > 0, p, q),
    "layer norm": lambda p, q, layer: F.layer_norm(p, (WIDTH,), layer.weight[0], layer.bias),
    "rms norm": lambda p, q, layer: layer.bias * (p * (p.pow(2).mean(-1, keepdim=True) + 1e-5).rsqrt()),
    "standardise": standardise,
    "product": lambda p, q, layer: (p @ q.mT) @ q,
    "attend": attend,
    "fused attention": lambda p, q, layer: F.scaled_dot_product_attention(p[:, None], q[:, None], p[:, None])[:, 0],
}


class Wild(nn.Module):
    """Steps drawn by chance, each on two earlier values; the last three are summed. [B, 4, 6] -> [B, 3]."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.steps = [(rng.choice([*OPS]), rng.randrange(i), rng.randrange(i)) for i in range(1, rng.randrange(5, 12))]
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in self.steps)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        values = [x]
        for (name, a, b), layer in zip(self.steps, self.layers, strict=True):
            values.append(OPS[name](values[a], values[b], layer))
        return self.head(torch.stack(values[-3:]).sum(0).mean(1))


def leaves(relevance: Relevance) -> Iterator[tuple[str, Tensor]]:
    for name, value in relevance.items():
        for tensor in value if isinstance(value, tuple) else (value,):
            yield name, tensor


def close(one: Tensor, other: Tensor, what: Any) -> None:
    assert float((one - other).abs().max()) <= 1e-8 * float(other.abs().max()), what


@pytest.mark.parametrize("seed", range(24))
def test_any_graph_of_known_ops_is_explained(seed: int) -> None:
    """check="raise" closes the books at every node; the rest is said here."""
    torch.manual_seed(seed)
    model, x = Wild(seed).double().eval(), torch.randn(2, 4, WIDTH, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    torch.testing.assert_close(dlb.predict(x)["output"].output, model(x))
    for mode, bias in (("default", "redistribute"), ("default", "absorb"), ("epsilon", "absorb")):
        slow = dlb.evaluation(mode, bias=bias, target=2)
        quick = dlb.explain(x, mode=mode, bias=bias, target=2)
        assert torch.equal(quick.inputs["x"], slow["x"]), (mode, bias)
        assert quick.ledger == slow.ledger
        several = dlb.evaluation(mode, bias=bias, targets=[0, 2])
        for (name, one), (_, many) in zip(leaves(slow), leaves(several), strict=True):
            close(many[1], one, name)
        close(dlb.explain(x[1:], mode=mode, bias=bias, target=2).inputs["x"], slow["x"][1:], "alone")
        if mode == "default":
            assert all(float(tensor.min()) >= 0 for _, tensor in leaves(slow))
        if (mode, bias) == ("default", "redistribute"):
            assert slow.ledger.inputs["x"] == pytest.approx(200, abs=1e-6)
