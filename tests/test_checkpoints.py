"""`memory="low"`: the same explanation from less memory."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, integrated
from dlb_core.kernel.checkpoints import checkpoints
from dlb_core.kernel.plan import Plan

MODES = ("epsilon", "default", "gamma", "z-plus", "attnlrp", "contrastive")


class Block(nn.Module):
    """Attention by hand and a gated layer, each with a way around it; a mask that all blocks read."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(width), nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(width, width)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm(x)).chunk(3, dim=-1)
        weights = (q @ k.transpose(1, 2) + mask).softmax(-1)
        x = x + self.out(weights @ v)
        gate, value = self.up(x).chunk(2, dim=-1)
        return x + self.down(torch.sigmoid(gate) * value)


class Deep(nn.Module):
    """Blocks after one another; the first value is read again at the end."""

    def __init__(self, depth: int, width: int = 8) -> None:
        super().__init__()
        self.start, self.head = nn.Linear(4, width), nn.Linear(2 * width, 3)
        self.blocks = nn.ModuleList(Block(width) for _ in range(depth))

    def forward(self, x: Tensor) -> Tensor:
        first = y = torch.relu(self.start(x))
        mask = torch.zeros(x.shape[1], x.shape[1]).masked_fill(torch.ones(x.shape[1], x.shape[1]).tril() == 0, -1e9)
        for block in self.blocks:
            y = block(y, mask)
        return self.head(torch.cat([y, first], -1).mean(1))


@pytest.fixture(scope="module")
def dlb() -> DLBacktrace:
    torch.manual_seed(0)
    return DLBacktrace(Deep(12).eval(), X)


X = torch.randn(2, 6, 4, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("mode", MODES)
def test_it_is_the_same_explanation(dlb: DLBacktrace, mode: str) -> None:
    full = dlb.explain(X, mode=mode, keep="all")
    low = dlb.explain(X, mode=mode, keep="all", memory="low")
    assert [*full.relevance] == [*low.relevance]
    for name, relevance in full.relevance.items():
        torch.testing.assert_close(low.relevance[name], relevance, rtol=1e-4, atol=1e-5, msg=name)
    assert low.ledger.accounts == pytest.approx(full.ledger.accounts, rel=1e-4, abs=1e-4)


def test_several_targets_and_inner_starts(dlb: DLBacktrace) -> None:
    asked: list[dict[str, Any]] = [
        {"targets": [0, 1, 2]},
        {"at": "blocks.5", "target": 3},
        {"through": {"blocks.3": [1]}},
    ]
    for more in asked:
        full, low = (dlb.explain(X, mode="epsilon", memory=memory, **more) for memory in ("normal", "low"))
        torch.testing.assert_close(low.inputs["x"], full.inputs["x"])


def test_a_step_finds_what_it_reads_and_nothing_lies_longer_than_that(dlb: DLBacktrace) -> None:
    for plan in (dlb.plan("epsilon"), dlb.plan("default"), dlb.plan("attnlrp")):
        assert _most_held(plan) > 0


def _most_held(plan: Plan) -> int:
    """Walks through the plan as a pass does: how many values are there at most; fails where one is missing."""
    saving = checkpoints(plan)
    lasting = {plan.layout.slots[n.name] for n in plan.layout.nodes if n.op == "placeholder"}
    there, most = set(saving.keep), 0
    for index, step in enumerate(plan.steps):
        for again, frees in saving.rebuild[index]:
            there.add(again.slot)
            most = max(most, len(there))
            there -= set(frees)
        if index:
            there -= set(saving.frees[index - 1])
        assert step.reads - lasting <= there, step.node.name
        most = max(most, len(there))
    there -= set(saving.frees[-1])
    read = {slot for step in plan.steps for slot in step.reads}
    assert not there & read
    return most


def test_what_is_held_grows_with_the_root_of_the_depth() -> None:
    held = {}
    for depth in (8, 32):
        plan = DLBacktrace(Deep(depth).eval(), X, tracer="tape").plan("epsilon")
        held[depth] = _most_held(plan)
        assert held[depth] < len(plan.reads) / 2
    assert held[32] < 1.5 * math.sqrt(4) * held[8]


def test_every_value_is_made_again_at_most_once(dlb: DLBacktrace) -> None:
    made = [again.step.slot for row in checkpoints(dlb.plan("epsilon")).rebuild for again in row]
    assert len(made) == len(set(made))


def test_what_cannot_be_is_refused(dlb: DLBacktrace) -> None:
    with pytest.raises(ValueError, match="normal"):
        dlb.explain(X, memory="tiny")
    with pytest.raises(ValueError, match="several"):
        dlb.explain(X, mode=integrated("epsilon"), memory="low")
