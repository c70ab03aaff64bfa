"""BatchNorm folded in models: shared weights, chains of norms, halves, new weights, other sizes, names."""

from __future__ import annotations

import pytest
import torch
from folding import MODES, WIDTH, Pair, flat, folded, linear, norm, pair, random
from torch import Tensor, nn
from torch.nn import functional as F

from dlb_core import DLBacktrace


class Tied(nn.Module):
    """One convolution called twice with a norm for each call, and once without."""

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.one, self.two = nn.Conv2d(WIDTH, WIDTH, 1), norm(2), norm(2)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.one(self.layer(x)))
        y = F.relu(self.two(self.layer(y)))
        return flat(self.layer(F.relu(y)))


def test_a_shared_weight_is_folded_for_each_call_alone() -> None:
    torch.manual_seed(0)
    model = random(Tied()).double()
    x = torch.randn(2, WIDTH, 3, 3, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    assert folded(dlb) == [("conv2d", "batch_norm"), ("conv2d", "batch_norm_1")]
    for mode in MODES:
        done = dlb.explain(x, mode=mode, target=torch.ones_like(model(x)))
        torch.testing.assert_close(done.output, model(x), rtol=1e-10, atol=1e-10)
        assert done.ledger.check() == []


def chain() -> nn.Module:
    """A layer that takes in norms from both sides, two of them behind it."""
    torch.manual_seed(0)
    layers = (nn.Tanh(), norm(2), nn.Conv2d(WIDTH, 4, 2, groups=2), norm(2, 4), norm(2, 4, affine=False))
    return random(nn.Sequential(*layers, nn.Flatten())).double()


def test_norms_on_both_sides_of_a_layer() -> None:
    model, x = chain(), torch.randn(2, WIDTH, 4, 4, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    assert folded(dlb) == [("conv2d", "batch_norm, batch_norm_1, batch_norm_2")]
    done = dlb.explain(x, mode="epsilon", target=torch.ones_like(model(x)), keep="all")
    torch.testing.assert_close(done.output, model(x), rtol=1e-10, atol=1e-10)
    assert done.ledger.check() == []
    for name in ("3", "4", "batch_norm_2"):
        assert done.relevance[name] is done.relevance["2"]
    assert done.relevance["1"] is done.relevance["0"]  # a norm that went into what follows: as much as flows into it


def test_a_chain_follows_the_parameters() -> None:
    """Any tensor of the model, changed in place, is seen through every layer of folding."""
    model, x = chain(), torch.randn(2, WIDTH, 4, 4, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    for tensor in [*model.parameters(), *model.buffers()]:
        if tensor.is_floating_point():
            with torch.no_grad():
                tensor.mul_(1.5)
            torch.testing.assert_close(dlb.predict(x)["output"].output, model(x), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", ["before", "after"])
@pytest.mark.parametrize("half", [torch.bfloat16, torch.float16])
def test_a_norm_in_single_precision_beside_a_layer_in_half(half: torch.dtype, side: str) -> None:
    torch.manual_seed(0)
    layer, beside = nn.Conv2d(WIDTH, WIDTH, 2).to(half), random(norm(2))
    model = random(Pair(*((layer, beside) if side == "before" else (beside, layer))))
    x = torch.randn(2, WIDTH, 4, 4, dtype=half)
    dlb = DLBacktrace(model, x)
    assert [norms for _, norms in folded(dlb)] == ["batch_norm"]
    done = dlb.explain(x, target=torch.ones_like(model(x)))
    assert done.output.dtype is half
    torch.testing.assert_close(done.output, model(x), rtol=3e-2, atol=3e-2)
    assert done.ledger.check() == []


def test_other_sizes_of_batch_and_image() -> None:
    model, x = pair("conv2d", "before")
    dlb = DLBacktrace(model, x, dynamic_shapes={"x": (2, 3)})
    other = torch.randn(5, WIDTH, 7, 4, dtype=torch.float64)
    torch.testing.assert_close(dlb.predict(other)["output"].output, model(other), rtol=1e-10, atol=1e-10)


class Named(nn.Module):
    """A norm over an input that has a path for a name."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.layer = norm(0), linear()

    def forward(self, batch: dict[str, Tensor]) -> Tensor:
        return self.layer(self.norm(batch["row"]))


def test_a_norm_over_an_input_answers_with_the_input() -> None:
    model, call = random(Named()), ({"row": torch.randn(2, WIDTH)},)
    relevance = DLBacktrace(model, call).explain(call, mode="epsilon", keep="all").relevance
    assert relevance["norm"] is relevance["batch_norm"]
    assert relevance["norm"] is relevance["batch.row"]
