"""Composites: what practice has found to read well, put together from the modes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dlb_core.rules import Composite, Part, part


def _vision(options: Mapping[str, Any]) -> list[Part]:
    low, high = options["low"], options["high"]
    bounded = low is not None or high is not None
    first = part("z-box", first=True, kind="linear", low=low, high=high) if bounded else None
    return [
        first or part("flat", first=True, kind="linear"),
        part("gamma", tag="convolution", gamma=options["gamma"]),
        part("epsilon"),
    ]


VISION = Composite(
    "vision",
    _vision,
    options={"gamma": 0.25, "low": None, "high": None},
    source="composite practice: Montavon et al. 2019, Kohlbrenner et al. 2020 (arXiv:1910.09840)",
    summary="flat at the input (z-box with low= and high=), gamma in convolutions, epsilon in dense layers",
)


# By kind, so attention that is written with products and sums of elements, or a learned addend of its scores, is shared
# by gamma: there a fused and a written form differ a little.
def _faithful(options: Mapping[str, Any]) -> list[Part]:
    return [part("attnlrp", kind=("softmax", "attention", "bilinear")), part("gamma", gamma=options["gamma"])]


FAITHFUL = Composite(
    "faithful",
    _faithful,
    options={"gamma": 0.1},
    suits=("decoder", "encoder", "vision transformer", "vision", "recurrent"),
    source="measured: docs/faithfulness.md",
    summary="gamma 0.1, attnlrp's rules in attention: one pass, chosen by measurement",
)
