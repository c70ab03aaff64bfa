"""integrated and smooth: what adds up, what the limits are, computed independently, and what is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dlb_core import DLBacktrace, NonFiniteError, integrated, smooth

STABLE = {"eps": 1e-12}  # what a stabiliser adds would hide what is compared


class Perceptron(nn.Module):
    """Dense layers with ReLU: [B, 5] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 7), nn.ReLU(), nn.Linear(7, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(x)


class Convolutions(nn.Module):
    """Convolution, BatchNorm, a residual, max-pooling, dense: [B, 1, 6, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.norm = nn.Conv2d(1, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.two, self.fc = nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4 * 3 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.one(x)).relu()
        x = F.max_pool2d((x + self.two(x)).relu(), 2)
        return self.fc(x.flatten(1))


class Recurrent(nn.Module):
    """A fused LSTM in both directions: [B, 4, 3] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.fc = nn.LSTM(3, 4, batch_first=True, bidirectional=True), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.rnn(x)[0][:, -1])


class Cell(nn.Module):
    """An LSTM written in plain ops: [B, 4, 3] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.h, self.fc = nn.Linear(3, 16), nn.Linear(4, 16), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = c = x.new_zeros(x.shape[0], 4)
        for t in range(4):
            i, f, g, o = (self.x(x[:, t]) + self.h(h)).chunk(4, -1)
            c = f.sigmoid() * c + i.sigmoid() * g.tanh()
            h = o.sigmoid() * c.tanh()
        return self.fc(h)


class Attentive(nn.Module):
    """Two heads of attention and a gated dense layer: [B, 4, 6] -> [B, 3]; with norms, or without."""

    def __init__(self, *, fused: bool = True, norms: bool = False, detached: bool = False) -> None:
        super().__init__()
        self.fused, self.norms, self.detached = fused, norms, detached
        self.first, self.second = nn.LayerNorm(6), nn.LayerNorm(6)
        self.qkv, self.out = nn.Linear(6, 18), nn.Linear(6, 6)
        self.up, self.gate, self.down, self.fc = (nn.Linear(6, n) for n in (5, 5, 5, 3))
        self.down = nn.Linear(5, 6)

    def normed(self, norm: nn.LayerNorm, x: Tensor) -> Tensor:
        if not self.norms:
            return x
        if not self.detached:
            return norm(x)
        mean, scale = x.mean(-1, keepdim=True), (x.var(-1, correction=0, keepdim=True) + norm.eps).rsqrt()
        return (x - mean.detach()) * scale.detach() * norm.weight + norm.bias

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (t.unflatten(-1, (2, 3)).transpose(1, 2) for t in self.qkv(self.normed(self.first, x)).chunk(3, -1))
        if self.fused:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            y = (q @ k.transpose(-1, -2) / math.sqrt(3)).softmax(-1) @ v
        x = x + self.out(y.transpose(1, 2).flatten(2))
        z = self.normed(self.second, x)
        return self.fc((x + self.down(F.silu(self.gate(z)) * self.up(z))).mean(1))


class Reader(nn.Module):
    """Ids through an embedding: [B, T] -> [B, 3]; `inner` takes the embedding itself."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.table, self.inner = nn.Embedding(11, 6), inner

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.inner(self.table(input_ids))


class Two(nn.Module):
    """Two inputs that meet in a product: [B, 4], [B, 4] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.fc = nn.Linear(4, 5), nn.Linear(4, 5), nn.Linear(5, 3)

    def forward(self, left: Tensor, right: Tensor) -> Tensor:
        return self.fc(self.a(left).tanh() * self.b(right).relu())


MODELS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "perceptron": (Perceptron, (5,)),
    "convolutions": (Convolutions, (1, 6, 6)),
    "lstm": (Recurrent, (4, 3)),
    "cell": (Cell, (4, 3)),
    "attention": (Attentive, (4, 6)),
    "written attention": (lambda: Attentive(fused=False), (4, 6)),
    "transformer": (lambda: Attentive(norms=True), (4, 6)),
}
SMOOTH = ("lstm", "cell", "attention", "written attention")  # differentiable, and nothing is held


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    """The model with the same weights at every call, in float64; its biases and statistics are random too."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = build().double().eval()
        for buffer in model.buffers():
            if buffer.is_floating_point():
                buffer += 0.5 * torch.rand_like(buffer)
    return model.requires_grad_(False)


