"""Quantiles share as they are interpolated, slopes and areas by their samples, norms of matrices by what they add."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from dlb_core.errors import DLBError

from .harness import bind_op

aten = torch.ops.aten
X = torch.tensor([4.0, -1.0, 2.0, 3.0])


def shared(op: Any, r: Any, **arguments: Any) -> torch.Tensor:
    name = "y" if "trapezoid" in str(op) else "self"
    done: torch.Tensor = bind_op(op, {name: X, **arguments}, [name]).back(torch.tensor(r))[name]
    return done


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("linear", [0, 0, 100 * 0.5 * 2 / 2.5, 100 * 0.5 * 3 / 2.5]),  # half of 2 and half of 3
        ("lower", [0, 0, 100.0, 0]),
        ("higher", [0, 0, 0, 100.0]),
    ],
)
def test_a_quantile_lies_between_two_samples(how: str, expected: list[float]) -> None:
    done = shared(aten.quantile.scalar, 100.0, q=0.5, interpolation=how)
    torch.testing.assert_close(done, torch.tensor(expected))


def test_strips_share_by_their_area() -> None:
    """Widths 1, 2, 1: the areas are made of 4 and -1, of -1 and 2 twice as wide, of 2 and 3."""
    x = torch.tensor([0.0, 1.0, 3.0, 4.0])
    done = shared(aten.cumulative_trapezoid.x, [10.0, 0.0, 0.0], x=x, dim=-1)
    torch.testing.assert_close(done, torch.tensor([8.0, 2.0, 0, 0]))


def test_the_greatest_row_of_a_matrix_shares() -> None:
    """The rows add up to 3 and 5."""
    x = torch.tensor([[1.0, -2.0], [4.0, 1.0]])
    done = bind_op(aten.linalg_norm.default, {"self": x, "ord": float("inf")}, ["self"]).back(torch.tensor(100.0))
    torch.testing.assert_close(done["self"], torch.tensor([[0, 0], [80.0, 20.0]]))


@pytest.mark.parametrize("order", [2, -2])
def test_a_spectral_norm_is_refused(order: int) -> None:
    x = torch.ones(2, 2)
    with pytest.raises(DLBError, match="singular values"):
        bind_op(aten.linalg_norm.default, {"self": x, "ord": order}, ["self"])
    assert (
        bind_op(aten.linalg_norm.default, {"self": x[0], "ord": order}, ["self"]).back(torch.tensor(1.0))["self"].any()
    )
