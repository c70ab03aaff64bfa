"""Real data that scikit-learn brings along: digits, tables, and the English of its own documentation."""

from __future__ import annotations

import inspect
import warnings
from functools import cache
from importlib.resources import files
from typing import NamedTuple

import numpy as np
import torch
from sklearn.datasets import load_breast_cancer, load_digits, load_wine
from sklearn.model_selection import train_test_split
from torch import Tensor


class Split(NamedTuple):
    """A training and a held-out part; modes are tuned on the first and reported on the second."""

    train_x: Tensor
    train_y: Tensor
    test_x: Tensor
    test_y: Tensor


@cache
def digits() -> Split:
    """Images [N, 1, 8, 8] from 0 (paper) to 1 (ink), as the digits example has them: a quarter is held out."""
    found = load_digits()
    pixels = np.round(found.images * (255 / 16)).astype(np.uint8)
    parts = train_test_split(pixels, found.target, test_size=0.25, stratify=found.target, random_state=0)
    train_x, test_x, train_y, test_y = map(torch.from_numpy, parts)
    return Split(train_x[:, None] / 255, train_y, test_x[:, None] / 255, test_y)


@cache
def table(name: str) -> Split:
    """A table of measurements, each column with mean 0 and deviation 1 on the training half."""
    found = {"breast-cancer": load_breast_cancer, "wine": load_wine}[name]()
    parts = train_test_split(found.data, found.target, test_size=0.5, stratify=found.target, random_state=0)
    train_x, test_x, train_y, test_y = map(torch.from_numpy, parts)
    mean, deviation = train_x.mean(0), train_x.std(0)
    return Split(((train_x - mean) / deviation).float(), train_y, ((test_x - mean) / deviation).float(), test_y)


@cache
def documentation() -> tuple[str, ...]:
    """The docstrings of scikit-learn's public classes and functions, in alphabetical order."""
    from sklearn.utils.discovery import all_estimators, all_functions

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated names warn when they are looked at
        members = [member for _, member in sorted((*all_estimators(), *all_functions()), key=lambda pair: pair[0])]
    return tuple(text for member in members if (text := inspect.getdoc(member)))


@cache
def sentences() -> tuple[str, ...]:
    """The first sentences of those docstrings, each once."""
    first = (text.split("\n\n")[0].replace("\n", " ").strip() for text in documentation())
    return tuple(dict.fromkeys(first))


@cache
def prose() -> str:
    """Running English for a character-level model: the descriptions of the datasets, then the docstrings."""
    folder = files("sklearn.datasets") / "descr"
    described = [path.read_text("utf-8") for path in sorted(folder.iterdir(), key=str) if path.name.endswith(".rst")]
    return "\n\n".join((*described, *documentation()))
