"""Numbers at the edge of their range: nothing overflows, nothing is lost beyond the tolerance of the dtype."""

from __future__ import annotations

import pytest
import torch

from .harness import MODE_NAMES, MODES, ModeName, assert_conserved, bind_op
from .tensors import Tensors

aten = torch.ops.aten
every_mode = pytest.mark.parametrize("mode", MODES, ids=MODE_NAMES)


@every_mode
@pytest.mark.parametrize("size", [1e-12, 1e-20, 1e-30, 1e-40])
@pytest.mark.parametrize("value", [0.0, 1e-6, 1.0])
def test_weights_that_faded_away(mode: ModeName, size: float, value: float) -> None:
    """Weight decay leaves weights near zero, even denormal ones, on neurons that live by their bias."""
    arguments = {"input": torch.full((2, 3), value), "weight": torch.full((4, 3), size), "bias": torch.ones(4)}
    done = bind_op(aten.linear.default, arguments, ["input"], mode).back(torch.full((2, 4), 100.0))
    assert_conserved(done)
    assert bool(torch.isfinite(done["input"]).all())


@every_mode
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("scale", [1e-15, 1e15])
def test_small_and_large_activations(mode: ModeName, dtype: torch.dtype, scale: float) -> None:
    t = Tensors(1, dtype)
    arguments = {"input": t(3, 5) * scale, "weight": t(4, 5), "bias": t(4)}
    done = bind_op(aten.linear.default, arguments, ["input"], mode).back(t.normal(3, 4))
    assert_conserved(done)
    assert bool(torch.isfinite(done["input"]).all())


@every_mode
@pytest.mark.parametrize("active", [("mat1",), ("mat1", "mat2")], ids=",".join)
def test_a_map_that_is_small_beside_its_bias(mode: ModeName, active: tuple[str, ...]) -> None:
    """The output has lost the map's digits, so what the map says alone is not output - bias."""
    t = Tensors(1, torch.float32)
    arguments = {"mat1": t(3, 5) * 1e-2, "mat2": t(5, 4) * 1e-2, "self": t(4) * 1e3}
    assert_conserved(bind_op(aten.addmm.default, arguments, active, mode).back(t.normal(3, 4)))


@every_mode
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_models_conserve_in_float32(mode: ModeName, dtype: torch.dtype) -> None:
    """The output was rounded to the model's dtype, so a node may miss the ledger by that much: 2e-2 of sum |R|."""
    t = Tensors(1, dtype)
    arguments = {"input": t(2, 64), "weight": t(8, 64), "bias": t(8)}
    r = torch.full((2, 8), 10.0)
    done = bind_op(aten.linear.default, arguments, ["input"], mode).back(r)
    assert done["input"].dtype == torch.float32
    flown = float(r.abs().sum() + done["input"].abs().sum()) + sum(map(abs, done.accounts.values()))
    assert abs(float(r.sum() - done["input"].sum()) - sum(done.accounts.values())) <= 2e-2 * flown
