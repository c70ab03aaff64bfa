"""What the pass for layers of experts marks, what it calls them, and what it leaves alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_core.rules import SITES, ExpertSite, facts
from dlb_ops_moe.sites import Sites

from .forms import EXPERTS, WIDTH, Mixture, Net


def sites(dlb: DLBacktrace) -> list[ExpertSite]:
    return dlb._engine.program.sites[SITES]


class Twice(nn.Module):
    """The same mixture, called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.moe, self.head = Mixture("one by one"), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.moe(x + self.moe(x)))


class Onto(nn.Module):
    """Experts that are added onto what another module makes of every token."""

    def __init__(self) -> None:
        super().__init__()
        self.moe, self.shared, self.head = Mixture("index_add"), nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        out = self.shared(x)
        _, w, i = self.moe.weights(x)
        for e, expert in enumerate(self.moe.experts):
            token, slot = torch.where(i == e)
            if len(token):
                out[token] += w[token, slot, None] * expert(x[token])
        return self.head(out)


class Beside(Onto):
    """A shared expert whose output joins that of the routed ones, and a bias."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.moe.returned(x).mul(self.moe.weights(x)[0].unsqueeze(-1)).sum(1) + self.shared(x) + 1.0)


class Unnamed(nn.Module):
    """A router whose weights no chain of gates tells: sums of masked probabilities, divided by a clamped sum."""

    def __init__(self) -> None:
        super().__init__()
        self.moe, self.head = Mixture("stack, sum"), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        p = self.moe.router(x).softmax(-1)
        best = nn.functional.one_hot(p.argmax(-1), EXPERTS)
        first = (p * best).sum(-1)
        weights = (first / first.clamp(min=1e-3)).unsqueeze(-1) * best * 0.5 + p * (1 - best)
        made = torch.stack([expert(x) for expert in self.moe.experts], 1)
        return self.head((made * weights.unsqueeze(-1)).sum(1))


class Two(nn.Module):
    """A network of two layers, with a norm that is called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.fc0, self.fc1, self.norm = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.fc1(self.norm(self.fc0(x))))


class Apart(nn.Module):
    """Experts that are attributes without numbers; what is in them has some."""

    def __init__(self) -> None:
        super().__init__()
        self.router, self.head = nn.Linear(WIDTH, 2), nn.Linear(WIDTH, 3)
        self.left, self.right = Two(), nn.Sequential(nn.Linear(WIDTH, 4), nn.Linear(4, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(0, 1)
        w, i = self.router(x).softmax(-1).topk(1)
        out = torch.zeros_like(x)
        for number, expert in enumerate((self.left, self.right)):
            mine = i[:, 0] == number
            if mine.any():
                out[mine] += w[mine] * expert(x[mine])
        return self.head(out)


def test_both_calls_of_one_mixture_are_layers_of_their_own() -> None:
    found = sites(DLBacktrace(Twice().eval(), (torch.randn(4, WIDTH),)))
    assert [site.name for site in found] == ["moe.experts", "moe.experts@1"]
    assert found[0].entry is not found[1].entry


def test_what_experts_are_added_onto_is_not_theirs() -> None:
    torch.manual_seed(0)
    net, x = Onto().double().eval(), torch.randn(5, WIDTH).double()
    found = DLBacktrace(net, (x,)).explain(x, mode="epsilon", eps=1e-12, target=0, keep="all")
    ((name, layer),) = found.relevance.experts.items()
    tokens = net.moe.weights(x)[0].unsqueeze(-1) * net.moe.returned(x)
    out = net.shared(x) + tokens.sum(1)
    r = net.head.weight[0] * out / (net.head(out)[:, :1]) * 100
    assert name == "moe.experts"
    torch.testing.assert_close(
        layer.by_token[:, 0], (r.unsqueeze(1) * tokens / out.unsqueeze(1)).sum(-1), atol=1e-6, rtol=1e-6
    )
    onto = sum(units for account, units in layer.accounts.items() if account.startswith("node:"))
    assert onto == pytest.approx(float((r * net.shared(x) / out).sum().detach()), rel=1e-6)


def test_a_shared_expert_is_none_of_them() -> None:
    net, x = Beside().double().eval(), torch.randn(5, WIDTH).double()
    dlb = DLBacktrace(net, (x,))
    (site,) = sites(dlb)
    assert site.entry.name.startswith("sum")
    ((_, layer),) = dlb.explain(x, target=0).relevance.experts.items()
    assert not any(account.startswith("node:") for account in layer.accounts)


def test_a_routers_weights_are_gates_whatever_made_them() -> None:
    dlb = DLBacktrace(Unnamed().double().eval(), (torch.randn(4, WIDTH).double(),))
    (site,) = sites(dlb)
    (rows,) = site.rows
    (weighing,) = rows.node.users
    assert not facts(rows.weight).gate
    assert facts(weighing).routers == facts(weighing).gates == frozenset({"other"})
    x = torch.randn(3, WIDTH).double()
    assert "router" not in dlb.explain(x, target=0).relevance.experts[site.name].accounts
    assert Sites.gates == ("router",)


class Pooled(nn.Module):
    """Attention over tokens: the last of numbered layers weighed by a softmax over T; `k`: of the best tokens only."""

    def __init__(self, k: int | None = None) -> None:
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.score, self.head, self.k = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 3), k

    def forward(self, x: Tensor) -> Tensor:
        score = self.score(x).squeeze(-1)
        for layer in self.layers:
            x = layer(x)
        if self.k is not None:
            score, best = score.topk(self.k)
            x = x.gather(1, best.unsqueeze(-1).expand(-1, -1, WIDTH))
        return self.head((score.softmax(-1).unsqueeze(1) @ x).squeeze(1))


class Gated(nn.Module):
    """Numbered layers with gates of their own: GLU, a gate by channel, a highway's gate."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2, self.fc3 = (nn.Linear(WIDTH, WIDTH) for _ in range(3))
        self.gate, self.head = nn.Linear(WIDTH, 1), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fc1(x).sigmoid() * self.fc2(x)
        x = x + self.fc3(x) * x.mean(1, keepdim=True).softmax(-1)
        g = self.gate(x).sigmoid()
        return self.head((g * self.fc1(x) + (1 - g) * self.fc3(x)).mean(1))


class Mixed(nn.Module):
    """All layers' outputs weighed by learned weights, one after the other in depth: layers are no experts."""

    def __init__(self) -> None:
        super().__init__()
        self.layers, self.head = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3)), nn.Linear(WIDTH, 3)
        self.scores = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        weights, made = self.scores(x).softmax(-1), []
        for layer in self.layers:
            x = layer(x)
            made.append(x)
        return self.head(sum(weights[..., n : n + 1] * each for n, each in enumerate(made)).mean(1))


