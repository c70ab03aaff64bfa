"""`Entry`: a model of the matrix, as one row of data."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn
from zoo import Case

SAMPLES = 8  # that running statistics are taken from


class Size(NamedTuple):
    """A call that was not traced: how many samples, how much longer."""

    batch: int
    more: int


@dataclass(frozen=True)
class Entry(Case):
    """A zoo case, and what the matrix must know beside it.

    family: the file it stands in. output: which output is explained (None: the first floating one). target: as
    `evaluation` takes it (None: what `auto` means). dynamic: further free dimensions by input name. tracer: the one
    that must have run. coarse: parts of it compute in float32, whatever its dtype. calls: what is run beside the traced
    size; the first is the one that is explained. unsupported: why it cannot be explained yet; then it must fail. fast:
    part of every test run.
    """

    family: str = ""
    output: str | int | None = None
    target: Any = None
    dynamic: Mapping[str, Any] | None = None
    tracer: str = "export"
    coarse: bool = False
    calls: tuple[Size, ...] = (Size(3, 4), Size(1, 1))
    note: str = ""
    unsupported: str = ""
    fast: bool = False

    def model(self, dtype: torch.dtype = torch.float32) -> nn.Module:
        """The model, the same weights at every call; its running statistics are those of the data.

        Without them the signal of a deep network dies out under its biases, and with it what a test can see.
        """
        model = super().model()
        norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.momentum = 1.0
            norm.train()
        if norms:
            with torch.no_grad():
                model(**self.example(SAMPLES))
        return model.to(dtype).eval()