@cache
def traced(name: str) -> tuple[nn.Module, DLBacktrace]:
    build, shape = MODELS[name]
    model = seeded(build)
    return model, DLBacktrace(model, torch.zeros(2, *shape, dtype=torch.float64))


def numbers(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def modes(dlb: DLBacktrace) -> list[tuple[str, dict[str, Any]]]:
    """Every mode that has one map, with the options that it cannot do without."""
    options: dict[str, dict[str, Any]] = {"z-box": {"low": -5.0, "high": 5.0}}
    return [(name, options.get(name, {})) for name in dlb.modes if name not in ("contrastive", "auto")]


def chosen(y: Tensor, target: int = 1) -> Tensor:
    return y[:, target].sum()


def gradients(model: nn.Module, x: Tensor, base: Tensor, steps: int, target: int = 1) -> Tensor:
    """Integrated Gradients by autograd and the midpoint rule."""
    total = torch.zeros_like(x)
    for k in range(steps):
        point = (base + (x - base) * (k + 0.5) / steps).requires_grad_()
        total += torch.autograd.grad(chosen(model(point), target), point)[0]
    return (x - base) * total / steps


# --- what adds up ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", MODELS)
@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**6), steps=st.sampled_from([1, 2, 5]), size=st.sampled_from([0.1, 1.0, 5.0]))
def test_relevance_along_a_path_adds_up_to_the_change_of_the_output(
    name: str, seed: int, steps: int, size: float
) -> None:
    model, dlb = traced(name)
    shape = MODELS[name][1]
    x, base = size * numbers(seed, 3, *shape), size * numbers(seed + 1, 3, *shape)
    change = float(chosen(model(x)) - chosen(model(base)))
    options = modes(dlb)
    for mode, more in [options[seed % len(options)], options[(seed + 5) % len(options)], ("epsilon", {})]:
        exp = dlb.explain(x, mode=integrated(mode, base, steps, **more), target=1)
        ledger = exp.ledger
        assert ledger.seed == pytest.approx(change, rel=1e-9, abs=1e-12)
        assert float(exp.inputs["x"].sum()) == pytest.approx(ledger.inputs["x"], abs=1e-9 * ledger.scale)
        ends = math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values())
        assert ends == pytest.approx(change, abs=1e-9 * ledger.scale * math.sqrt(len(ledger.by_node)))
        assert ledger.check() == []


@pytest.mark.parametrize("name", MODELS)
def test_every_mode_adds_up_on_every_model(name: str) -> None:
    model, dlb = traced(name)
    x = numbers(3, 2, *MODELS[name][1])
    change = float(chosen(model(x)) - chosen(model(torch.zeros_like(x))))
    for mode, options in modes(dlb):
        path = dlb.explain(x, mode=integrated(mode, steps=3, **options), target=1).ledger
        assert path.seed == pytest.approx(change, rel=1e-9)
        assert path.residual == pytest.approx(0, abs=1e-9 * path.scale * math.sqrt(len(path.by_node)))
        noisy = dlb.explain(x, mode=smooth(mode, samples=3, **options), target=1).ledger
        assert noisy.seed == pytest.approx(200, rel=1e-9)
        assert noisy.residual == pytest.approx(0, abs=1e-9 * noisy.scale * math.sqrt(len(noisy.by_node)))


