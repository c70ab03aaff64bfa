"""Overloads that real models put between their input and their output: each has a row.

`seen_overloads.txt` lists what the traces of 200 variants of torchvision's, timm's and transformers' models hold there.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from dlb_core.kernel.ops import family_name

from .harness import pack

SEEN = (Path(__file__).parent / "seen_overloads.txt").read_text().split()
#: brought by the pack for mixtures of experts
ELSEWHERE = {"transformers.grouped_mm_fallback.default"}


def row_name(seen: str) -> str:
    """``aten.add_.Tensor`` -> ``aten::add.Tensor``: a tape writes the twin that changes nothing in place."""
    if seen.startswith("operator."):
        return seen
    namespace, name, overload = seen.split(".")
    return f"{namespace}::{name.removesuffix('_')}.{overload}"


@pytest.mark.parametrize("seen", [name for name in SEEN if name not in ELSEWHERE])
def test_every_overload_between_input_and_output_has_a_row(seen: str) -> None:
    name = row_name(seen)
    rows = pack().rows
    assert name in rows or family_name(name) in rows
