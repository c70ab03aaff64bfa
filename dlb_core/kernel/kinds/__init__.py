"""The kinds: an op says what it is, a mode says how relevance goes through it.

`base` has what every row has; `linear`, `pointwise`, `normalise` and `moves` have the kinds. A kind names its
operands, narrows itself to a simpler kind where it can, and hands a formula a view with its roles.
"""

from __future__ import annotations

from dlb_core.kernel.kinds.base import Constant, OpRule, Row, Site, argument, sum_to, vjp
from dlb_core.kernel.kinds.linear import Attention, Bilinear, Linear, LinearView
from dlb_core.kernel.kinds.moves import Lookup, Move
from dlb_core.kernel.kinds.normalise import Normalise, NormaliseView, Softmax, SoftmaxView
from dlb_core.kernel.kinds.pointwise import Elementwise, Product, Sum, SumView

__all__ = [
    "Attention",
    "Bilinear",
    "Constant",
    "Elementwise",
    "Linear",
    "LinearView",
    "Lookup",
    "Move",
    "Normalise",
    "NormaliseView",
    "OpRule",
    "Product",
    "Row",
    "Site",
    "Softmax",
    "SoftmaxView",
    "Sum",
    "SumView",
    "argument",
    "sum_to",
    "vjp",
]
