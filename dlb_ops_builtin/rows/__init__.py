"""Rows by family; a row is one word (its kind) and the op's name wherever that is enough."""

from __future__ import annotations

from dlb_core.rules import Row
from dlb_ops_builtin.rows import (
    accumulating,
    assembling,
    attention,
    complex_numbers,
    compounds,
    constants,
    convolutions,
    fourier,
    fused,
    linear_maps,
    lookups,
    moves,
    norms,
    picks,
    pointwise,
    recurrent,
    resampling,
    sampling,
    shares,
    winners,
    writes,
)

ALL: list[Row] = [
    *linear_maps.ROWS,
    *accumulating.ROWS,
    *convolutions.ROWS,
    *resampling.ROWS,
    *sampling.ROWS,
    *pointwise.ROWS,
    *complex_numbers.ROWS,
    *fourier.ROWS,
    *moves.ROWS,
    *picks.ROWS,
    *winners.ROWS,
    *assembling.ROWS,
    *writes.ROWS,
    *norms.ROWS,
    *attention.ROWS,
    *fused.ROWS,
    *shares.ROWS,
    *compounds.ROWS,
    *recurrent.ROWS,
    *lookups.ROWS,
    *constants.ROWS,
]