@pytest.mark.parametrize("name", ["perceptron", "convolutions", "lstm", "attention"])
def test_where_nothing_is_held_the_inputs_get_all_of_it(name: str) -> None:
    model, dlb = traced(name)
    x = numbers(4, 3, *MODELS[name][1])
    change = (model(x) - model(torch.zeros_like(x)))[:, 1]
    for mode in ("epsilon", "default", "gamma"):
        given = dlb.explain(x, mode=integrated(mode, steps=4), target=1).inputs["x"].flatten(1).sum(1)
        assert torch.allclose(given, change, rtol=1e-4, atol=1e-5), mode


def test_a_normalisers_statistics_hold_their_share() -> None:
    _, dlb = traced("transformer")
    ledger = dlb.explain(numbers(5, 2, 4, 6), mode=integrated("epsilon", steps=4), target=1).ledger
    assert ledger.accounts["held"] != 0
    assert set(ledger.accounts) == {"held", "stabiliser"}


# --- what it is, computed in another way -----------------------------------------------------------------------------


@pytest.mark.parametrize("steps", [1, 4])
def test_a_linear_model_gives_weight_times_change(steps: int) -> None:
    model = seeded(lambda: nn.Linear(4, 3))
    x, base = numbers(0, 2, 4), numbers(1, 2, 4)
    exp = DLBacktrace(model, x).explain(x, mode=integrated("epsilon", base, steps, **STABLE), target=2)
    assert torch.allclose(exp.inputs["input"], model.weight[2] * (x - base), atol=1e-9)
    assert exp.ledger.accounts.get("bias:bias", 0.0) == 0


def rescaled(layers: nn.Sequential, x: Tensor, base: Tensor, target: int) -> Tensor:
    """DeepLIFT's rescale rule: multipliers go back, by the change of a ReLU over the change of what it reads."""
    values = [(x, base)]
    for layer in layers:
        values.append(tuple(layer(v) for v in values[-1]))  # type: ignore[arg-type]
    m = torch.zeros_like(values[-1][0])
    m[:, target] = 1
    for layer, (now, then), (after, before) in zip(reversed(layers), values[-2::-1], values[:0:-1], strict=True):
        if isinstance(layer, nn.ReLU):
            m = m * torch.where(now == then, 0.0, (after - before) / (now - then))
        else:
            m = torch.func.vjp(layer, now)[1](m)[0]
    return m * (x - base)


LAYERS: dict[str, tuple[Callable[[], nn.Sequential], tuple[int, ...]]] = {
    "dense": (lambda: Perceptron().layers, (5,)),
    "convolutions": (
        lambda: nn.Sequential(
            nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(4, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 3)
        ),
        (2, 6, 6),
    ),
}


@pytest.mark.parametrize("name", LAYERS)
def test_one_step_of_epsilon_on_a_relu_network_is_the_rescale_rule(name: str) -> None:
    build, shape = LAYERS[name]
    layers = seeded(build)
    assert isinstance(layers, nn.Sequential)
    x, base = numbers(0, 4, *shape), numbers(1, 4, *shape)
    exp = DLBacktrace(layers, x).explain(x, mode=integrated("epsilon", base, 1, **STABLE), target=1)
    (relevance,) = exp.inputs.values()
    assert torch.allclose(relevance, rescaled(layers, x, base, 1), atol=1e-8)


@pytest.mark.parametrize("name", SMOOTH)
def test_many_steps_of_epsilon_tend_to_integrated_gradients(name: str) -> None:
    model, dlb = traced(name)
    x, base = (numbers(seed, 2, *MODELS[name][1]) for seed in (6, 7))
    limit = gradients(model, x, base, 400)
    errors = []
    for steps in (4, 16, 64):
        found = dlb.explain(x, mode=integrated("epsilon", base, steps, **STABLE), target=1).inputs["x"]
        errors.append(float((found - limit).abs().max() / limit.abs().max()))
    assert errors[-1] < 1e-3, errors
    assert errors[0] > 4 * errors[1] > 16 * errors[2], errors  # of second order in the size of a step


