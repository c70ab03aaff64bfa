"""The networks that all tools can explain: plain modules in a sequence, in float64."""

from __future__ import annotations

import torch
from torch import Tensor, nn

CLASSES = 5


def vgg(bias: bool = True) -> nn.Sequential:
    """Convolutions and ReLUs in two blocks, a maximum and an average pool, two dense layers: [B, 3, 8, 8]."""
    return finished(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.Conv2d(8, 8, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 12, 3, padding=1, bias=bias),
            nn.ReLU(),
            nn.AvgPool2d(2),
            nn.Flatten(),
            nn.Linear(12 * 2 * 2, 16, bias=bias),
            nn.ReLU(),
            nn.Linear(16, CLASSES, bias=bias),
        )
    )


def normed() -> nn.Sequential:
    """Every layer followed by its BatchNorm: [B, 3, 8, 8]."""
    return finished(
        nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1, bias=False),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.Conv2d(8, 12, 3, stride=2),
            nn.BatchNorm2d(12),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(12 * 3 * 3, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, CLASSES),
        )
    )


def mlp(bias: bool = True) -> nn.Sequential:
    """Three dense layers: [B, 12]."""
    layers = (nn.Linear(12, 20, bias=bias), nn.ReLU(), nn.Linear(20, 16, bias=bias), nn.ReLU())
    return finished(nn.Sequential(*layers, nn.Linear(16, CLASSES, bias=bias)))


def finished(model: nn.Sequential) -> nn.Sequential:
    """Weights of both signs and biases large enough to count, statistics that no two channels share."""
    generator = torch.Generator().manual_seed(4)
    model.double().eval().requires_grad_(False)
    for module in model.modules():
        if isinstance(module, (nn.Conv2d, nn.Linear)):
            fan = module.weight[0].numel()
            module.weight.normal_(0, (2 / fan) ** 0.5, generator=generator)
            if module.bias is not None:
                module.bias.normal_(0, 0.3, generator=generator)
        elif isinstance(module, (nn.BatchNorm1d, nn.BatchNorm2d)):
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.normal_(0.3, 0.5, generator=generator)
            module.running_var.uniform_(0.5, 2, generator=generator)
    return model


def image(low: float = -1.0) -> Tensor:
    """Two images in [low, 1]."""
    return torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(5), dtype=torch.float64) * (1 - low) + low


def row() -> Tensor:
    return torch.randn(2, 12, generator=torch.Generator().manual_seed(6), dtype=torch.float64)


def supported(model: nn.Module, x: Tensor) -> list[int]:
    """The class with the largest logit of each sample; it is positive."""
    logits = model(x)
    assert bool((logits.amax(1) > 0).all())
    return [int(c) for c in logits.argmax(1)]


def assert_agrees(ours: Tensor, theirs: Tensor) -> None:
    """Within 1e-4 of the largest share, everywhere; and there is something to compare."""
    largest = float(theirs.abs().max())
    assert largest > 0
    torch.testing.assert_close(ours, theirs.to(ours.dtype), rtol=1e-4, atol=1e-4 * largest)
