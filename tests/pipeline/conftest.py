"""Folders with tiny models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlb_core import DLBacktracePipeline
from pipeline import makers


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="session")
def sentiment(folder: Path) -> DLBacktracePipeline:
    return DLBacktracePipeline.create_simple(makers.sentiment(folder / "sentiment"))


@pytest.fixture(scope="session")
def seer(folder: Path) -> DLBacktracePipeline:
    return DLBacktracePipeline.create_simple(makers.seer(folder / "seer"))


@pytest.fixture(scope="session")
def writer(folder: Path) -> DLBacktracePipeline:
    return DLBacktracePipeline.create_simple(makers.writer(folder / "writer"))
