"""Unusual spellings in a model: exported and explained, they give what the plain spelling gives."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dlb_core import DLBacktrace, Explanation

MODES = [("default", "redistribute"), ("default", "absorb"), ("epsilon", "absorb"), ("epsilon", "redistribute")]
Form = Callable[[Tensor, nn.Module], Tensor]


class Model(nn.Module):
    """Two maps around the spelling: what comes out of the first has both signs, what goes into the second is flat."""

    def __init__(self, form: Form) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)

        def drawn(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.randn(shape, generator=generator, dtype=torch.float64))

        self.form = form
        self.inner, self.shift, self.other, self.point = drawn(4, 4), drawn(4), drawn(3, 1), drawn()
        self.outer = drawn(2, 64)

    def forward(self, x: Tensor) -> Tensor:
        y = self.form(F.linear(x, self.inner, self.shift), self)
        return F.linear(y.flatten(1), self.outer[:, : y[0].numel()])


def _dropped(x: Tensor, model: nn.Module) -> Tensor:
    return torch.cat(tensors=[x[:, 1:1], x], dim=-2)


PAIRS: dict[str, tuple[Form, Form]] = {
    "negative dims": (
        lambda x, m: torch.cat([x.softmax(-1), x.sum(-1, keepdim=True)], -1).transpose(-1, -2),
        lambda x, m: torch.cat([x.softmax(2), x.sum(2, keepdim=True)], 2).transpose(1, 2),
    ),
    "negative slices": (
        lambda x, m: x[:, -2:, -3:-1] * x[..., -1, -1, None, None],
        lambda x, m: x[:, 1:, 1:3] * x[:, 2:3, 3:],
    ),
    "keywords": (
        lambda x, m: torch.add(other=torch.softmax(dim=1, input=x), input=x, alpha=2),
        lambda x, m: x + 2 * x.softmax(1),
    ),
    "alpha of a difference": (lambda x, m: torch.sub(x, m.other, alpha=0.5), lambda x, m: x - 0.5 * m.other),
    "reversed difference": (lambda x, m: torch.rsub(x, m.other, alpha=3), lambda x, m: m.other - 3 * x),
    "no dimensions": (lambda x, m: x * m.point - x.mean(), lambda x, m: x * m.point - x.mean((0, 1, 2), keepdim=True)),
    "no elements": (_dropped, lambda x, m: x.clone()),
    "broadcasting": (
        lambda x, m: x + m.other * x[:, :1],
        lambda x, m: x + m.other.expand(3, 4) * x[:, :1].expand(-1, 3, 4),
    ),
    "other strides": (lambda x, m: x.mT.contiguous().mT.reshape(-1, 12), lambda x, m: x.reshape(-1, 12)),
    "integers": (lambda x, m: x + torch.arange(4), lambda x, m: x + torch.arange(4.0, dtype=torch.float64)),
    "bits": (lambda x, m: x * (x > 0), lambda x, m: x * (x > 0).double()),
    "x + x": (lambda x, m: x + x, lambda x, m: 2 * x),
    "x * x": (lambda x, m: x * x, lambda x, m: x.square()),
    "x @ x.T": (lambda x, m: x @ x.mT, lambda x, m: torch.einsum("bij,bkj->bik", x, x)),
    "floor": (lambda x, m: x - torch.div(x, 3, rounding_mode="floor"), lambda x, m: x - torch.floor(x / 3)),
    "trunc": (lambda x, m: x - torch.div(x, m.other, rounding_mode="trunc"), lambda x, m: x - torch.trunc(x / m.other)),
    "no rounding": (lambda x, m: torch.div(x, m.other, rounding_mode=None), lambda x, m: x / m.other),
}


@pytest.mark.parametrize(("odd", "plain"), PAIRS.values(), ids=PAIRS)
def test_a_spelling_does_not_matter(odd: Form, plain: Form) -> None:
    x = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    traced = [DLBacktrace(Model(form).eval(), (x,), dynamic_shapes=None) for form in (odd, plain)]
    for mode, bias in MODES:
        assert_same(*(dlb.explain(x, mode=mode, bias=bias, target=1) for dlb in traced))


def assert_same(one: Explanation, other: Explanation) -> None:
    """The same output, the same relevance in the same places, the same units left with constants."""
    torch.testing.assert_close(one.output, other.output)
    torch.testing.assert_close(one.inputs["x"], other.inputs["x"])
    assert one.ledger.seed == pytest.approx(200)
    assert one.ledger.inputs["x"] == pytest.approx(float(one.inputs["x"].sum()))
    constants = [sum(u for n, u in e.ledger.accounts.items() if n.startswith("constant:")) for e in (one, other)]
    assert constants[0] == pytest.approx(constants[1])


def test_inputs_with_other_strides() -> None:
    x = torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64).permute(2, 1, 0)
    dlb = DLBacktrace(Model(lambda x, m: x.relu()).eval(), (x,))
    for mode, bias in MODES:
        assert_same(*(dlb.explain(each, mode=mode, bias=bias, target=1) for each in (x, x.contiguous())))
