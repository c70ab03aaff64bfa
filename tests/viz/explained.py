"""Tiny explained models, one for each kind of input; made once."""

from __future__ import annotations

import functools
from typing import Any

import torch
from torch import Tensor, nn

from dlb_core import DLBacktrace, Explanation


class Reader(nn.Module):
    """Ids to classes."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.head = nn.Embedding(40, 8), nn.Linear(8, 4)

    def forward(self, ids: Tensor) -> Tensor:
        mixed: Tensor = self.head(torch.relu(self.table(ids)).mean(1))
        return mixed


class Both(nn.Module):
    """An image and numbers beside it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36 + 5, 4)

    def forward(self, image: Tensor, facts: Tensor) -> Tensor:
        seen = torch.relu(self.conv(image)).flatten(1)
        mixed: Tensor = self.head(torch.cat([seen, facts], 1))
        return mixed


def _models() -> dict[str, tuple[nn.Module, tuple[Tensor, ...]]]:
    image = torch.rand(3, 3, 8, 8) * 2 - 0.5
    return {
        "image": (nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 4)), (image,)),
        "tokens": (Reader(), (torch.randint(0, 40, (3, 7)),)),
        "features": (nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, 4)), (torch.randn(3, 5),)),
        "series": (
            nn.Sequential(nn.Conv1d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 10, 4)),
            (torch.randn(3, 2, 12),),
        ),
        "values": (
            nn.Sequential(nn.Conv3d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(16, 4)),
            (torch.randn(3, 1, 3, 3, 3),),
        ),
        "both": (Both(), (image, torch.randn(3, 5))),
    }


@functools.cache
def traced(kind: str) -> tuple[DLBacktrace, tuple[Tensor, ...]]:
    """A model of that input and a batch of three."""
    torch.manual_seed(0)
    model, inputs = _models()[kind]
    return DLBacktrace(model.eval(), inputs), inputs


@functools.cache
def explained(kind: str, mode: str = "default", targets: tuple[int, ...] | None = None) -> Explanation:
    """Three samples of that input explained; nobody may change it."""
    dlb, inputs = traced(kind)
    more: dict[str, Any] = {} if targets is None else {"targets": [*targets]}
    return dlb.explain(*inputs, mode=mode, **more)
