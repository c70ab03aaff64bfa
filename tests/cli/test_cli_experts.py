"""`dlb explain` of a mixture of experts: the strongest experts of every layer, after the ledger."""

import numpy as np
import pytest

from dlb_core import Explanation

MIXTURES = """
import torch
from torch import nn


class Mixture(nn.Module):
    def __init__(self):
        super().__init__()
        self.router = nn.Linear(6, 4)
        self.experts = nn.ModuleList(nn.Linear(6, 6) for _ in range(4))

    def forward(self, x):
        probability = self.router(x).softmax(-1)
        best, chosen = probability.topk(2)
        weight = torch.zeros_like(probability).scatter(-1, chosen, best)
        return (torch.stack([expert(x) for expert in self.experts], -2) * weight.unsqueeze(-1)).sum(-2)


class Net(nn.Module):
    def __init__(self, depth):
        super().__init__()
        self.layers = nn.ModuleList(Mixture() for _ in range(depth))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


def two():
    torch.manual_seed(0)
    return Net(2).eval()


def many():
    torch.manual_seed(0)
    return Net(14).eval()
"""


@pytest.fixture(autouse=True)
def mixtures(place):
    (place.path / "mixtures.py").write_text(MIXTURES)


def experts(page: str) -> list[list[str]]:
    """The cells of the table of experts; its heading must come after the ledger."""
    assert page.index("\nledger") < page.index("\nexperts") < page.index("\nstrongest inputs")
    lines = page[page.index("\nexperts") + 1 :].split("\n\n")[0].splitlines()
    return [line.split() for line in lines[3:]]


def test_the_strongest_experts_of_every_layer(dlb, place):
    asked = ("explain", "mixtures.py:two", "--input", "row.npy", "--mode", "epsilon", "--target", "1")
    answer = dlb(*asked)
    assert answer.code == 0, answer.err
    rows = experts(answer.out)
    saved = Explanation.load("dlb-explanation").experts
    assert [row[0] for row in rows] == list(saved) == ["layers.0.experts", "layers.1.experts"]
    for (_, count, entered, *best), layer in zip(rows, saved.values(), strict=True):
        assert int(count) == 4
        assert float(entered) == pytest.approx(layer.entered, rel=1e-3)
        shares = (100 * layer.relevance / layer.entered).tolist()
        shown = [(int(number.rstrip(":")), float(share)) for number, share in zip(best[::3], best[1::3], strict=True)]
        order = sorted(range(4), key=lambda e: -abs(shares[e]))
        assert [number for number, _ in shown] == order[:3]
        assert [share for _, share in shown] == pytest.approx([shares[e] for e in order[:3]], abs=0.006)
    told = dlb(*asked, "--json").json["experts"]
    for name, layer in saved.items():
        assert told[name]["relevance"] == pytest.approx(layer.relevance.tolist())
        assert told[name]["load"] == layer.load.tolist()
        assert sum(told[name]["relevance"]) + sum(told[name]["accounts"].values()) == pytest.approx(
            told[name]["entered"], rel=1e-4
        )


def test_of_many_layers_the_first_are_on_the_page_and_all_in_json(dlb, place):
    answer = dlb("explain", "mixtures.py:many", "--input", "row.npy")
    assert answer.code == 0, answer.err
    assert len(experts(answer.out)) == 12
    assert "first 12 of 14 layers" in answer.out
    assert len(dlb("explain", "mixtures.py:many", "--input", "row.npy", "--json").json["experts"]) == 14


def test_a_batch_and_two_maps(dlb, place):
    np.save("rows.npy", np.random.default_rng(0).normal(size=(3, 6)).astype(np.float32))
    answer = dlb("explain", "mixtures.py:two", "--input", "rows.npy", "--mode", "contrastive")
    assert answer.code == 0, answer.err
    assert len(experts(answer.out[answer.out.index("ledger against it") - 1 :])) == 2


def test_a_model_without_experts_has_no_such_table(dlb, place):
    answer = dlb("explain", "model.py:load", "--input", "grey.png")
    assert "\nexperts" not in answer.out
    assert dlb("explain", "model.py:load", "--input", "grey.png", "--json").json["experts"] == {}