class Attention(nn.Module):
    """Written-out attention whose projections are numbered, with one query."""

    def __init__(self) -> None:
        super().__init__()
        self.projections, self.head = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(3)), nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (projection(x) for projection in self.projections)
        return self.head(((q[:, :1] @ k.mT).softmax(-1) @ v).squeeze(1))


class TwoSources(nn.Module):
    """One query over the tokens of two numbered encoders: as many weights as tokens, not as encoders."""

    def __init__(self) -> None:
        super().__init__()
        self.encoders, self.score = nn.ModuleList(nn.Linear(WIDTH, WIDTH) for _ in range(2)), nn.Linear(WIDTH, 10)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: Tensor) -> Tensor:
        tokens = torch.cat([encoder(x) for encoder in self.encoders], 1)
        return self.head((self.score(x.mean(1)).softmax(-1).unsqueeze(1) @ tokens).squeeze(1))


@pytest.mark.parametrize("tracer", ["export", "tape"])
@pytest.mark.parametrize(
    "net",
    [Pooled(), Pooled(1), Pooled(2), Gated(), Mixed(), Attention(), TwoSources()],
    ids=lambda net: type(net).__name__,
)
def test_what_only_looks_like_experts_is_none(net: nn.Module, tracer: str) -> None:
    dlb = DLBacktrace(
        net.eval(), (torch.randn(2, 5, WIDTH),), tracer=tracer, dynamic_shapes=None if tracer == "export" else "auto"
    )
    assert sites(dlb) == []
    assert dlb.explain(torch.randn(2, 5, WIDTH), target=0).relevance.experts == {}


def test_numbers_inside_of_modules_are_no_experts() -> None:
    torch.manual_seed(0)
    assert sites(DLBacktrace(Apart().eval(), (torch.randn(2, 5, WIDTH),), tracer="tape")) == []


def test_one_expert_that_every_token_chose_is_enough() -> None:
    net = Net("index_add", k=1).eval()
    with torch.no_grad():
        net.moe.router.bias[2] += 100
    (site,) = sites(DLBacktrace(net, (torch.randn(2, 5, WIDTH),)))
    assert site.experts == EXPERTS
    assert len(site.rows) == 1
