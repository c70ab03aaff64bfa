"""Two explanations compared: rank correlation, overlap of the top features, where they differ."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.stats import spearmanr
from torch import Tensor, nn
from zoo import CASES, MLP, traced

from dlb_core import DLBacktrace, Explanation
from dlb_core.kernel.ledger import Ledger
from dlb_core.relevance import Relevance


def explanation(*, mode: str = "default", several: bool = False, **inputs: Any) -> Explanation:
    """One that says these numbers."""
    tensors = {name: torch.as_tensor(values, dtype=torch.float64) for name, values in inputs.items()}
    total = float(sum(t.sum() for t in tensors.values()))
    ledger = Ledger(total, {}, {}, total, total, total, 0.0)
    relevance = Relevance(tensors, (ledger,), inputs=tuple(tensors), target=1, mode=mode, several=several)
    return Explanation(relevance, torch.zeros(1))


def test_by_hand() -> None:
    one = explanation(x=[[1.0, 2, 3, 4, 0], [1, 1, 1, 1, 1]], mode="epsilon")
    other = explanation(x=[[2.0, 1, -6, 1, 0], [1, 2, 3, 4, 5]], mode="default")
    found = one.compare(other, top=2, differences=2)
    x = found.inputs["x"]
    assert float(x.rank_correlation[0]) == pytest.approx(spearmanr([1, 2, 3, 4, 0], [2, 1, -6, 1, 0]).statistic)
    assert math.isnan(x.rank_correlation[1])  # of equal numbers there is no order
    assert x.overlap.tolist() == [0.5, 0.0]  # {3, 2} beside {2, 0}; of equals the first ones: {0, 1} beside {4, 3}
    assert [c.index for c in x.changes] == [(0, 2), (0, 3)]
    assert x.changes[0].before == pytest.approx(0.3)
    assert x.changes[0].after == pytest.approx(-0.6)
    assert x.changes[0].change == pytest.approx(-0.9)


def test_the_text_names_both_and_where_they_differ() -> None:
    text = str(explanation(x=[[1.0, 2, 3]], mode="epsilon").compare(explanation(x=[[3.0, 2, 1]])))
    assert text.startswith("epsilon beside default")
    assert "[0, 0]" in text
    assert "rank correlation" in text
    assert "-1" in text


def test_nothing_differs_from_itself_in_other_units() -> None:
    one, other = explanation(x=[[1.0, -2, 3], [5, 0, 4]]), explanation(x=[[2.0, -4, 6], [50, 0, 40]])
    x = one.compare(other).inputs["x"]
    assert x.rank_correlation.tolist() == pytest.approx([1, 1])
    assert x.overlap.tolist() == [1, 1]
    assert max((abs(c.change) for c in x.changes), default=0) < 1e-12
    assert x.top == 1


def test_ranks_agree_with_scipy_on_ties() -> None:
    torch.manual_seed(0)
    a, b = (torch.randint(-3, 4, (6, 4, 5)).double() for _ in range(2))
    found = explanation(x=a).compare(explanation(x=b)).inputs["x"].rank_correlation
    expected = [spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_modes_models_and_saved_explanations_compare(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6)

    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(6, 4)

        def forward(self, features: Tensor) -> Tensor:
            return self.fc(features)

    first, second = (DLBacktrace(model.eval(), x) for model in (MLP(), Named()))
    one = first.explain(x, mode="epsilon", target=1)
    one.save(tmp_path / "one")
    loaded = Explanation.load(tmp_path / "one").compare(one)
    assert loaded.inputs["x"].rank_correlation.tolist() == pytest.approx([1, 1, 1])
    assert list(one.compare(first.explain(x)).inputs) == ["x"]
    assert list(one.compare(second.explain(x)).inputs) == ["x"]  # one input each: its name may differ


def test_several_seeds_are_compared_one_by_one() -> None:
    torch.manual_seed(0)
    x = torch.randn(3, 6)
    dlb = DLBacktrace(MLP().eval(), x)
    both = [dlb.explain(x, mode=mode, targets=[0, 2]) for mode in ("default", "epsilon")]
    found = both[0].compare(both[1]).inputs["x"]
    assert found.overlap.shape == (2, 3)
    alone = dlb.explain(x, target=2).compare(dlb.explain(x, mode="epsilon", target=2)).inputs["x"]
    torch.testing.assert_close(found.rank_correlation[1], alone.rank_correlation, rtol=1e-4, atol=1e-4)
    assert all(len(change.index) == 3 for change in found.changes)
    with pytest.raises(ValueError, match="several seeds"):
        both[0].compare(dlb.explain(x, target=0))


def test_all_inputs_of_a_model_are_compared() -> None:
    dlb, call = traced("bert-sdpa"), CASES["bert-sdpa"].example()
    found = dlb.explain(**call).compare(dlb.explain(**call, mode="epsilon"), top=3)
    assert found.inputs["input_ids"].overlap.shape == (2,)
    assert found.table().records()[0]["top"] == 3


def test_what_does_not_match_is_refused() -> None:
    one = explanation(x=[[1.0, 2, 3]])
    with pytest.raises(ValueError, match=r"'x' has shape \[1, 3\] in one explanation and \[1, 2\] in the other"):
        one.compare(explanation(x=[[1.0, 2]]))
    with pytest.raises(ValueError, match=r"the explained inputs are \['x'\] and \['x', 'y'\]"):
        one.compare(explanation(x=[[1.0, 2, 3]], y=[[1.0]]))
    with pytest.raises(ValueError, match=r"top=4: input 'x' has 3 features, choose from 1 .. 3"):
        one.compare(one, top=4)
    with pytest.raises(ValueError, match="must not be negative"):
        one.compare(one, differences=-1)
