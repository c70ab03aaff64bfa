"""The kinds: an op says what it is, a mode says how relevance goes through it.

`base` has what every row has; the other rooms have the kinds. A kind names its
operands, narrows itself to a simpler kind where it can, and hands a formula a view with its roles.
"""

from __future__ import annotations

from dlb_core.kernel.kinds.accumulate import Accumulate, AccumulateView, Choice
from dlb_core.kernel.kinds.attention import Attention, AttentionView
from dlb_core.kernel.kinds.base import Constant, OpRule, Row, Site, argument, sum_to, vjp
from dlb_core.kernel.kinds.complex_values import PairCall, Pairs, for_complex, is_complex
from dlb_core.kernel.kinds.compound import Compound
from dlb_core.kernel.kinds.linear import Bilinear, Linear, LinearView
from dlb_core.kernel.kinds.mapped import one_by_one
from dlb_core.kernel.kinds.moves import Lookup, Move
from dlb_core.kernel.kinds.normalise import Normalise, NormaliseView, Softmax, SoftmaxView
from dlb_core.kernel.kinds.pointwise import Elementwise, Product, Sum, SumView
from dlb_core.kernel.kinds.shares import Share

__all__ = [
    "Accumulate",
    "AccumulateView",
    "Attention",
    "AttentionView",
    "Bilinear",
    "Choice",
    "Compound",
    "Constant",
    "Elementwise",
    "Linear",
    "LinearView",
    "Lookup",
    "Move",
    "Normalise",
    "NormaliseView",
    "OpRule",
    "PairCall",
    "Pairs",
    "Product",
    "Row",
    "Share",
    "Site",
    "Softmax",
    "SoftmaxView",
    "Sum",
    "SumView",
    "argument",
    "for_complex",
    "is_complex",
    "one_by_one",
    "sum_to",
    "vjp",
]
