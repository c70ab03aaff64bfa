"""Training, in seconds to a minute each; the weights stay in a folder that git ignores, reproducible from the seed."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F

from .data import prose
from .networks import CharacterForCausalLM

FOLDER = Path(__file__).parents[2] / "build" / "faithfulness"


@torch.enable_grad()
def trained(name: str, seed: int, build: Callable[[], nn.Module], train: Callable[[nn.Module], None]) -> nn.Module:
    """The network of that name and seed, from the folder or trained now; in eval mode, without gradients."""
    path = FOLDER / f"{name}-{seed}.safetensors"
    torch.manual_seed(seed)
    model = build()
    if path.exists():
        model.load_state_dict(load_file(path))
    else:
        train(model.train())
        FOLDER.mkdir(parents=True, exist_ok=True)
        save_file(model.state_dict(), path)
    return model.eval().requires_grad_(False)


def classify(x: Tensor, y: Tensor, *, epochs: int = 30, rate: float = 1e-2, decay: float = 1e-2) -> Callable[..., None]:
    """Trains a classifier of these samples."""

    def batches() -> Iterator[Tensor]:
        for _ in range(epochs):
            yield from torch.randperm(len(x)).split(64)

    def train(model: nn.Module) -> None:
        steps = epochs * -(-len(x) // 64)
        losses = (F.cross_entropy(model(x[batch]), y[batch]) for batch in batches())
        _descend(model, losses, steps, rate, decay)

    return train


def predict_characters(ids: Tensor, *, steps: int = 1500, length: int = 32) -> Callable[[nn.Module], None]:
    """Trains a `CharacterForCausalLM` to continue a text of ids [N]."""

    def loss(model: CharacterForCausalLM) -> Tensor:
        start = torch.randint(len(ids) - length - 1, (32, 1))
        window = ids[start + torch.arange(length + 1)]
        return F.cross_entropy(model.everywhere(model.embed(window[:, :-1])).flatten(0, 1), window[:, 1:].flatten())

    def train(model: nn.Module) -> None:
        assert isinstance(model, CharacterForCausalLM)
        _descend(model, (loss(model) for _ in range(steps)), steps, 4e-3, 1e-2)

    return train


def characters() -> tuple[Tensor, str]:
    """The prose as ids [N], and the alphabet that they index."""
    text = "".join(c for c in prose() if c.isascii() and (c.isprintable() or c == "\n"))
    alphabet = "".join(sorted(set(text)))
    index = {character: i for i, character in enumerate(alphabet)}
    return torch.tensor([index[character] for character in text]), alphabet


def _descend(model: nn.Module, losses: Iterator[Tensor], steps: int, rate: float, decay: float) -> None:
    optimiser = torch.optim.AdamW(model.parameters(), weight_decay=decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, max_lr=rate, total_steps=steps)
    for loss in losses:
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        schedule.step()
