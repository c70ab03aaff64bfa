"""What an explanation keeps between its passes: what is cheap to make again is made again, and is the same."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace
from dlb_core.kernel.thrift import thrift


class Weighed(nn.Module):
    """Rows, each times a weight of its own, added up: [B, 4, 6] -> [B, 3]."""

    def __init__(self, wide: bool) -> None:
        super().__init__()
        self.maps, self.weigh, self.head = nn.Linear(6, 16), nn.Linear(6, 16 if wide else 1), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.maps(x) * self.weigh(x).softmax(1)).sum(1))


def kept(dlb: DLBacktrace) -> set[object]:
    """The ops whose values stay."""
    plan = dlb.plan("epsilon")
    return {plan.layout.nodes[slot].target for slot in thrift(plan).keep}


def test_a_row_times_its_weight_is_made_again_from_the_weight() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 4, 6)
    little, much = (DLBacktrace(Weighed(wide).eval(), x) for wide in (False, True))
    product, weight = torch.ops.aten.mul.Tensor, torch.ops.aten.softmax.int
    assert product not in kept(little)
    assert weight in kept(little)
    assert product in kept(much)  # its weights take as much as it does, and are not made in passing
    for dlb in (little, much):
        dlb.predict(x)
        for mode in ("epsilon", "default", "attnlrp"):
            whole, quick = dlb.evaluation(mode), dlb.explain(x, mode=mode, keep="inputs")
            assert torch.equal(whole["x"], quick.inputs["x"])
            assert quick.ledger.accounts == whole.ledger.accounts


class Gated(nn.Module):
    """What a gate lets through, and the way around it: [B, 6] -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.gate, self.up, self.down, self.head = nn.Linear(6, 16), nn.Linear(6, 16), nn.Linear(16, 6), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(x + self.down(torch.nn.functional.silu(self.gate(x)) * self.up(x)))


def test_a_chain_of_cheap_steps_is_made_again_from_what_stays() -> None:
    torch.manual_seed(0)
    x = torch.randn(2, 6)
    dlb = DLBacktrace(Gated().eval(), x)
    stays = kept(dlb)
    assert torch.ops.aten.mul.Tensor not in stays
    assert torch.ops.aten.silu.default not in stays
    dlb.predict(x)
    for mode in ("epsilon", "default", "attnlrp"):
        assert torch.equal(dlb.evaluation(mode)["x"], dlb.explain(x, mode=mode).inputs["x"])
