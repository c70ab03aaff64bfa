"""The kit's tensors and strategies, and how many examples the tests of rules draw."""

from __future__ import annotations

from hypothesis import settings

from dlb_core.testing.strategies import both_dtypes, broadcast_pair, dim_of, shapes
from dlb_core.testing.strategies import makers as tensors
from dlb_core.testing.tensors import LAYOUTS, SIGNS, Tensors, laid_out

__all__ = [
    "LAYOUTS",
    "SIGNS",
    "Tensors",
    "both_dtypes",
    "broadcast_pair",
    "checked",
    "dim_of",
    "laid_out",
    "shapes",
    "tensors",
]

checked = settings(max_examples=30, deadline=None, derandomize=True, database=None)
