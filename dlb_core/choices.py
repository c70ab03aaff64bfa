"""The words that arguments may take, written once; nothing here needs torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

TASKS = (
    "auto",
    "binary-classification",
    "multi-class classification",
    "regression",
    "bbox-regression",
    "binary-segmentation",
    "segmentation",
    "token-classification",
    "detection",
    "generation",
)
SEEDS = ("multiplier", "logit", "probability")
MODEL_TYPES = (None, "encoder", "decoder", "encoder-decoder")
MEMORIES = ("normal", "low")
CHECKS = ("raise", "warn", "ends", "off")
BIAS_POLICIES = ("absorb", "redistribute")
ROUTERS = ("gate", "share")
FAMILIES = ("decoder", "encoder", "vision transformer", "vision", "recurrent", "tabular")
AUTO = "auto"  # the mode that suits the model's family
TRACERS = ("auto", "export", "tape")


def choose(name: str, value: Any, choices: Sequence[Any]) -> None:
    """Raises a ValueError that lists the choices when `value` is none of them."""
    if value not in choices:
        raise ValueError(f"{name}={value!r}: choose one of {', '.join(map(repr, choices))}")
