"""A fused op and the same function written out give the same relevance, on models as they are traced."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection
from functools import lru_cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlb_core import DLBacktrace, Relevance

from .harness import MODES, ModeName, pack

Form = Callable[..., Tensor]


class Between(nn.Module):
    """A form between two dense layers, with tensors of its own: w, b (trailing size) where it wants them."""

    def __init__(self, form: Form, size: int = 6) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.form = form
        self.before, self.after = nn.Linear(4, size), nn.Linear(size, 3)
        self.w, self.b = nn.Parameter(torch.randn(size)), nn.Parameter(torch.randn(size))

    def forward(self, x: Tensor) -> Tensor:
        return self.after(self.form(self.before(x), self.w, self.b))


#: every registered mode: those with two policies for biases in both, the others in their own
EVERY: list[ModeName] = [*MODES, *((name, None) for name in pack().modes if name not in ("default", "epsilon"))]
WITHOUT_EPS = ("default", "contrastive", "alpha-beta", "z-plus")


def options_of(mode: str) -> dict[str, Any]:
    """A stabiliser that takes next to nothing, and what a mode cannot do without."""
    given = dict(pack().modes[mode].example)
    return given if mode in WITHOUT_EPS else {**given, "eps": 1e-9}


def explained(model: nn.Module, *inputs: Tensor, **options: Any) -> dict[ModeName, Relevance]:
    """Relevance in every mode, for a seed with both signs; the trace is made once."""
    dlb = DLBacktrace(model.double().eval(), inputs, dynamic_shapes=None, **options)
    dlb.predict(*inputs)
    output = model(*inputs)
    target = torch.randn(output.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return {(n, b): dlb.evaluation(n, target=target, multiplier=1.0, bias=b, **options_of(n)) for n, b in EVERY}


@lru_cache(maxsize=8)
def fused_reference(build: Callable[[Form], nn.Module], form: Form) -> tuple[Tensor, dict[ModeName, Relevance]]:
    """Output and relevance of a fused form, which several written ones are compared with."""
    model = build(form)
    return model.double().eval()(X), explained(model, X)


def assert_agree(build: Callable[[Form], nn.Module], fused: Form, written: Form, but: Collection[str] = ()) -> None:
    """The same function, and the same relevance of the input in every mode `but` these."""
    output, relevance = fused_reference(build, fused)
    model = build(written)
    torch.testing.assert_close(model.double().eval()(X), output)
    for mode, got in explained(model, X).items():
        if mode[0] not in but:
            assert_close(got["x"], relevance[mode]["x"], mode)


def assert_close(got: Tensor, expected: Tensor, mode: ModeName) -> None:
    """Equal but for the little that a stabiliser keeps at every node more."""
    assert float(expected.abs().sum()) > 0
    atol = 1e-4 * float(expected.abs().max())
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=atol, msg=lambda text: f"{mode}: {text}")


X = torch.randn(2, 5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def gelu_by_tanh(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.gelu(u, approximate="tanh")


def silu(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.silu(u)


def square(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return torch.square(u)


def attend(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q, k, v)


ACTIVATIONS: dict[str, tuple[Form, Form]] = {
    "gelu": (lambda u, w, b: F.gelu(u), lambda u, w, b: u * 0.5 * (1 + torch.erf(u / math.sqrt(2)))),
    "gelu by tanh": (
        gelu_by_tanh,
        lambda u, w, b: 0.5 * u * (1 + torch.tanh(math.sqrt(2 / math.pi) * (u + 0.044715 * torch.pow(u, 3)))),
    ),
    "gelu by cubes": (
        gelu_by_tanh,
        lambda u, w, b: 0.5 * u * (1 + torch.tanh(u * 0.7978845608028654 * (1 + 0.044715 * u * u))),
    ),
    "silu": (silu, lambda u, w, b: u * torch.sigmoid(u)),
    "silu, gate first": (silu, lambda u, w, b: torch.sigmoid(u) * u),
    "mish": (lambda u, w, b: F.mish(u), lambda u, w, b: u * torch.tanh(F.softplus(u))),
    "hard-swish": (lambda u, w, b: F.hardswish(u), lambda u, w, b: u * F.relu6(u + 3) / 6),
    "glu": (lambda u, w, b: F.glu(torch.cat([u, u.flip(-1)], -1)), lambda u, w, b: u * torch.sigmoid(u.flip(-1))),
    "swiglu": (lambda u, w, b: F.silu(u) * u.flip(-1), lambda u, w, b: u * torch.sigmoid(u) * u.flip(-1)),
    "square": (square, lambda u, w, b: u * u),
    "power": (square, lambda u, w, b: u**2),
    "relu squared": (lambda u, w, b: torch.square(F.relu(u)), lambda u, w, b: F.relu(u) * F.relu(u)),
}


def centred(u: Tensor) -> Tensor:
    return u - u.mean(-1, keepdim=True)


def variance(u: Tensor) -> Tensor:
    return (centred(u) ** 2).mean(-1, keepdim=True)


def second_moment(u: Tensor) -> Tensor:
    return u.pow(2).mean(-1, keepdim=True)


def by_moments(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean = u.mean(dim=-1, keepdim=True)
    return (u - mean) * torch.rsqrt(second_moment(u) - mean**2 + 1e-5) * w + b


def by_steps(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    mean = torch.mean(u, -1, True)
    difference = u - mean
    return w * (difference / torch.sqrt((difference * difference).sum(-1, keepdim=True) / 6 + 1e-5)) + b


def fused_layer_norm(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.layer_norm(u, (6,), w, b)


def fused_rms_norm(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.rms_norm(u, (6,), w, 1e-5)


NORMS: dict[str, tuple[Form, Form]] = {
    "layer norm, divided": (fused_layer_norm, lambda u, w, b: centred(u) / torch.sqrt(variance(u) + 1e-5) * w + b),
    "layer norm, rsqrt": (fused_layer_norm, lambda u, w, b: centred(u) * torch.rsqrt(variance(u) + 1e-5) * w + b),
    "layer norm, power": (fused_layer_norm, lambda u, w, b: w * (centred(u) * (variance(u) + 1e-5) ** -0.5) + b),
    "layer norm, weight first": (fused_layer_norm, lambda u, w, b: w * centred(u) / (variance(u) + 1e-5).sqrt() + b),
    "layer norm, by moments": (fused_layer_norm, by_moments),
    "layer norm, in steps": (fused_layer_norm, by_steps),
    "RMS norm, rsqrt": (fused_rms_norm, lambda u, w, b: w * (u * torch.rsqrt(second_moment(u) + 1e-5))),
    "RMS norm, divided": (fused_rms_norm, lambda u, w, b: u / torch.sqrt(second_moment(u) + 1e-5) * w),
    "RMS norm, reciprocal": (fused_rms_norm, lambda u, w, b: u * (1 / torch.sqrt(second_moment(u) + 1e-5)) * w),
    "RMS norm, weight first": (fused_rms_norm, lambda u, w, b: w * u * torch.rsqrt((u * u).mean(-1, True) + 1e-5)),
}


def length(u: Tensor) -> Tensor:
    return u.norm(dim=-1, keepdim=True)


def direction(u: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.normalize(u, dim=-1)


MORE_NORMS: dict[str, tuple[Form, Form]] = {
    "direction": (direction, lambda u, w, b: u / length(u)),
    "direction, clamped": (direction, lambda u, w, b: u / length(u).clamp_min(1e-12)),
    "direction, shifted": (direction, lambda u, w, b: u / (length(u) + 1e-12)),
    "direction, reciprocal": (direction, lambda u, w, b: u * (1 / torch.linalg.vector_norm(u, dim=-1, keepdim=True))),
    "direction, squares": (direction, lambda u, w, b: u * torch.rsqrt((u * u).sum(-1, keepdim=True))),
    "direction, einsum": (direction, lambda u, w, b: u / torch.einsum("bti,bti->bt", u, u).sqrt().unsqueeze(-1)),
    "direction, matmul": (direction, lambda u, w, b: u / (u[..., None, :] @ u[..., None])[..., 0].sqrt()),
    "RMS norm, einsum": (
        fused_rms_norm,
        lambda u, w, b: u / torch.sqrt(torch.einsum("bti,bti->bt", u, u).unsqueeze(-1) / 6 + 1e-5) * w,
    ),
    "layer norm, var": (
        fused_layer_norm,
        lambda u, w, b: centred(u) / torch.sqrt(u.var(-1, correction=0, keepdim=True) + 1e-5) * w + b,
    ),
    "layer norm, weights apart": (fused_layer_norm, lambda u, w, b: F.layer_norm(u, (6,)) * w + b),
}


def gated(weights: Callable[[Tensor], Tensor]) -> Form:
    """A signal times weights that are made from other scores than it."""
    return lambda u, w, b: u.flip(-1) * weights(u @ MIX)


MIX = torch.randn(6, 6, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
softmax = gated(lambda z: z.softmax(-1))
GATES: dict[str, tuple[Form, Form]] = {
    "sigmoid, exp": (gated(torch.sigmoid), gated(lambda z: 1 / (1 + torch.exp(-z)))),
    "sigmoid, reciprocal": (gated(torch.sigmoid), gated(lambda z: torch.reciprocal(torch.exp(-z) + 1))),
    "sigmoid, two exp": (gated(torch.sigmoid), gated(lambda z: torch.exp(z) / (1 + torch.exp(z)))),
    "sigmoid, tanh": (gated(torch.sigmoid), gated(lambda z: 0.5 * (torch.tanh(z / 2) + 1))),
    "hard-sigmoid, relu6": (gated(F.hardsigmoid), gated(lambda z: F.relu6(z + 3) / 6)),
    "hard-sigmoid, relu6 by a factor": (gated(F.hardsigmoid), gated(lambda z: F.relu6(3.0 + z) * (1 / 6))),
    "hard-sigmoid, clamp": (gated(F.hardsigmoid), gated(lambda z: torch.clamp(z / 6 + 0.5, 0, 1))),
    "hard-sigmoid, hardtanh": (gated(F.hardsigmoid), gated(lambda z: F.hardtanh((z + 3) / 6, 0, 1))),
    "softmax, exp": (softmax, gated(lambda z: z.exp() / z.exp().sum(-1, keepdim=True))),
    "softmax, one exp": (softmax, gated(lambda z: by_sum((z - z.amax(-1, keepdim=True)).exp()))),
    "softmax, max": (softmax, gated(lambda z: by_sum((z - z.max(-1, keepdim=True).values.detach()).exp()))),
    "softmax, reciprocal": (softmax, gated(lambda z: z.exp() * (1 / z.exp().sum(-1, keepdim=True)))),
    "softmax, logsumexp": (softmax, gated(lambda z: (z - z.logsumexp(-1, keepdim=True)).exp())),
    "softmax, log-softmax": (softmax, gated(lambda z: z.log_softmax(-1).exp())),
}


def by_sum(t: Tensor) -> Tensor:
    return t / t.sum(-1, keepdim=True)


FORMS = {**ACTIVATIONS, **NORMS, **MORE_NORMS, **GATES}


@pytest.mark.parametrize("name", FORMS)
def test_elementwise_functions_norms_and_gates(name: str) -> None:
    fused, written = FORMS[name]
    assert_agree(Between, fused, written)


NO_GATES: dict[str, Callable[[Tensor], Tensor]] = {
    "not shifted by one": lambda z: 1 / (2 + torch.exp(-z)),
    "of another value": lambda z: torch.exp(z) / (1 + torch.exp(z * z)),
    "half a tanh": lambda z: 0.5 * torch.tanh(z / 2) + 0.4,
    "another ramp": lambda z: F.relu6(z + 2) / 6,
    "a ramp that is not scaled": lambda z: torch.clamp(z, 0, 1),
    "a sum over more": lambda z: z.exp() / z.exp().sum((1, 2), keepdim=True),
    "a sum of others": lambda z: z.exp() / z.flip(-1).exp().cumsum(-1),
}


@pytest.mark.parametrize("name", NO_GATES)
def test_what_only_looks_like_a_gate_stays_as_it_is(name: str) -> None:
    model = Between(gated(NO_GATES[name])).double().eval()
    ops = {row["op"].partition(".")[0] for row in DLBacktrace(model, X).plan("attnlrp").table().records()}
    assert ops.isdisjoint({"aten::sigmoid", "aten::hardsigmoid", "aten::softmax"})
    torch.testing.assert_close(DLBacktrace(model, X).predict(X)["output"].output, model(X))


class Attention(nn.Module):
    """Two heads over five positions; the core is fused or written out."""

    def __init__(self, core: Form) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.core = core
        self.qkv, self.out = nn.Linear(4, 12), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        parts = self.qkv(x).chunk(3, -1)
        q, k, v = (part.view(x.shape[0], 5, 2, 2).transpose(1, 2) for part in parts)
        return self.out(self.core(q, k, v).transpose(1, 2).reshape(x.shape[0], 5, 4)) + x


CAUSAL = torch.full((5, 5), float("-inf"), dtype=torch.float64).triu(1)
LAST = torch.zeros(5, dtype=torch.bool).index_fill(0, torch.tensor([4]), True)
CORES: dict[str, tuple[Form, Form]] = {
    "plain": (
        attend,
        lambda q, k, v: torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(2), -1) @ v,
    ),
    "scaled queries": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, scale=0.3),
        lambda q, k, v: torch.matmul(F.dropout(F.softmax((q * 0.3) @ k.mT, -1), 0.1, False), v),
    ),
    "causal": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: torch.softmax(q @ k.mT / math.sqrt(2) + CAUSAL, -1) @ v,
    ),
    "masked": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, ~LAST.expand(5, 5)),
        lambda q, k, v: torch.softmax((q @ k.mT / math.sqrt(2)).masked_fill(LAST, float("-inf")), -1) @ v,
    ),
    "mask of the least number": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, is_causal=True),
        lambda q, k, v: torch.softmax(q @ k.mT / math.sqrt(2) + CAUSAL.clamp_min(torch.finfo(q.dtype).min), -1) @ v,
    ),
    "biased scores": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, attn_mask=MIX[:5, :5]),
        lambda q, k, v: torch.softmax(q @ k.mT / math.sqrt(2) + MIX[:5, :5], -1) @ v,
    ),
    "einsum": (
        attend,
        lambda q, k, v: torch.einsum(
            "bhij,bhjd->bhid", torch.einsum("bhid,bhjd->bhij", q, k).mul(0.5**0.5).softmax(-1), v
        ),
    ),
    "keys first": (attend, lambda q, k, v: (k @ q.mT / math.sqrt(2)).softmax(-2).mT @ v),
    "products and sums": (
        attend,
        lambda q, k, v: (
            ((q.unsqueeze(3) * k.unsqueeze(2)).sum(-1) / math.sqrt(2)).softmax(-1).unsqueeze(-1) * v.unsqueeze(2)
        ).sum(3),
    ),
    "softmax spelled out": (attend, lambda q, k, v: by_sum(below(q @ k.mT / math.sqrt(2)).exp()) @ v),
    "batched": (
        attend,
        lambda q, k, v: torch.bmm(
            F.softmax(torch.bmm(q.flatten(0, 1), k.flatten(0, 1).mT) * 0.5**0.5, -1), v.flatten(0, 1)
        ).unflatten(0, (2, 2)),
    ),
}


def below(scores: Tensor) -> Tensor:
    return scores - scores.amax(-1, keepdim=True)


@pytest.mark.parametrize("name", CORES)
def test_attention(name: str) -> None:
    fused, written = CORES[name]
    # `faithful` goes by kind: sums and products are not matrix products, nor a learned addend a mask
    assert_agree(Attention, fused, written, ("faithful",) if name in ("biased scores", "products and sums") else ())


def test_weights_that_are_divided_last_are_gates() -> None:
    """exp(s - max s) v / sum exp(s - max s), as tiled attention adds up; their rules see a product and no softmax."""

    def late(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
        powers = below(q @ k.mT / math.sqrt(2)).exp()
        return (powers @ v) / powers.sum(-1, keepdim=True)

    _, expected = fused_reference(Attention, attend)
    for mode, got in explained(Attention(late), X).items():
        if mode[0] not in ("attnlrp", "faithful"):
            assert_close(got["x"], expected[mode]["x"], mode)


class Normed(nn.Module):
    """A layer, its BatchNorm, and a classifier."""

    def __init__(self, dims: int) -> None:
        super().__init__()
        torch.manual_seed(dims)
        layer, norm = {0: (nn.Linear, nn.BatchNorm1d), 1: (nn.Conv1d, nn.BatchNorm1d), 2: (nn.Conv2d, nn.BatchNorm2d)}[
            dims
        ]
        self.layer = layer(3, 4, *(() if dims == 0 else (3,)))
        self.norm = norm(4)
        for tensor in (self.norm.weight, self.norm.bias, self.norm.running_mean):
            nn.init.normal_(tensor)
        nn.init.uniform_(self.norm.running_var, 0.5, 2)
        self.head = nn.Linear(4 * 3**dims, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.norm(self.layer(x))).flatten(1))


@pytest.mark.parametrize("dims", [0, 1, 2])
def test_a_folded_batch_norm(dims: int) -> None:
    """Folded or not, inputs get the same and the biases together too; `default` that absorbs weighs two sums as one."""
    x = torch.randn(2, 3, *[5] * dims, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    model = Normed(dims)
    folded, unfolded = explained(model, x, fold=True), explained(model, x, fold=False)
    for mode in MODES:
        assert [sum("norm" in name for name in books[mode]) for books in (folded, unfolded)] == [0, 1]
        if mode != ("default", "absorb"):
            assert_close(folded[mode]["x"], unfolded[mode]["x"], mode)
            one, other = (biases(books[mode]) for books in (folded, unfolded))
            assert one == pytest.approx(other, rel=1e-4, abs=1e-4)


def biases(relevance: Relevance) -> float:
    return math.fsum(units for account, units in relevance.ledger.accounts.items() if account.startswith("bias:"))


class Recurrent(nn.Module):
    """An LSTM over five steps whose gates read an input of their own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.gate, self.value, self.state = nn.Linear(4, 9), nn.Linear(4, 3), nn.Linear(3, 3)

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        c = h = torch.tanh(self.value(x[:, 0]))
        for t in range(1, 5):
            i, f, o = self.gate(gates[:, t]).sigmoid().chunk(3, 1)
            c = f * c + i * torch.tanh(self.value(x[:, t]) + self.state(h))
            h = o * torch.tanh(c)
        return h


class Routed(nn.Module):
    """Two experts weighted by the renormalised first of four scores; the router reads an input of its own."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.router = nn.Linear(4, 4)
        self.experts = nn.ModuleList(nn.Linear(4, 3) for _ in range(2))

    def forward(self, x: Tensor, gates: Tensor) -> Tensor:
        weights = self.router(gates).softmax(-1)[..., :2]
        weights = weights / weights.sum(-1, keepdim=True)
        return sum(weights[..., i : i + 1] * expert(x) for i, expert in enumerate(self.experts))


@pytest.mark.parametrize("model", [Recurrent, Routed])
def test_gates_get_nothing_and_every_step_of_the_signal_its_share(model: type[nn.Module]) -> None:
    for mode, relevance in explained(model(), X, X.flip(0)).items():
        if mode[0] == "attnlrp":
            continue  # there a gate takes its half
        assert not bool(relevance["gates"].any())
        assert bool(relevance["x"].abs().sum((0, 2)).gt(0).all())
