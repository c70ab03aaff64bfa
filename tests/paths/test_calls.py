"""Paths of batches and of several inputs, from any baseline, and beside the other arguments of a call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from dlb_core import integrated, smooth

from .models import (
    MODELS,
    chosen,
    numbers,
    reader,
    traced,
    two,
)


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
