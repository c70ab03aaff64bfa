"""Pairs of places that made two embeddings similar: by hand on linear models, and in sum on a text encoder."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import SLIM, VOCABULARY, randomised

from dlb_core import ConservationError, DLBacktrace, pairs, similarity


class Dense(nn.Module):
    """[B, 4] -> an embedding [B, 3], linear."""

    def __init__(self, *, bias: bool = False) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3, bias=bias).double()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Encoder(nn.Module):
    """Token ids -> the mean of a tiny BERT's last states, [B, D]."""

    def __init__(self) -> None:
        super().__init__()
        from transformers import BertConfig, BertModel

        self.bert = BertModel(BertConfig(vocab_size=VOCABULARY, max_position_embeddings=40, **SLIM))

    def forward(self, input_ids: Tensor) -> Tensor:
        return self.bert(input_ids).last_hidden_state.mean(1)


def dense(*, bias: bool = False) -> tuple[Dense, DLBacktrace, Tensor, Tensor]:
    torch.manual_seed(0)
    model = Dense(bias=bias).eval()
    a, b = torch.randn(2, 1, 4, dtype=torch.float64)
    return model, DLBacktrace(model, a), a, b


@pytest.mark.parametrize("kind", ["dot", "cosine"])
def test_of_a_linear_model_the_pairs_are_its_bilinear_form(kind: str) -> None:
    """a' W' W b: the pair (i, j) made a_i (W' W)_ij b_j."""
    model, dlb, a, b = dense()
    found = pairs(dlb, a, b, kind=kind, mode="epsilon", eps=1e-14)
    w = model.layer.weight.detach()
    expected = a.T * (w.T @ w) * b
    ea, eb = model(a)[0].detach(), model(b)[0].detach()
    scale = 1 / float(ea.norm() * eb.norm()) if kind == "cosine" else 1
    torch.testing.assert_close(found.matrix, expected * scale)
    assert found.similarity == pytest.approx(float(ea @ eb) * scale)
    assert found.similarity == pytest.approx(float(nn.functional.cosine_similarity(ea, eb, 0))) or kind == "dot"


def test_biases_take_their_pairs_by_name() -> None:
    model, dlb, a, b = dense(bias=True)
    found = pairs(dlb, a, b, kind="dot", mode="epsilon", eps=1e-14)
    w, bias = model.layer.weight.detach(), model.layer.bias.detach()
    torch.testing.assert_close(found.matrix, a.T * (w.T @ w) * b)
    name = "bias:layer.bias"
    assert found.accounts[name, "inputs"] == pytest.approx(float(bias @ w @ b[0]))
    assert found.accounts["inputs", name] == pytest.approx(float(bias @ w @ a[0]))
    assert found.accounts[name, name] == pytest.approx(float(bias @ bias))
    assert abs(found.residual) < 1e-12
    assert "bias:layer.bias" in str(found)


@pytest.fixture(scope="module")
def encoder() -> DLBacktrace:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = randomised(Encoder()).double().eval()
        return DLBacktrace(model, torch.randint(1, VOCABULARY, (1, 7)))


@pytest.mark.parametrize("mode", ["default", "epsilon"])
def test_two_sentences_of_different_length(encoder: DLBacktrace, mode: str) -> None:
    a, b = torch.arange(1, 8)[None], torch.arange(5, 10)[None]
    found = pairs(encoder, a, b, mode=mode)
    outputs = [encoder.explain(ids, mode=mode).output[0] for ids in (a, b)]
    assert found.matrix.shape == (7, 5)
    assert found.similarity == pytest.approx(float(nn.functional.cosine_similarity(*outputs, 0)))
    accounts = sum(found.accounts.values())
    assert float(found.matrix.sum()) + accounts == pytest.approx(found.similarity, abs=1e-9)
    assert abs(accounts) < 1e-9 or mode == "epsilon"  # the default mode brings all of it to the tokens


def test_the_pairs_are_those_of_seeds_one_by_one(encoder: DLBacktrace) -> None:
    a, b = torch.arange(1, 5)[None], torch.arange(5, 10)[None]

    def by_hand(ids: Tensor) -> Tensor:
        width = SLIM["hidden_size"]
        return torch.stack([encoder.explain(ids, target=k, seed="logit").inputs["input_ids"][0] for k in range(width)])

    torch.testing.assert_close(pairs(encoder, a, b, kind="dot").matrix, by_hand(a).T @ by_hand(b))


def test_exchanging_the_inputs_transposes_the_matrix(encoder: DLBacktrace) -> None:
    a, b = torch.arange(1, 5)[None], torch.arange(5, 10)[None]
    torch.testing.assert_close(pairs(encoder, a, b).matrix, pairs(encoder, b, a).matrix.T)


def test_an_input_beside_the_chosen_one_is_an_account() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return x * 2 + y

    a, b = torch.rand(2, 2, 1, 3, dtype=torch.float64)
    dlb = DLBacktrace(Two().eval(), (a[0], a[1]))
    found = pairs(dlb, (a[0], a[1]), {"x": b[0], "y": b[1]}, kind="dot", mode="epsilon", input="x", eps=1e-14)
    torch.testing.assert_close(found.matrix, torch.diag(4 * a[0, 0] * b[0, 0]))
    assert found.accounts["input:y", "inputs"] == pytest.approx(float((a[1] * 2 * b[0]).sum()))
    with pytest.raises(ValueError, match="the explained inputs are 'x', 'y'"):
        pairs(dlb, (a[0], a[1]), (b[0], b[1]), input="z")


def test_what_does_not_add_up_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Lossy(similarity._Side):
        def __init__(self, *asked: Any) -> None:
            super().__init__(*asked)
            self.places = self.places * 0.999

    _, dlb, a, b = dense()
    assert abs(pairs(dlb, a, b).residual) < 1e-12
    monkeypatch.setattr(similarity, "_Side", Lossy)
    with pytest.raises(ConservationError, match="do not add up to the similarity"):
        pairs(dlb, a, b)


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"kind": "euclid"}, "'cosine', 'dot'"),
        ({"target": 1}, "not both"),
        ({"mode": "magic"}, "magic"),
    ],
)
def test_what_cannot_be_asked_is_refused(question: dict[str, Any], says: str) -> None:
    _, dlb, a, b = dense()
    with pytest.raises(ValueError, match=says):
        pairs(dlb, a, b, **question)


def test_what_is_no_embedding_is_refused() -> None:
    _, dlb, a, b = dense()
    with pytest.raises(ValueError, match=r"\[2, 3\] is no embedding \[1, D\]"):
        pairs(dlb, torch.cat([a, b]), b)
    with pytest.raises(ValueError, match="no cosine"):
        pairs(dlb, torch.zeros(1, 4, dtype=torch.float64), b)
