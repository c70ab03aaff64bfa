"""The files of a new pack; ``PACKAGE`` and ``DISTRIBUTION`` stand for its names."""

PYPROJECT = """\
[build-system]
requires = ["hatchling>=1.26"]
build-backend = "hatchling.build"

[project]
name = "DISTRIBUTION"
version = "0.1.0"
description = "Relevance rules for dlb"
requires-python = ">=3.11"
dependencies = ["dlb-core"]

[project.optional-dependencies]
test = ["pytest>=8"]

[project.entry-points."dlb.packs"]
PACKAGE = "PACKAGE"

[tool.hatch.build.targets.wheel]
packages = ["PACKAGE"]

[tool.pytest.ini_options]
testpaths = ["tests"]
"""

README = """\
# DISTRIBUTION

Relevance rules for [dlb](https://pypi.org/project/dlb-core/): an op and a layer to start from.

    pip install -e '.[test]'
    pytest                 # the conformance kit on every rule
    dlb check PACKAGE      # the same, as a table
    dlb ops PACKAGE        # the rows of this pack
"""

INIT = '''\
"""A pack for dlb: one op, one layer, and their rules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from dlb_core.rules import BoundMode, Call, Row, Shares, elementwise, hookimpl, layer_rule

if TYPE_CHECKING:
    from dlb_core.testing import Case

DLB_API = 1


@torch.library.custom_op("PACKAGE::swish", mutates_args=())
def swish(x: Tensor) -> Tensor:
    """An activation that no pack knows: x * sigmoid(1.5 * x)."""
    return x * torch.sigmoid(1.5 * x)


swish.register_fake(torch.empty_like)


class Blend(nn.Module):
    """A layer that is one node in an explanation: its input beside its input, half and half."""

    def __init__(self, size: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(size))

    def forward(self, x: Tensor) -> Tensor:
        return 0.5 * x + 0.5 * self.scale * torch.tanh(x)


# What an op is; every mode then knows how relevance goes through it.
RULES: list[Row] = [
    elementwise("PACKAGE::swish"),
]


@layer_rule(Blend)
def blend(call: Call, r: Tensor, mode: BoundMode) -> Shares:
    """R_x = R_y: the layer is one-to-one."""
    return Shares({"input": r})


LAYER_RULES: list[Row] = [blend]


@hookimpl
def dlb_rules() -> list[Row]:
    return RULES


@hookimpl
def dlb_layer_rules() -> list[Row]:
    return LAYER_RULES


def DLB_CASES() -> list[Case]:
    """Arguments that `dlb check` cannot guess: those of layers, and of ops that refuse small tensors."""
    from dlb_core.testing import Case

    def arguments(t: Any) -> dict[str, Any]:
        return {"x": t(2, 4)}

    return [Case(Blend, arguments, ("x",), batch=("x",), module=lambda: Blend(4))]
'''

TESTS = '''\
"""Every rule of the pack holds what a rule has to hold, and explains a model."""

import torch
from torch import nn

import PACKAGE
from dlb_core import DLBacktrace
from dlb_core.testing import check_rule, isolated_registry, parametrize_rules


@parametrize_rules([*PACKAGE.RULES, *PACKAGE.LAYER_RULES])
def test_rule(rule):
    with isolated_registry("builtin", PACKAGE):
        check_rule(rule, cases=PACKAGE.DLB_CASES())


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.before, self.blend, self.after = nn.Linear(3, 4), PACKAGE.Blend(4), nn.Linear(4, 2)

    def forward(self, x):
        return self.after(self.blend(torch.ops.PACKAGE.swish(self.before(x))))


def test_a_model_is_explained():
    x = torch.randn(2, 3)
    with isolated_registry("builtin", PACKAGE):
        ledger = DLBacktrace(Model().eval(), x).explain(x, mode="epsilon").ledger
    assert {entry.pack for entry in ledger.by_node.values()} == {"builtin", "PACKAGE"}
'''

FILES = {
    "pyproject.toml": PYPROJECT,
    "README.md": README,
    "PACKAGE/__init__.py": INIT,
    "PACKAGE/py.typed": "",
    "tests/test_pack.py": TESTS,
}
