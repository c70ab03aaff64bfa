"""What a loop adds into one tensor is shared as one sum; what is no plain sum stays in steps."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace


class Adding(nn.Module):
    """Four parts of x, each with a dense layer of its own, are added into places that they share.

    steps: one after the other. between: the value of the second step is read by somebody else too.
    """

    def __init__(self, steps: bool, between: bool = False, second: float = 1.0, across: bool = False) -> None:
        super().__init__()
        self.steps, self.between, self.second, self.across = steps, between, second, across
        self.parts = nn.ModuleList(nn.Linear(2, 3) for _ in range(4))
        self.places = [torch.tensor(places) for places in ([0, 1], [1, 0], [0, 0], [1, 1])]

    def forward(self, x: Tensor) -> Tensor:
        rows = [part(x[:, 2 * i : 2 * i + 2]) for i, part in enumerate(self.parts)]
        out = x.new_zeros(2, 3)
        if not self.steps:
            return out.index_add(0, torch.cat(self.places), torch.cat(rows))
        seen = None
        for i, (place, row) in enumerate(zip(self.places, rows, strict=True)):
            if i == 1 and self.across:
                out = out.index_add(1, torch.tensor([2, 0, 1]), row)
            else:
                out = out.index_add(0, place, row, alpha=self.second if i == 1 else 1.0)
            seen = out if i == 1 else seen
        return out * seen if self.between else out


def explained(model: nn.Module, x: Tensor, mode: str) -> Any:
    torch.manual_seed(0)
    for parameter in model.parameters():
        nn.init.normal_(parameter)
    dlb = DLBacktrace(model.double().eval(), x, dynamic_shapes=None)
    done = dlb.explain(x, mode=mode, target=1)
    torch.testing.assert_close(done.output, model(x))
    assert done.ledger.check() == []
    return done, sum(record["op"] == "aten::index_add.default" for record in dlb.plan(mode).table().records())


@pytest.fixture
def x() -> Tensor:
    return torch.randn(2, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.mark.parametrize("mode", ["default", "epsilon", "gamma", "alpha-beta", "vision"])
def test_steps_are_one_sum(mode: str, x: Tensor) -> None:
    one, count = explained(Adding(steps=False), x, mode)
    other, joined = explained(Adding(steps=True), x, mode)
    assert (count, joined) == (1, 1)
    torch.testing.assert_close(other.inputs["x"], one.inputs["x"], rtol=1e-12, atol=1e-10)
    assert other.ledger.accounts == pytest.approx(dict(one.ledger.accounts), rel=1e-9, abs=1e-9)


@pytest.mark.parametrize(
    ("options", "count"),
    [({"between": True}, 2), ({"second": 2.0}, 3), ({"across": True}, 3)],
    ids=["read in between", "another factor", "another dimension"],
)
def test_what_is_no_plain_sum_stays_in_steps(options: dict[str, Any], count: int, x: Tensor) -> None:
    _, found = explained(Adding(steps=True, **options), x, "epsilon")
    assert found == count
