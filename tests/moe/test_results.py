"""What each expert contributed: by token against arithmetic by hand, the books around it, and conditions on experts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Explanation, integrated
from dlb_core.kernel.packs import registry

from .mixture import Net, by_hand

EPS = 1e-6
FIRST, SECOND = "first.experts", "second.experts"
MODES = sorted(registry().modes)


def net(**sizes: int) -> Net:
    torch.manual_seed(3)
    return Net(**sizes).double().eval()


def tokens(samples: int = 2, steps: int = 3) -> Tensor:
    return torch.randn(samples, steps, 5, generator=torch.Generator().manual_seed(5), dtype=torch.float64)


@pytest.fixture(scope="module")
def model() -> Net:
    return net()


@pytest.fixture(scope="module")
def dlb(model: Net) -> DLBacktrace:
    return DLBacktrace(model, tokens())


def stab(y: Tensor) -> Tensor:
    return y + torch.where(y < 0, -EPS, EPS)


def options(mode: str) -> dict[str, object]:
    return dict(registry().mode(mode).example)


def at_second(model: Net, x: Tensor, target: int) -> tuple[Tensor, Tensor]:
    """The input of the second mixture and, in epsilon, the relevance of what it returns; flat."""
    inner = x + model.first(x)
    out = model.second(inner)
    mean = out.mean(1)
    logits = mean @ model.head.weight.T
    share = 100 / stab(logits[:, target])
    r = mean * model.head.weight[target] * share[:, None]
    steps = out.shape[1]
    spread = out / steps / stab(mean)[:, None] * r[:, None]
    return inner.flatten(0, 1), spread.flatten(0, 1)


def test_units_by_token_and_expert_are_those_of_arithmetic_by_hand(model: Net, dlb: DLBacktrace) -> None:
    x = tokens()
    with torch.no_grad():
        inner, r = at_second(model, x, 1)
        done = by_hand(model.second, inner)
        weighed = done.weight[..., None] * done.returned
        units = (weighed / stab(weighed.sum(1))[:, None] * r[:, None]).sum(-1)
    layer = dlb.explain(x, mode="epsilon", target=1).experts[SECOND]
    torch.testing.assert_close(layer.by_token, units.reshape(2, 3, 4))
    torch.testing.assert_close(layer.by_sample, units.reshape(2, 3, 4).sum(1))
    torch.testing.assert_close(layer.relevance, units.sum(0))


def test_how_the_router_chose(model: Net, dlb: DLBacktrace) -> None:
    x = tokens()
    with torch.no_grad():
        done = by_hand(model.first, x.flatten(0, 1))
    layer = dlb.explain(x, mode="epsilon", target=1).experts[FIRST]
    torch.testing.assert_close(layer.probability, done.probability.reshape(2, 3, 4))
    torch.testing.assert_close(layer.weight, done.weight.reshape(2, 3, 4))
    assert torch.equal(layer.selected, done.weight.reshape(2, 3, 4) > 0)
    assert layer.load.tolist() == (done.weight > 0).sum(0).tolist()


@pytest.mark.parametrize("router", [None, "gate", "share"])
@pytest.mark.parametrize("mode", MODES)
def test_what_entered_reached_the_experts_or_an_account(mode: str, router: str | None, dlb: DLBacktrace) -> None:
    asked = options(mode) if router is None else {**options(mode), "router": router}
    found = dlb.explain(tokens(), mode=mode, target=[1, 2], **asked)
    maps = [found.relevance] if found.relevance.total is None else [found.positive, found.negative, found.relevance]
    for each in maps:
        assert list(each.experts) == [FIRST, SECOND]
        for layer in each.experts.values():
            reached = float(layer.relevance.sum()) + sum(layer.accounts.values())
            assert reached == pytest.approx(layer.entered, rel=1e-9, abs=1e-9 * each.ledger.scale)
            goes = "router" in layer.accounts and layer.accounts["router"] != 0
            bilinear = router == "share" or (router is None and mode == "attnlrp")
            assert goes == bilinear or mode in ("faithful",)
            assert not [name for name in layer.accounts if name.startswith("node:")]
            assert bool((layer.by_token[~layer.selected] == 0).all())


def test_the_two_maps_of_contrastive_add_up(dlb: DLBacktrace) -> None:
    found = dlb.explain(tokens(), mode="contrastive", target=1)
    whole = dlb.explain(tokens(), mode="contrastive", target=1).relevance.total
    assert whole is not None
    for name, layer in found.experts.items():
        for_, against = found.positive.experts[name].by_token, found.negative.experts[name].by_token
        torch.testing.assert_close(for_ - against, layer.by_token)
        torch.testing.assert_close(for_ + against, whole.experts[name].by_token)
        assert bool((for_ >= 0).all())
        assert bool((against >= 0).all())


def test_several_targets_and_samples_alone(dlb: DLBacktrace) -> None:
    x = tokens()
    several = dlb.explain(x, mode="epsilon", targets=[0, 2]).experts[SECOND]
    assert several.by_token.shape == (2, 2, 3, 4)
    for i, target in enumerate((0, 2)):
        one = dlb.explain(x, mode="epsilon", target=target).experts[SECOND]
        torch.testing.assert_close(several.by_token[i], one.by_token)
        assert several.entered[i] == pytest.approx(one.entered)
        alone = dlb.explain(x[1:], mode="epsilon", target=target).experts[SECOND]
        torch.testing.assert_close(one.by_token[1:], alone.by_token)
    with pytest.raises(ValueError, match="one target"):
        several.table()


def test_without_a_sequence_there_is_one_step_to_a_sample(model: Net) -> None:
    x = tokens()[:, 0]
    layer = DLBacktrace(model, x).explain(x, mode="epsilon", target=0).experts[FIRST]
    assert layer.by_token.shape == (2, 1, 4)


def test_the_table_says_units_and_where_the_rest_went(dlb: DLBacktrace) -> None:
    layer = dlb.explain(tokens(), mode="epsilon", target=1).experts[SECOND]
    table = layer.table()
    assert [record["expert"] for record in table.records()] == ["0", "1", "2", "3", "stabiliser", "= entered"]
    assert sum(record["units"] for record in table.records()[:-1]) == pytest.approx(layer.entered)
    assert "second.experts" in str(table)


@pytest.mark.parametrize("mode", ["epsilon", "contrastive"])
@pytest.mark.parametrize("targets", [None, [0, 2]])
def test_saving_keeps_the_experts(mode: str, targets: list[int] | None, dlb: DLBacktrace, tmp_path: Path) -> None:
    found = dlb.explain(tokens(), mode=mode, target=None if targets else 1, targets=targets)
    found.save(tmp_path / "out")
    again = Explanation.load(tmp_path / "out")
    assert list(again.experts) == list(found.experts)
    for name, layer in found.experts.items():
        other = again.experts[name]
        assert torch.equal(other.by_token, layer.by_token)
        assert torch.equal(other.probability, layer.probability)
        assert torch.equal(other.weight, layer.weight)
        assert torch.equal(other.selected, layer.selected)
        assert other.entered == layer.entered
        assert other.accounts == layer.accounts
    if mode == "contrastive":
        torch.testing.assert_close(again.positive.experts[FIRST].by_token, found.positive.experts[FIRST].by_token)


def test_all_layer_expert_relevance_is_of_the_last_evaluation(model: Net) -> None:
    dlb = DLBacktrace(model, tokens())
    with pytest.raises(RuntimeError, match="evaluation"):
        _ = dlb.all_layer_expert_relevance
    dlb.predict(tokens())
    relevance = dlb.evaluation("epsilon", target=1)
    found = dlb.all_layer_expert_relevance
    assert {name: units.shape for name, units in found.items()} == {FIRST: (4,), SECOND: (4,)}
    assert torch.equal(found[FIRST], relevance.experts[FIRST].relevance)
    dlb.evaluation("epsilon", target=2)
    assert not torch.equal(dlb.all_layer_expert_relevance[FIRST], found[FIRST])


def test_a_model_without_experts_has_none() -> None:
    dlb = DLBacktrace(nn.Linear(3, 2).eval(), torch.randn(1, 3))
    assert dlb.explain(torch.randn(1, 3)).experts == {}
    with pytest.raises(ValueError, match="router"):
        dlb.explain(torch.randn(1, 3), mode="epsilon", router="share")


def test_relevance_through_chosen_experts(model: Net, dlb: DLBacktrace) -> None:
    """What goes through experts 0 and 2 alone: the input's relevance with the others' part of it left out."""
    x = tokens()
    whole = dlb.explain(x, mode="epsilon", target=1, through={SECOND: True})
    parts = [dlb.explain(x, mode="epsilon", target=1, through={SECOND: [e]}) for e in range(4)]
    torch.testing.assert_close(sum(part.inputs["x"] for part in parts), whole.inputs["x"])
    both = dlb.explain(x, mode="epsilon", target=1, through={SECOND: [0, -2]})
    torch.testing.assert_close(both.inputs["x"], parts[0].inputs["x"] + parts[2].inputs["x"])
    free = dlb.explain(x, mode="epsilon", target=1).experts[SECOND]
    layer = both.experts[SECOND]
    torch.testing.assert_close(layer.by_token[..., [0, 2]], free.by_token[..., [0, 2]])
    assert bool((layer.by_token[..., [1, 3]] == 0).all())
    dropped = float(free.by_token[..., [1, 3]].sum())
    assert layer.accounts[f"through:{SECOND}"] == pytest.approx(dropped)
    assert both.ledger.accounts[f"through:{SECOND}"] == pytest.approx(dropped)


def test_of_two_layers_relevance_passes_both(dlb: DLBacktrace) -> None:
    found = dlb.explain(tokens(), mode="epsilon", target=1, through={FIRST: 1, SECOND: [0, 1, 2, 3]})
    assert bool((found.experts[FIRST].by_token[..., [0, 2, 3]] == 0).all())
    assert found.ledger.accounts[f"through:{FIRST}"] != 0


def test_bad_conditions_are_refused(dlb: DLBacktrace) -> None:
    x = tokens()
    with pytest.raises(ValueError, match=r"expert 4: choose from 0 \.\. 3"):
        dlb.explain(x, through={SECOND: [4]})
    with pytest.raises(ValueError, match="no expert"):
        dlb.explain(x, through={SECOND: []})
    with pytest.raises(ValueError, match="may choose others"):
        dlb.explain(x, mode=integrated("epsilon", steps=1), through={SECOND: [1]})
    with pytest.raises(ValueError, match="router='open': choose one of 'gate', 'share'"):
        dlb.explain(x, router="open")
    with pytest.raises(ValueError, match="router"):
        dlb.explain(x, mode=integrated("epsilon", router="share"))


def test_modes_at_several_points_tell_no_experts(dlb: DLBacktrace) -> None:
    found = dlb.explain(tokens(), mode=integrated("epsilon", baseline=0.999 * tokens(), steps=1), target=1)
    with pytest.raises(ValueError, match="several points"):
        _ = found.experts


def test_without_books_of_nodes_units_are_there_and_what_entered_is_not(model: Net) -> None:
    layer = DLBacktrace(model, tokens(), check="ends").explain(tokens(), mode="epsilon", target=1).experts[FIRST]
    assert layer.relevance.shape == (4,)
    with pytest.raises(ValueError, match="check="):
        _ = layer.entered


@pytest.mark.parametrize("chunk", [None, 1])
def test_a_path_on_which_other_experts_are_chosen_is_told_to_the_last_unit(chunk: int | None, model: Net) -> None:
    """What the switch itself did is held: it is no change of any input."""
    x, base = tokens(), -tokens()
    dlb = DLBacktrace(model, x)
    with torch.no_grad():
        here, there = (by_hand(model.first, point.flatten(0, 1)).weight > 0 for point in (x, base))
        assert not torch.equal(here, there)
        gained = (model(x) - model(base))[:, 1].sum()
    found = dlb.explain(x, mode=integrated("epsilon", baseline=base, steps=4, chunk=chunk), target=1)
    ledger = found.ledger
    assert ledger.seed == pytest.approx(float(gained))
    assert abs(ledger.accounts["held"]) > 1e-3 * abs(ledger.seed)
    assert float(found.inputs["x"].sum()) + sum(ledger.accounts.values()) == pytest.approx(ledger.seed)
