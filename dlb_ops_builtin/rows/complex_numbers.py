"""Complex values taken apart and put together: the relevance of each part goes where that part came from."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from dlb_core.rules import Call, Row, Shares, choice, compound, elementwise, is_complex, move, rule, sum_to


def _as_complex(r: Tensor, call: Call) -> Tensor:
    return torch.view_as_complex(r.contiguous())


def _parts(r: Tensor, call: Call) -> tuple[Tensor, Tensor]:
    return sum_to(r.real, call.shape("real")), sum_to(r.imag, call.shape("imag"))


def _imaginary(r: Tensor, call: Call) -> Tensor:
    return torch.complex(torch.zeros_like(r), r)


@rule("aten::abs", reads=("self",), operands=("self",))
def modulus(call: Call, r: Tensor, mode: Any) -> Shares:
    """R_re = R_y re^2 / |z|^2, R_im = R_y im^2 / |z|^2, halves at zero."""
    parts = torch.view_as_real(call.self.resolve_conj())
    largest = parts.abs().amax(-1, keepdim=True)
    squares = (parts / torch.where(largest == 0, 1, largest)).square()
    shares = torch.where(largest == 0, 0.5, squares / torch.where(largest == 0, 1, squares.sum(-1, keepdim=True)))
    return Shares({"self": torch.view_as_complex(r.unsqueeze(-1) * shares)})


plain = elementwise("aten::abs", x="self")


def _angle(self: Tensor) -> Tensor:
    """By the two parts of a complex number; a real one has 0 or pi, a step that ends activity."""
    if self.is_complex():
        return torch.atan2(self.imag, self.real)
    return torch.zeros_like(self).masked_fill(self < 0, torch.pi)


ROWS: list[Row] = [
    move("aten::view_as_complex", back=lambda r, call: torch.view_as_real(r.resolve_conj())),
    move("aten::view_as_real", back=_as_complex),
    move("aten::real", back=lambda r, call: r),
    move("aten::imag", back=_imaginary),
    move("aten::complex", x=("real", "imag"), back=_parts),
    elementwise("aten::polar", x=("abs", "angle")),  # a length in a direction: all to the length while it is active
    *(
        elementwise(f"aten::{name}")  # the imaginary part changes its sign
        for name in ("conj", "_conj", "conj_physical", "_conj_physical", "resolve_conj", "resolve_neg", "_neg_view")
    ),
    compound("aten::angle", written=_angle),
    choice("aten::abs", "self", lambda arguments: modulus if is_complex(arguments["self"]) else plain),
]
