"""Mixtures in plain PyTorch, the same weights in many forms: what each expert carried is the same in all of them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_core.experts import ExpertLayer

WIDTH, INNER, EXPERTS = 5, 4, 3


class Called(nn.Module):
    """An expert that is a module of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(WIDTH, INNER), nn.Linear(INNER, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(torch.nn.functional.silu(self.up(x)))


class Mixture(nn.Module):
    """Three experts, the best two of them for each row; how they are held and added up is what differs."""

    def __init__(self, held: str, added: str) -> None:
        super().__init__()
        self.held, self.added = held, added
        self.router = nn.Linear(WIDTH, EXPERTS)
        self.ups = nn.ModuleList(nn.Linear(WIDTH, INNER) for _ in range(EXPERTS))
        self.downs = nn.ModuleList(nn.Linear(INNER, WIDTH) for _ in range(EXPERTS))
        torch.manual_seed(4)
        for p in self.parameters():
            nn.init.normal_(p)
        pairs = [*zip(self.ups, self.downs, strict=True)]
        if held == "a sequence":
            self.experts = nn.ModuleList(nn.Sequential(up, nn.SiLU(), down) for up, down in pairs)
        elif held == "a module":
            self.experts = nn.ModuleList(Called() for _ in pairs)
            for expert, (up, down) in zip(self.experts, pairs, strict=True):
                expert.up, expert.down = up, down
        elif held == "a dict":
            self.experts = nn.ModuleList(nn.ModuleDict({"up": up, "down": down}) for up, down in pairs)
        elif held == "a list":
            self.experts = nn.ModuleList(nn.ModuleList(pair) for pair in pairs)
        if held != "two lists":
            del self.ups, self.downs

    def expert(self, number: int, x: Tensor) -> Tensor:
        if self.held in ("a sequence", "a module"):
            return self.experts[number](x)
        parts = self.experts[number] if self.held != "two lists" else (self.ups[number], self.downs[number])
        up, down = (parts["up"], parts["down"]) if self.held == "a dict" else parts
        return down(torch.nn.functional.silu(up(x)))

    def forward(self, x: Tensor) -> Tensor:
        probability = self.router(x).softmax(-1)
        best, chosen = probability.topk(2)
        best = best / best.sum(-1, keepdim=True)
        weight = torch.zeros_like(probability).scatter(-1, chosen, best)
        if self.added == "stacked":
            made = torch.stack([self.expert(i, x) for i in range(EXPERTS)], -2)
            return (made * weight.unsqueeze(-1)).sum(-2)
        if self.added == "one by one":
            total = weight[..., :1] * self.expert(0, x)
            for i in range(1, EXPERTS):
                total = total + weight[..., i : i + 1] * self.expert(i, x)
            return total
        rows = torch.zeros_like(x)
        for i in range(EXPERTS):
            row, nth = torch.where(chosen == i)
            if len(row) == 0:
                continue
            made = self.expert(i, x[row]) * best[row, nth].unsqueeze(-1)
            if self.added == "into places":
                rows[row] += made
            else:
                rows.index_add_(0, row, made)
        return rows


HELD = ("a sequence", "a module", "a dict", "a list", "two lists")
ADDED = ("stacked", "one by one", "into places", "by index")


def explained(model: nn.Module) -> dict[str, ExpertLayer]:
    x = torch.randn(4, WIDTH, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    dlb = DLBacktrace(model.double().eval(), x)
    return dlb.explain(x, mode="epsilon", target=1, eps=1e-12).experts


@pytest.fixture(scope="module")
def reference() -> ExpertLayer:
    (layer,) = explained(Mixture("a sequence", "stacked")).values()
    assert layer.load.sum() == 8
    return layer


@pytest.mark.parametrize("added", ADDED)
@pytest.mark.parametrize("held", HELD)
def test_every_form_says_the_same(held: str, added: str, reference: ExpertLayer) -> None:
    found = explained(Mixture(held, added))
    assert list(found) == ["downs" if held == "two lists" else "experts"]
    (layer,) = found.values()
    torch.testing.assert_close(layer.by_token, reference.by_token, rtol=1e-8, atol=1e-8)
    torch.testing.assert_close(layer.weight, reference.weight)
    assert torch.equal(layer.selected, reference.selected)
    assert layer.entered == pytest.approx(reference.entered)


class Layers(nn.Module):
    """Layers one after the other, and the sum of what all of them made, with weights that depend on the input."""

    def __init__(self, make: Callable[[], nn.Module], run: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.router, self.run = nn.Linear(WIDTH, EXPERTS), run
        self.layers = nn.ModuleList(make() for _ in range(EXPERTS))

    def forward(self, x: Tensor) -> Tensor:
        weight, made = self.router(x).softmax(-1), []
        for layer in self.layers:
            x = self.run(layer, x)
            made.append(x)
        return sum(weight[:, i : i + 1] * each for i, each in enumerate(made))


@pytest.mark.parametrize("form", ["called", "a dict"])
def test_layers_one_after_the_other_are_no_experts(form: str) -> None:
    if form == "called":
        model = Layers(lambda: nn.Linear(WIDTH, WIDTH), lambda layer, x: layer(x))
    else:
        model = Layers(lambda: nn.ModuleDict({"map": nn.Linear(WIDTH, WIDTH)}), lambda layer, x: layer["map"](x))
    assert explained(model) == {}
