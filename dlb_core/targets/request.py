"""What the caller asked, and what is known about the output that is asked about."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from dlb_core.choices import MODEL_TYPES, SEEDS, TASKS, choose


@dataclass(frozen=True)
class Request:
    """What the caller asked about; see `make_seed`."""

    task: str = "auto"
    target: Any = None
    seed: str = "multiplier"
    multiplier: float = 100.0
    scaler: float = 1.0
    thresholding: float = 0.5
    model_type: str | None = None

    def at(self, target: Any) -> Request:
        """The same request for another target."""
        return dataclasses.replace(self, target=target)

    def __post_init__(self) -> None:
        choose("task", self.task, TASKS)
        choose("seed", self.seed, SEEDS)
        choose("model_type", self.model_type, MODEL_TYPES)
        for name in ("multiplier", "scaler"):
            value = getattr(self, name)
            if not math.isfinite(value) or value == 0:
                raise ValueError(f"{name}={value!r}: must be a finite number other than 0")
        if self.seed != "multiplier" and self.multiplier != 100.0:
            raise ValueError(
                f"seed={self.seed!r} takes the units from the output; use scaler= to scale them, not multiplier="
            )
        if not 0 <= self.thresholding <= 1:
            raise ValueError(f"thresholding={self.thresholding!r}: must be between 0 and 1")


@dataclass(frozen=True)
class Context:
    """What is known about the explained output.

    causal: does the model write the next token. last: per sample, the last position that is no padding. probability:
    did a softmax or sigmoid make it. scores: of a detector, the class scores [B, Q, C] of its queries, in this output
    or beside it. boxes: this output holds the queries' boxes. labels: how many classes the model says that it knows.
    """

    causal: bool = False
    last: Tensor | None = None
    probability: bool = False
    scores: Tensor | None = None
    boxes: bool = False
    labels: int | None = None
