"""The mode and the composite of docs/writing-a-pack.md, brought by a pack: listed, proved, used."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from fake_packs import site
from torch import nn

from dlb_core import DLBacktrace
from dlb_core.kernel.packs import registry
from dlb_core.testing import check_rule

PAGE = Path(__file__).parents[1] / "docs" / "writing-a-pack.md"
CODE = re.search(r"^## A mode$.*?^```python\n(?P<text>.*?)^```$", PAGE.read_text(), re.MULTILINE | re.DOTALL)


@pytest.fixture
def pack(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    assert CODE is not None
    with site(tmp_path, monkeypatch) as packs:
        packs.add("power", "DLB_API = 1\n" + CODE["text"], whole=True)
        yield


@pytest.mark.usefixtures("pack")
def test_they_are_modes_like_any_other() -> None:
    assert registry().modes["power"].pack == "power"
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3)).double().eval()
    x = torch.randn(2, 1, 6, 6, dtype=torch.float64)
    dlb = DLBacktrace(model, x)
    assert {"power", "sharp"} <= set(dlb.modes)
    for mode, options in (("power", {"power": 1.5}), ("sharp", {}), ("power", {"bias": "absorb"})):
        found = dlb.explain(x, mode=mode, target=1, **options)
        assert found.ledger.check() == []
    plain = dlb.explain(x, mode="power", power=1.0, target=1).inputs["input"]
    torch.testing.assert_close(plain, dlb.explain(x, mode="default", target=1).inputs["input"])
    rules = [row[3] for row in dlb.plan("sharp").table()]
    assert "power(power=3.0)/linear" in rules
    assert "epsilon/linear" in rules


@pytest.mark.usefixtures("pack")
@pytest.mark.parametrize("op", ["aten::linear", "aten::add.Tensor", "aten::matmul", "aten::layer_norm"])
def test_its_formulas_hold_every_property(op: str) -> None:
    check_rule(op, modes=["power"])
