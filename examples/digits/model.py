"""A small convolutional network for 8 x 8 handwritten digits, and its trained weights.

It has what makes relevance easy to lose: BatchNorm after every convolution, biases everywhere, a residual connection.
Input [B, 1, 8, 8] float32, 0 (paper) to 1 (ink); output [B, 10] logits.
"""

from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

WEIGHTS = Path(__file__).with_name("digits.safetensors")


def conv_norm(inputs: int, outputs: int) -> nn.Sequential:
    """Make a 3 x 3 convolution with its bias, and BatchNorm."""
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs))


class DigitsNet(nn.Module):
    """Two stages of 16 and 32 channels, a residual block in the first, and a linear classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_norm(1, 16)
        self.residual = nn.Sequential(conv_norm(16, 16), nn.ReLU(), conv_norm(16, 16))
        self.widen = conv_norm(16, 32)
        self.classify = nn.Linear(32 * 2 * 2, 10)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stem(image).relu()
        x = (x + self.residual(x)).relu()
        x = nn.functional.max_pool2d(x, 2)
        x = self.widen(x).relu()
        x = nn.functional.avg_pool2d(x, 2)
        return self.classify(x.flatten(1))


def load() -> DigitsNet:
    """Return the trained network in eval mode."""
    model = DigitsNet()
    model.load_state_dict(load_file(WEIGHTS))
    return model.eval()


def example() -> Tensor:
    """Return an empty image [1, 1, 8, 8], to trace with."""
    return torch.zeros(1, 1, 8, 8)
