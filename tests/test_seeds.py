"""Several seeds in one call: what each would be alone, however many go through a pass together."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from zoo import CASES

from dlb_core import Contrast, DLBacktrace, engine, propagation

MODES = ("default", "epsilon", "contrastive", "gamma", "attnlrp", "z-plus")
TARGETS: list[Any] = [0, [1, 2, 0], Contrast(2), Contrast(0, against=1), slice(0, 2), lambda output: output.argmin(1)]


class Small(nn.Module):
    """A convolution, a residual, pooling with maxima and means, dense layers: [B, 2, 6, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.norm, self.head = nn.BatchNorm2d(4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(self.first(x)).relu()
        h = nn.functional.max_pool2d(h + self.second(h).relu(), 2)
        return self.head(h.mean((2, 3)))


@pytest.fixture(scope="module", params=["convolutions", "bert"])
def case(request: pytest.FixtureRequest) -> tuple[DLBacktrace, dict[str, Tensor]]:
    if request.param == "bert":
        found = CASES["bert-sdpa"]
        model, x = found.model(torch.float64), found.example(3, dtype=torch.float64)
    else:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            model, x = Small().double().eval(), {"x": torch.randn(3, 2, 6, 6, dtype=torch.float64)}
    return DLBacktrace(model, x), x


def assert_one_by_one(dlb: DLBacktrace, x: dict[str, Tensor], mode: str) -> None:
    together = dlb.explain(**x, mode=mode, targets=TARGETS)
    for i, target in enumerate(TARGETS):
        alone = dlb.explain(**x, mode=mode, target=target)
        for name, expected in alone.inputs.items():
            torch.testing.assert_close(together.inputs[name][i], expected, rtol=0, atol=1e-9)
        assert together.ledger[i].accounts == pytest.approx(dict(alone.ledger.accounts), abs=1e-9)
        assert together.ledger[i].seed == pytest.approx(alone.ledger.seed, abs=1e-9)
        assert str(together.target[i]) == str(alone.target)


@pytest.mark.parametrize("mode", MODES)
def test_seeds_together_are_the_seeds_one_by_one(case: tuple[DLBacktrace, dict[str, Tensor]], mode: str) -> None:
    assert_one_by_one(*case, mode)


@pytest.mark.parametrize("fitting", [1, 4])
def test_so_they_are_in_several_passes(
    case: tuple[DLBacktrace, dict[str, Tensor]], fitting: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    def fit(*about: Any) -> int:
        passes.append(fitting)
        return fitting

    monkeypatch.setattr(propagation, "_fit", fit)
    assert_one_by_one(*case, "epsilon")
    assert passes


def test_as_many_seeds_go_together_as_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The largest relevance of this model has 3 x 4 x 6 x 6 numbers of 8 bytes, 3456 in all."""
    model, x = Small().double().eval(), torch.randn(3, 2, 6, 6, dtype=torch.float64)
    sizes: list[int] = []
    together = propagation._together

    def spy(one: Any, seeds: Any, size: int, told: Any) -> Any:
        sizes.append(size)
        return together(one, seeds, size, told)

    monkeypatch.setattr(propagation, "_together", spy)
    monkeypatch.setitem(propagation.ROOM, "cpu", 3456 * 2 + 1)
    dlb = DLBacktrace(model, x)
    dlb.explain(x, targets=[0, 1, 2])
    monkeypatch.setitem(propagation.ROOM, "cpu", 10)
    dlb.explain(x, targets=[0, 1, 2])
    assert sizes == [2, 1]


@pytest.mark.parametrize("mode", ["default", "contrastive"])
def test_the_forward_pass_runs_once(
    case: tuple[DLBacktrace, dict[str, Tensor]], mode: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    dlb, x = case
    runs: list[None] = []
    run_forward = engine.run_forward

    def counted(*args: Any) -> Any:
        runs.append(None)
        return run_forward(*args)

    monkeypatch.setattr(engine, "run_forward", counted)
    dlb.explain(**x, mode=mode, targets=[0, 1, 2])
    assert len(runs) == 1


def test_seeds_without_a_check_have_their_sums(case: tuple[DLBacktrace, dict[str, Tensor]]) -> None:
    _, x = case
    if "x" in x:
        dlb = DLBacktrace(Small().double().eval(), x, check="off")
        assert [ledger.seed for ledger in dlb.explain(**x, targets=[0, 1]).ledger] == pytest.approx([300, 300])


def test_channels_inside_by_a_list_that_the_value_makes() -> None:
    """A number alone is a channel there, whoever gives it."""
    model, x = Small().double().eval(), torch.randn(3, 2, 6, 6, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    given = dlb.explain(x, at="second", targets=[0, 1, 2, 3])
    made = dlb.explain(x, at="second", targets=lambda value: range(value.shape[1]))
    assert torch.equal(given.inputs["x"], made.inputs["x"])
