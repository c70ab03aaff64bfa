"""Overloads that real models use: each has a row.

`seen_overloads.txt` lists what the traces of 200 variants of torchvision's, timm's and transformers' models hold.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dlb_core.kernel.ops import family_name
from dlb_ops_moe.rows import ROWS

from .harness import pack

SEEN = (Path(__file__).parent / "seen_overloads.txt").read_text().split()
#: assertions, which a pass takes out
ELSEWHERE = {name for name in SEEN if name.startswith("aten._assert_")}
#: brought by the pack for mixtures of experts
ROUTED = {row.op for row in ROWS}


def row_name(seen: str) -> str:
    """``aten.add_.Tensor`` -> ``aten::add.Tensor``: a tape writes the twin that changes nothing in place."""
    if seen.startswith(("operator.", "torch.")):
        return seen
    namespace, name, overload = seen.split(".")
    return f"{namespace}::{name if name.endswith('__') else name.removesuffix('_')}.{overload}"


@pytest.mark.parametrize("seen", [name for name in SEEN if name not in ELSEWHERE])
def test_every_overload_has_a_row(seen: str) -> None:
    name = row_name(seen)
    rows = {*pack().rows, *ROUTED}
    assert name in rows or family_name(name) in rows
