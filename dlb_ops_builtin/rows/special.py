"""torch.special: functions of one number, one-to-one; of a polynomial the degree only says which one it is."""

from __future__ import annotations

from torch import Tensor

from dlb_core.rules import Row, compound, constant, elementwise, product

OF_ONE_NUMBER = (
    *("airy_ai", "bessel_j1", "bessel_y0", "bessel_y1", "digamma", "psi", "erf", "erfc", "erfinv", "exp2", "expm1"),
    *("gammaln", "i0", "log1p", "multigammaln", "polygamma", "sinc", "spherical_bessel_j0"),
    *("modified_bessel_i0", "modified_bessel_i1", "modified_bessel_k0", "modified_bessel_k1"),
    *("scaled_modified_bessel_k0", "scaled_modified_bessel_k1"),
)
POLYNOMIALS = (
    *(f"{shifted}chebyshev_polynomial_{kind}" for shifted in ("", "shifted_") for kind in "tuvw"),
    *("hermite_polynomial_h", "hermite_polynomial_he", "laguerre_polynomial_l", "legendre_polynomial_p"),
)


def _log_sum_exp(self: Tensor, dim: list[int], keepdim: bool) -> Tensor:
    return self.logsumexp(dim, keepdim)


ROWS: list[Row] = [
    *(elementwise(f"aten::special_{name}") for name in OF_ONE_NUMBER),
    *(elementwise(f"aten::special_{name}", x="x") for name in POLYNOMIALS),
    product("aten::special_xlogy", a="self", b="other"),
    compound("aten::special_logsumexp", written=_log_sum_exp),
    constant("aten::special_round"),
]
