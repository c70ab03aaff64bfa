"""What every test runs under: a torchvision that imports, few threads, the same examples on every run."""

from __future__ import annotations

import os

import pytest
import torch
import torchvision_stub
from hypothesis import HealthCheck, settings

torchvision_stub.register()
# Several test processes share the cores; `OMP_NUM_THREADS` decides when it is given.
torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS") or 1))

settings.register_profile("dlb", derandomize=True, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("dlb")


def pytest_addoption(parser: pytest.Parser) -> None:
    help = "every model of the matrix and every family of experts, not the fast ones only"
    parser.getgroup("models").addoption("--all-models", action="store_true", help=help)
    help = "every cross product, not a part of each that has all of its factors (marked `exhaustive`)"
    parser.getgroup("models").addoption("--exhaustive", action="store_true", help=help)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--exhaustive"):
        left_out = [item for item in items if item.get_closest_marker("exhaustive")]
        items[:] = [item for item in items if not item.get_closest_marker("exhaustive")]
        config.hook.pytest_deselected(items=left_out)
