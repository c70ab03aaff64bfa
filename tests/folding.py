"""Pairs of a layer and its BatchNorm, and what was folded of a model."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlb_core import DLBacktrace

MODES = ["default", "epsilon"]
NORMS = {0: nn.BatchNorm1d, 1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
WIDTH = 6  # channels everywhere


def norm(dims: int, channels: int = WIDTH, **options: Any) -> nn.Module:
    return NORMS[dims](channels, **options)


def linear() -> nn.Module:
    return nn.Linear(WIDTH, WIDTH)


def flat(x: Tensor) -> Tensor:
    return x.flatten(1)


# what is folded: (what comes first, what follows, dims of the input)
BEFORE: dict[str, Callable[[], tuple[nn.Module, nn.Module, int]]] = {
    "linear": lambda: (linear(), norm(0), 0),
    "linear without bias": lambda: (nn.Linear(WIDTH, WIDTH, bias=False), norm(0), 0),
    "norm without affine": lambda: (linear(), norm(0, affine=False), 0),
    "neither": lambda: (nn.Linear(WIDTH, 4, bias=False), norm(0, 4, affine=False), 0),
    "conv1d": lambda: (nn.Conv1d(WIDTH, 4, 3), norm(1, 4), 1),
    "conv2d": lambda: (nn.Conv2d(WIDTH, 4, 3, padding=1, bias=False), norm(2, 4), 2),
    "conv2d, padding by word": lambda: (nn.Conv2d(WIDTH, 4, 2, padding="same"), norm(2, 4), 2),
    "conv2d, groups and strides": lambda: (nn.Conv2d(WIDTH, 9, (3, 2), stride=2, groups=3), norm(2, 9), 2),
    "conv2d, depthwise and dilated": lambda: (nn.Conv2d(WIDTH, 12, 2, dilation=2, groups=6), norm(2, 12), 2),
    "conv3d": lambda: (nn.Conv3d(WIDTH, 4, 2, groups=2), norm(3, 4, affine=False), 3),
    "conv_transpose1d": lambda: (nn.ConvTranspose1d(WIDTH, 4, 3, stride=2, output_padding=1), norm(1, 4), 1),
    "conv_transpose2d, groups": lambda: (nn.ConvTranspose2d(WIDTH, 9, 3, padding=1, groups=3), norm(2, 9), 2),
    "conv_transpose2d, depthwise": lambda: (nn.ConvTranspose2d(WIDTH, 6, 2, groups=6, bias=False), norm(2), 2),
    "conv_transpose3d, groups": lambda: (nn.ConvTranspose3d(WIDTH, 4, 2, groups=2), norm(3, 4), 3),
}
AFTER: dict[str, Callable[[], tuple[nn.Module, nn.Module, int]]] = {
    "linear": lambda: (norm(0), linear(), 0),
    "linear without bias": lambda: (norm(0), nn.Linear(WIDTH, 4, bias=False), 0),
    "norm without affine": lambda: (norm(0, affine=False), linear(), 0),
    "conv1d": lambda: (norm(1), nn.Conv1d(WIDTH, 4, 3), 1),
    "conv2d, groups and strides": lambda: (norm(2), nn.Conv2d(WIDTH, 9, (3, 2), stride=2, groups=3, bias=False), 2),
    "conv2d, depthwise and dilated": lambda: (norm(2), nn.Conv2d(WIDTH, 12, 2, dilation=2, groups=6), 2),
    "conv2d, padding by word": lambda: (norm(2), nn.Conv2d(WIDTH, 4, 2, padding="valid"), 2),
    "conv3d": lambda: (norm(3, affine=False), nn.Conv3d(WIDTH, 4, 2, groups=2), 3),
    "flattened image": lambda: (norm(2), nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 25, 4)), 2),
    "flattened sequence": lambda: (norm(1), nn.Sequential(nn.Flatten(), nn.Linear(WIDTH * 5, 4, bias=False)), 1),
}


class Pair(nn.Module):
    """A pointwise function, two modules, and an activation: what is in front and behind has no weights to fold into."""

    def __init__(self, first: nn.Module, second: nn.Module) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor) -> Tensor:
        return flat(F.relu(self.second(self.first(torch.tanh(x)))))


def pair(name: str, side: str, dtype: torch.dtype = torch.float64) -> tuple[Any, Any]:
    """The model of a case and an input of it."""
    torch.manual_seed(0)
    first, second, dims = {"before": BEFORE, "after": AFTER}[side][name]()
    return random(Pair(first, second)).to(dtype), torch.randn(1, WIDTH, *[5] * dims).to(dtype)


def random(model: nn.Module) -> nn.Module:
    """Statistics and weights that no two channels share."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2)
            if module.affine:
                nn.init.normal_(module.weight)
                nn.init.normal_(module.bias)
    return model.eval()


def folded(dlb: DLBacktrace) -> list[tuple[str, str]]:
    """The layers that answer for norms, as the plan's table shows them, and the norms that are left."""
    records = dlb.plan("epsilon").table().records()
    marks = [(r["op"].partition(".")[0].removeprefix("aten::"), r["folded"]) for r in records if r["folded"]]
    return marks + [("left", r["node"]) for r in records if "batch_norm" in r["op"]]
