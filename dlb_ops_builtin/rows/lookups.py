"""Lookups: rows of a table by integer ids."""

from __future__ import annotations

from dlb_core.rules import Row, lookup

ROWS: list[Row] = [
    lookup("aten::embedding", ids="indices", table="weight"),
]
