"""What formulas have in common: large tensors take a thriftier way to the same numbers."""

from __future__ import annotations

import torch

from dlb_core.formulas import PIECE, share_out, surely


def _drawn() -> tuple[torch.Tensor, torch.Tensor]:
    drawn = torch.Generator().manual_seed(0)
    y = torch.randn(3, PIECE // 2 + 7, generator=drawn, dtype=torch.float64)
    y[0, :5] = 0
    return torch.randn(y.shape, generator=drawn, dtype=torch.float64), y


def test_a_large_quotient_is_the_one_of_its_parts() -> None:
    r, y = _drawn()
    before = y.clone(), r.clone()
    s, kept = share_out(r, y, 1e-3)
    rows = [share_out(a, b, 1e-3) for a, b in zip(r, y, strict=True)]  # each small enough for the plain way
    assert torch.equal(s, torch.stack([each for each, _ in rows]))
    torch.testing.assert_close(kept, torch.stack([each for _, each in rows]).sum())
    torch.testing.assert_close(s * y + kept * 0, r - s * torch.where(y < 0, -1e-3, 1e-3))
    assert torch.equal(y, before[0])
    assert torch.equal(r, before[1])


def test_a_large_quotient_of_several_seeds() -> None:
    r, y = _drawn()
    s, kept = torch.func.vmap(lambda one: share_out(one, y, 1e-3))(torch.stack([r, 2 * r]))
    alone, kept_alone = share_out(r, y, 1e-3)
    torch.testing.assert_close(s[1], 2 * alone)
    torch.testing.assert_close(kept, torch.stack([kept_alone, 2 * kept_alone]))


def test_nothing_is_sure_while_a_pass_is_mapped() -> None:
    assert surely(torch.ones(3) > 0)
    assert not surely(torch.arange(3) > 0)
    asked: list[bool] = []
    torch.func.vmap(lambda x: asked.append(surely(x > 0)) or x)(torch.ones(2, 3))
    assert asked == [False]