def test_on_a_relu_network_many_steps_tend_to_integrated_gradients() -> None:
    model, dlb = traced("perceptron")
    x, base = numbers(8, 3, 5), numbers(9, 3, 5)
    found = dlb.explain(x, mode=integrated("epsilon", base, 500, **STABLE), target=1).inputs["x"]
    limit = gradients(model, x, base, 4000)
    assert torch.allclose(found, limit, atol=2e-3 * float(limit.abs().max()))


def test_with_norms_the_limit_is_that_of_detached_statistics() -> None:
    """Of first order, since statistics are those at the end of a step; so twice as many steps, twice, less once."""
    _, dlb = traced("transformer")
    detached = seeded(lambda: Attentive(norms=True, detached=True))
    x, base = numbers(10, 2, 4, 6), numbers(11, 2, 4, 6)
    limit = gradients(detached, x, base, 400)
    found = {n: dlb.explain(x, mode=integrated("epsilon", base, n, **STABLE), target=1).inputs["x"] for n in (32, 64)}
    errors = [float((relevance - limit).abs().max() / limit.abs().max()) for relevance in found.values()]
    assert 1.8 < errors[0] / errors[1] < 2.2
    assert torch.allclose(2 * found[64] - found[32], limit, atol=2e-4 * float(limit.abs().max()))


class Written(nn.Module):
    """An RMSNorm as one op, or in ops: [B, 4, 6] -> [B, 3]."""

    def __init__(self, *, fused: bool) -> None:
        super().__init__()
        self.fused, self.one, self.norm, self.two = fused, nn.Linear(6, 6), nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(x)
        scale = self.norm.weight * (x.pow(2).mean(-1, keepdim=True) + 1e-6).rsqrt()
        return self.two(self.norm(x) if self.fused else x * scale).relu().mean(1)


def test_fused_and_written_norms_agree_in_every_mode() -> None:
    x, base = numbers(30, 2, 4, 6), numbers(31, 2, 4, 6)
    fused, written = (DLBacktrace(seeded(lambda kind=kind: Written(fused=kind)), x) for kind in (True, False))
    for mode, options in modes(fused):
        one, other = (d.explain(x, mode=integrated(mode, base, 3, **options), target=1) for d in (fused, written))
        assert torch.allclose(one.inputs["x"], other.inputs["x"], atol=1e-6 * one.ledger.input_scale), mode
        assert one.ledger.accounts.get("held", 0) == pytest.approx(other.ledger.accounts["held"], rel=1e-4, abs=1e-6)


