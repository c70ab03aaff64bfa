"""A small image model in a file, its input, and a way to call the command."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from dlb_core.cli import main

MODEL = """
import torch
from torch import nn

print("the model's file says something")


def _filled(model):
    generator = torch.Generator().manual_seed(0)
    for p in model.parameters():
        p.data = torch.randn(p.shape, generator=generator) * 0.3
    return model.eval()


def load():
    return _filled(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10)))


def colour():
    return _filled(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)))


def half():
    return load().to(torch.bfloat16)


class Text(nn.Module):
    def __init__(self):
        super().__init__()
        self.table, self.out = nn.Embedding(20, 6), nn.Linear(6, 1)

    def forward(self, ids, scale):
        return self.out((self.table(ids) * scale).mean(1))


class Deep(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.ModuleList(nn.Linear(6, 6) for _ in range(20))

    def forward(self, x):
        for layer in self.layers:
            x = x + layer(x)
        return x


class Cube(nn.Module):
    def forward(self, x):
        return torch.linalg.matrix_exp(x.unsqueeze(-1) * x.unsqueeze(-2)).sum(-1)  # no pack has a rule


def text():
    return _filled(Text())


def deep():
    return _filled(Deep())


def cube():
    return Cube().eval()


ready = load()
number = 3


def training():
    return load().train()


def wants(path):
    return load()


def fails():
    raise RuntimeError("no weights here")


def leaves():
    raise SystemExit("bye")
"""


@dataclass(frozen=True)
class Answer:
    """What a call left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Place:
    """A folder with ``model.py`` and inputs in it, which is the current one."""

    path: Path

    def entries(self) -> set[str]:
        return {str(p.relative_to(self.path)) for p in self.path.rglob("*") if "__pycache__" not in p.parts}


Dlb = Callable[..., Answer]


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    (tmp_path / "model.py").write_text(MODEL)
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 256, (8, 8), dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.save(tmp_path / "grey.npy", grey[None, None].astype(np.float64) / 255)
    Image.fromarray(rng.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(tmp_path / "photo.png")
    np.save(tmp_path / "ids.npy", np.array([[3, 1, 4, 1]], dtype=np.int32))
    np.save(tmp_path / "scale.npy", np.full((1, 1, 1), 2.0))
    np.save(tmp_path / "row.npy", rng.normal(size=(1, 6)).astype(np.float32))
    monkeypatch.chdir(tmp_path)
    return Place(tmp_path)


@pytest.fixture
def dlb(capsys: pytest.CaptureFixture[str]) -> Dlb:
    def call(*argv: str) -> Answer:
        capsys.readouterr()
        code = main(argv)
        return Answer(code, *capsys.readouterr())

    return call
