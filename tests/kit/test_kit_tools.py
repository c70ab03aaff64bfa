"""What the kit offers beside `check_rule`: registries, pytest's decorator, hypothesis strategies, lazy imports."""

from __future__ import annotations

import subprocess
import sys
import threading
from types import ModuleType
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from dlb_core import DLBacktrace, PackError, UnsupportedOpError, testing
from dlb_core.kernel.packs import registry
from dlb_core.rules import elementwise, hookimpl, move
from dlb_core.testing import check_rule, isolated_registry, parametrize_rules, strategies
from dlb_core.testing.tensors import Tensors

from .wrong import KIT


class Curve(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = KIT.curve(x)
        return y


@pytest.fixture
def curves(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """A pack module that is not installed."""
    module = ModuleType("kit_curves")
    module.DLB_API = 1  # type: ignore[attr-defined]
    module.dlb_rules = hookimpl(lambda: [elementwise("kit::curve")])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kit_curves", module)
    return module


def test_an_isolated_registry_holds_what_was_chosen_and_goes_again(curves: ModuleType) -> None:
    x, before = torch.ones(2, 3), registry()
    with isolated_registry("builtin", curves) as found:
        assert registry() is found
        assert found.loaded == ["builtin", "kit_curves"]
        assert DLBacktrace(Curve().eval(), x).explain(x).ledger.inputs == {"x": 200.0}
        with isolated_registry("builtin", rows=[move("kit::curve", back=lambda r, call: r)]) as inner:
            assert inner.loaded == ["builtin"]
            assert inner.rows["kit::curve"][0].kind == "move"
        assert registry() is found
    assert registry() is before
    with pytest.raises(UnsupportedOpError):
        DLBacktrace(Curve().eval(), x)


def test_an_isolated_registry_comes_back_after_an_error_and_stays_in_its_thread() -> None:
    before, seen = registry(), []

    def looked_at_elsewhere() -> None:
        with isolated_registry("builtin"):
            thread = threading.Thread(target=lambda: seen.append(registry()))
            thread.start()
            thread.join()
            raise RuntimeError("the test fails")

    with pytest.raises(RuntimeError, match="the test fails"):
        looked_at_elsewhere()
    assert seen == [before]
    assert registry() is before


def test_an_isolated_registry_refuses_what_is_broken() -> None:
    with pytest.raises(PackError, match="no such pack; there are: builtin"), isolated_registry("cuda"):
        pass
    broken = ModuleType("kit_broken")
    with pytest.raises(PackError, match="pack kit_broken: "), isolated_registry(broken):
        pass


@pytest.fixture
def alone() -> Any:
    with isolated_registry("builtin") as found:
        yield found


def test_an_isolated_registry_is_a_fixture(alone: Any) -> None:
    assert registry() is alone


LOSES = move("kit::curve", back=lambda r, call: r / 2)


@parametrize_rules([elementwise("aten::relu"), LOSES], expected_failures={"kit::curve": "half is lost"})
def test_a_rule_of_a_table(rule: Any) -> None:
    check_rule(rule, modes=["default"])


def test_an_expected_failure_is_strict_and_has_to_be_a_row() -> None:
    mark = parametrize_rules([LOSES], expected_failures={"kit::curve": "half is lost"}).mark
    (param,) = mark.args[1]
    assert (mark.args[0], param.id) == ("rule", "kit::curve")
    assert param.marks[0].kwargs == {"reason": "half is lost", "raises": AssertionError, "strict": True}
    with pytest.raises(ValueError, match="expected_failures names kit::curv: the rows are for kit::curve"):
        parametrize_rules([LOSES], expected_failures={"kit::curv": "?"})


@given(st.data())
def test_strategies_draw_what_they_say(data: st.DataObject) -> None:
    made = data.draw(strategies.tensors(dtypes=(torch.float64, torch.float32), signs=("positive",)))
    assert made.dtype in (torch.float64, torch.float32)
    assert bool((made >= 0).all())
    a, b = data.draw(strategies.broadcast_pair())
    torch.broadcast_shapes(a, b)
    shape = data.draw(strategies.shapes(1, 3))
    assert -len(shape) <= data.draw(strategies.dim_of(shape)) < len(shape)
    ids = data.draw(strategies.indices(3, shape))
    assert ids.shape == shape
    assert ids.dtype == torch.int64
    assert bool(((ids >= 0) & (ids < 3)).all())


@given(strategies.tensors((3, 4), layouts=("reversed", "strided", "offset")))
def test_strides_are_not_contiguous(made: Tensor) -> None:
    assert not made.is_contiguous() or made.storage_offset() > 0


def test_signs_and_distinct_values() -> None:
    assert Tensors(1, signs="zero")(3).tolist() == [0, 0, 0]
    t = Tensors(1, signs="distinct")
    values = torch.cat([t(4), t(2, 3).flatten()])
    assert len(values.unique()) == 10


WITHOUT = """
import sys
for name in ("hypothesis", "pytest"):
    sys.modules[name] = None  # as if it were not installed
import dlb_core.testing as testing
from dlb_core.testing import Case, check_rule, isolated_registry, Tensors
for name in ("strategies", "parametrize_rules"):
    try:
        getattr(testing, name)
    except ImportError as error:
        print(error)
"""


def test_the_kit_needs_hypothesis_and_pytest_only_where_it_uses_them() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [
        "dlb_core.testing.strategies needs hypothesis: pip install hypothesis",
        "dlb_core.testing.parametrize_rules needs pytest: pip install pytest",
    ]


def test_public_names_are_there() -> None:
    for name in testing.__all__:
        assert getattr(testing, name) is not None
    assert dir(testing) == sorted(testing.__all__)
    with pytest.raises(AttributeError, match="no attribute 'check_rules'"):
        _ = testing.check_rules