def test_a_norm_holds_nothing_of_a_first_step_from_zero() -> None:
    """The way from zero leads through where it divides by almost nothing; its value at the end says it all."""

    class Normed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norm, self.fc = nn.RMSNorm(6, eps=1e-6), nn.Linear(6, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.fc(self.norm(x))

    model, x = seeded(Normed), numbers(32, 3, 6)
    exp = DLBacktrace(model, x).explain(x, mode=integrated("epsilon", steps=1, **STABLE), target=1)
    assert isinstance(model, Normed)
    assert torch.allclose(exp.inputs["x"], model.fc.weight[1] * model.norm(x), atol=1e-9)
    assert exp.ledger.accounts["held"] == pytest.approx(0, abs=1e-12)


def test_fused_and_written_attention_agree_in_every_mode() -> None:
    (_, fused), (_, written) = traced("attention"), traced("written attention")
    x = numbers(12, 2, 4, 6)
    for mode, options in modes(fused):
        if mode == "vision" or options or mode in ("flat", "w-square"):
            continue  # what is first in a model differs by how it is written
        one, other = (
            d.explain(x, mode=integrated(mode, steps=2, **options), target=1).inputs["x"] for d in (fused, written)
        )
        assert torch.allclose(one, other, atol=1e-6 * float(one.abs().max())), mode


def test_the_winner_of_a_maximum_is_the_one_that_made_it_change() -> None:
    class Greatest(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.max(1, keepdim=True)[0]

    base, x = torch.tensor([[0.5, 0.4]]).double(), torch.tensor([[0.5, 0.6]]).double()
    dlb = DLBacktrace(Greatest().eval(), base)
    rise = dlb.explain(x, mode=integrated("epsilon", base, 1), target=0).inputs["x"]
    fall = dlb.explain(base, mode=integrated("epsilon", x, 1), target=0).inputs["x"]
    assert torch.allclose(rise, torch.tensor([[0.0, 0.1]]).double())
    assert torch.allclose(fall, torch.tensor([[0.0, -0.1]]).double())


# --- batches, inputs, baselines --------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [lambda: integrated("epsilon", steps=3), lambda: smooth("epsilon", samples=3)])
@pytest.mark.parametrize("name", ["convolutions", "transformer", "lstm"])
def test_samples_do_not_see_each_other(name: str, wrap: Callable[[], Any]) -> None:
    _, dlb = traced(name)
    x = numbers(13, 3, *MODELS[name][1])
    together = dlb.explain(x, mode=wrap(), target=1).inputs["x"]
    for i in range(3):
        alone = dlb.explain(x[i : i + 1], mode=wrap(), target=1).inputs["x"]
        assert torch.allclose(together[i : i + 1], alone, atol=1e-9 * float(alone.abs().max()))


@pytest.mark.parametrize("name", ["convolutions", "transformer", "lstm"])
def test_steps_at_once_are_steps_one_by_one(name: str) -> None:
    _, dlb = traced(name)
    x = numbers(14, 2, *MODELS[name][1])
    for wrap in (integrated, smooth):
        runs = [dlb.explain(x, mode=wrap("epsilon", chunk=chunk), target=1) for chunk in (None, 1, 5)]
        whole = runs[0].inputs["x"]
        for run in runs[1:]:
            assert torch.allclose(run.inputs["x"], whole, atol=1e-9 * float(whole.abs().max()))
            assert run.ledger.accounts == pytest.approx(dict(runs[0].ledger.accounts), abs=1e-9 * runs[0].ledger.scale)


@cache
def two() -> tuple[nn.Module, DLBacktrace]:
    model = seeded(Two)
    return model, DLBacktrace(model, (torch.zeros(2, 4).double(), torch.zeros(2, 4).double()))


@pytest.mark.parametrize(
    ("baseline", "meant"),
    [
        (0, (0.0, 0.0)),
        (0.5, (0.5, 0.5)),
        ({"right": 2}, (0.0, 2.0)),
        ({"left": 1, "right": numbers(20, 4)}, (1.0, numbers(20, 4))),
        (numbers(21, 1, 4), (numbers(21, 1, 4), numbers(21, 1, 4))),
    ],
    ids=["zero", "a number", "one input", "by name, broadcast", "a tensor for all"],
)
def test_baselines_of_several_inputs(baseline: Any, meant: tuple[Any, Any]) -> None:
    model, dlb = two()
    left, right = numbers(22, 3, 4), numbers(23, 3, 4)
    start = [torch.zeros(3, 4, dtype=torch.float64) + part for part in meant]
    change = float(chosen(model(left, right)) - chosen(model(*start)))
    exp = dlb.explain(left, right, mode=integrated("epsilon", baseline, 4), target=1)
    assert exp.ledger.seed == pytest.approx(change, rel=1e-9)
    assert float(sum(r.sum() for r in exp.inputs.values())) == pytest.approx(change, rel=1e-4)
    same = start[0] == left
    assert (exp.inputs["left"][same] == 0).all()


@cache
def reader() -> tuple[Reader, DLBacktrace, DLBacktrace]:
    """Ids, and the same network on embeddings."""
    model = seeded(lambda: Reader(Attentive(norms=True)))
    assert isinstance(model, Reader)
    inner = DLBacktrace(model.inner, torch.zeros(2, 4, 6).double())
    return model, DLBacktrace(model, torch.zeros(2, 4, dtype=torch.long)), inner


@pytest.mark.parametrize("baseline", [0, {"input_ids": 3}, {"input_ids": torch.tensor([[1], [2]])}])
def test_the_path_of_token_ids_runs_in_their_embedding(baseline: Any) -> None:
    model, dlb, inner = reader()
    ids = torch.tensor([[1, 4, 9, 10], [5, 5, 0, 2]])
    x = model.table(ids)
    base = torch.zeros_like(x)
    if baseline != 0:
        base = model.table(torch.as_tensor(baseline["input_ids"]).expand(2, 4))
    found = dlb.explain(ids, mode=integrated("epsilon", baseline, 3), target=1)
    same = inner.explain(x, mode=integrated("epsilon", base, 3), target=1)
    assert found.ledger.seed == pytest.approx(float(chosen(model.inner(x)) - chosen(model.inner(base))), rel=1e-9)
    assert torch.allclose(found.inputs["input_ids"], same.inputs["x"].sum(-1), atol=1e-9)
    noisy = dlb.explain(ids, mode=smooth("epsilon", samples=3), target=1)
    rough = inner.explain(x, mode=smooth("epsilon", samples=3), target=1)
    assert torch.allclose(noisy.inputs["input_ids"], rough.inputs["x"].sum(-1), atol=1e-9 * rough.ledger.input_scale)


# --- beside other arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("wrap", [integrated("epsilon", steps=3), smooth("default", samples=3)], ids=["path", "noise"])
@pytest.mark.parametrize("name", ["convolutions", "lstm", "transformer"])
def test_several_targets_are_one_after_the_other(name: str, wrap: Any) -> None:
    _, dlb = traced(name)
    x = numbers(15, 2, *MODELS[name][1])
    several = dlb.explain(x, mode=wrap, targets=[0, 2, [1, 0]])
    for i, target in enumerate([0, 2, [1, 0]]):
        one = dlb.explain(x, mode=wrap, target=target)
        assert torch.allclose(several.inputs["x"][i], one.inputs["x"], atol=1e-9 * one.ledger.input_scale)
        assert several.ledger[i].seed == pytest.approx(one.ledger.seed)
        assert several.ledger[i].accounts == pytest.approx(dict(one.ledger.accounts), abs=1e-9 * one.ledger.scale)


def test_all_nodes_are_kept_and_evaluation_says_the_same() -> None:
    _, dlb = traced("transformer")
    x = numbers(16, 3, 4, 6)
    wrap = integrated("epsilon", steps=3)
    node_io = dlb.predict(x)
    relevance = dlb.evaluation(wrap, target=1)
    exp = dlb.explain(x, mode=wrap, target=1, keep="all")
    assert set(relevance) == set(exp.relevance)
    for name, entry in relevance.ledger.by_node.items():
        if not isinstance(relevance[name], tuple):
            assert relevance[name].shape == node_io[name].output.shape
            assert float(relevance[name].sum()) == pytest.approx(entry.into, abs=1e-9 * entry.scale)
            assert torch.allclose(relevance[name], exp.relevance[name])
    assert float(relevance["output"].sum()) == pytest.approx(relevance.ledger.seed)


def test_the_seed_is_what_changes() -> None:
    model, dlb = traced("perceptron")
    x = numbers(17, 2, 5)
    zero = torch.zeros_like(x)
    p = model(x).softmax(1) - model(zero).softmax(1)
    path = integrated("epsilon", steps=3)
    assert dlb.explain(x, mode=path, target=1, seed="probability").ledger.seed == pytest.approx(float(chosen(p)))
    change = float(chosen(model(x)) - chosen(model(zero)))
    assert dlb.explain(x, mode=path, target=1, scaler=3.0).ledger.seed == pytest.approx(3 * change)
    assert dlb.explain(x, mode=path, target=1, temperature=2.0).ledger.seed == pytest.approx(change / 2)
    hidden = float((model.layers[:3](x) - model.layers[:3](zero))[:, 4].sum())
    assert dlb.explain(x, mode=path, at="layers.2", target=4).ledger.seed == pytest.approx(hidden)
    weights = numbers(18, 2, 3)
    weighted = float((weights * (model(x) - model(zero))).sum())
    assert dlb.explain(x, mode=path, target=weights).ledger.seed == pytest.approx(weighted)


def test_the_options_of_a_mode_and_composites_go_through() -> None:
    _, dlb = traced("convolutions")
    x = numbers(19, 2, 1, 6, 6)
    one = dlb.explain(x, mode=integrated("gamma", gamma=0.5, steps=2), target=1)
    other = dlb.explain(x, mode=integrated("gamma", steps=2), gamma=0.5, target=1)
    plain = dlb.explain(x, mode=integrated("gamma", gamma=0, steps=2), target=1)
    assert torch.equal(one.inputs["x"], other.inputs["x"])
    assert not torch.allclose(one.inputs["x"], plain.inputs["x"])
    epsilon = dlb.explain(x, mode=integrated("epsilon", steps=2), target=1)
    assert torch.allclose(plain.inputs["x"], epsilon.inputs["x"], atol=1e-9)
    assert one.mode == "integrated(gamma)"
    assert one.options["steps"] == 2
    with pytest.raises(ValueError, match="no option 'gama'"):
        dlb.explain(x, mode=integrated("gamma", gama=0.5), target=1)
    assert "linear" in str(dlb.plan(integrated("gamma")).table())


# --- noise -----------------------------------------------------------------------------------------------------------


def test_without_noise_it_is_the_mode_itself() -> None:
    _, dlb = traced("convolutions")
    x = numbers(24, 2, 1, 6, 6)
    quiet = dlb.explain(x, mode=smooth("epsilon", noise=0, samples=3), target=1)
    assert torch.allclose(quiet.inputs["x"], dlb.explain(x, mode="epsilon", target=1).inputs["x"], atol=1e-9)


@pytest.mark.parametrize("inner", ["epsilon", integrated("epsilon", steps=2)], ids=["mode", "path"])
def test_it_is_the_mean_over_noisy_inputs(inner: Any) -> None:
    _, dlb = traced("perceptron")
    x, samples = numbers(25, 3, 5), 4
    draws = torch.randn(samples, 1, 5, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    copies = x + 0.2 * (x.amax(1, keepdim=True) - x.amin(1, keepdim=True)) * draws
    wrap = smooth(inner, 0.2, samples, seed=7)
    runs = [dlb.explain(copy, mode=inner, target=1, seed="logit") for copy in copies]
    exp = dlb.explain(x, mode=wrap, target=1, seed="logit")
    mean = torch.stack([run.inputs["x"] for run in runs]).mean(0)
    assert torch.allclose(exp.inputs["x"], mean, atol=1e-9 * float(mean.abs().max()))
    assert exp.ledger.seed == pytest.approx(sum(run.ledger.seed for run in runs) / samples)
    again, other = (dlb.explain(x, mode=smooth(inner, 0.2, samples, seed=s), target=1, seed="logit") for s in (7, 8))
    assert torch.equal(again.inputs["x"], exp.inputs["x"])
    assert not torch.allclose(other.inputs["x"], exp.inputs["x"])


def test_the_target_is_chosen_at_the_input_itself() -> None:
    model, dlb = traced("perceptron")
    x = numbers(26, 6, 5)
    exp = dlb.explain(x, mode=smooth("epsilon", noise=2.0, samples=8))
    assert exp.target == model(x).argmax(1).tolist()


# --- what is refused -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: integrated("epsilon", steps=0), "steps=0: must be an int of at least 1"),
        (lambda: integrated("epsilon", steps=2.5), "steps=2.5"),
        (lambda: integrated("epsilon", chunk=0), "chunk=0"),
        (lambda: smooth("epsilon", noise=-0.1), "noise=-0.1: must be a finite number, 0 or more"),
        (lambda: smooth("epsilon", noise=math.inf), "noise=inf"),
        (lambda: smooth("epsilon", samples=0), "samples=0"),
        (lambda: smooth("epsilon", seed="logit"), "of the noise"),
        (lambda: integrated(integrated("epsilon")), "integrated takes a mode"),
        (lambda: smooth(smooth("epsilon")), "smooth takes a mode"),
    ],
)
def test_wrong_parameters_are_refused_at_once(make: Callable[[], Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


@pytest.mark.parametrize(
    ("mode", "words"),
    [
        (integrated("epsilon", {"middle": 0}), "baseline names 'middle': choose from left, right"),
        (integrated("epsilon", numbers(0, 3)), r"baseline of 'left' has shape \[3\].* \[2, 4\]"),
        (integrated("epsilon", {"right": numbers(0, 5, 2, 4)}), r"baseline of 'right' has shape \[5, 2, 4\]"),
        (integrated("epsilon", math.nan), "give a finite number or a tensor"),
        (integrated("epsilon", torch.full((4,), math.inf)), "values that are not finite"),
        (integrated("epsilon", "black"), "give a finite number or a tensor"),
        (integrated("epsilom"), "unknown mode 'epsilom'"),
        (integrated("contrastive"), "'contrastive' has two"),
        (smooth("contrastive"), "'contrastive' has two"),
    ],
)
def test_what_does_not_fit_the_model_is_refused(mode: Any, words: str) -> None:
    _, dlb = two()
    with pytest.raises(ValueError, match=words):
        dlb.explain(numbers(0, 2, 4), numbers(1, 2, 4), mode=mode, target=1)


@pytest.mark.parametrize("baseline", [{"input_ids": 11}, {"input_ids": -1}, {"input_ids": 0.5}, 4.5])
def test_a_baseline_that_is_no_token_is_refused(baseline: Any) -> None:
    _, dlb, _ = reader()
    with pytest.raises(ValueError, match=r"token ids in 0 \.\. 10"):
        dlb.explain(torch.zeros(1, 4, dtype=torch.long), mode=integrated("epsilon", baseline), target=1)


def test_a_multiplier_is_refused_where_the_output_counts() -> None:
    _, dlb = traced("perceptron")
    with pytest.raises(ValueError, match="use scaler="):
        dlb.explain(numbers(0, 1, 5), mode=integrated("epsilon"), target=1, multiplier=50.0)


def test_integers_that_no_lookup_reads_have_no_path() -> None:
    class Counted(nn.Module):
        def forward(self, x: Tensor, count: Tensor) -> Tensor:
            return x * count

    call: Mapping[str, Tensor] = {"x": numbers(0, 2, 3), "count": torch.ones(2, 3, dtype=torch.long)}
    dlb = DLBacktrace(Counted().eval(), dict(call), explain_inputs=["x", "count"])
    with pytest.raises(ValueError, match="count: nothing lies between"):
        dlb.explain(**call, mode=integrated("epsilon"), target=1)


def test_an_output_that_is_not_finite_on_the_way_is_said() -> None:
    class Logarithm(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.log()

    x = torch.tensor([[1.0, 2.0]])
    dlb = DLBacktrace(Logarithm().eval(), x)
    with pytest.raises(NonFiniteError, match="choose another baseline"):
        dlb.explain(x, mode=integrated("epsilon"), target=0)
    found = dlb.explain(x, mode=integrated("epsilon", 1.0), target=1)
    assert found.inputs["x"][0].tolist() == pytest.approx([0.0, math.log(2)], rel=1e-4)
