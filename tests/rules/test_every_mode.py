"""Every mode on a row of every shape that formulas get to see: the kit's properties, the dense oracle among them."""

from __future__ import annotations

import pytest

from dlb_core.kernel.modes import Mode
from dlb_core.kernel.ops import op_name
from dlb_core.testing.check import examine

from .cases import CASES
from .harness import pack

OPS = (
    "aten::linear.default",
    "aten::conv2d.default",
    "aten::conv_transpose1d.default",
    "aten::avg_pool2d.default",
    "aten::upsample_bicubic2d.default",
    "aten::fft_rfft.default",
    "aten::cumsum.default",
    "aten::index_add.default",
    "aten::matmul.default",
    "aten::addmm.default",
    "aten::scaled_dot_product_attention.default",
    "aten::softmax.int",
    "aten::add.Tensor",
    "aten::mul.Tensor",
    "aten::layer_norm.default",
    "aten::batch_norm.default",
    "aten::lstm.input",
)
COMPILED = (
    OPS[0],
    "aten::matmul.default",
    "aten::softmax.int",
    "aten::add.Tensor",
    "aten::batch_norm.default",
)  # it is slow
MODES = sorted(name for name, mode in pack().modes.items() if name not in ("default", "epsilon"))


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("op", OPS)
@pytest.mark.filterwarnings("ignore:There is a performance drop:UserWarning")
def test_every_mode(op: str, mode: str, request: pytest.FixtureRequest) -> None:
    rows = list(pack().rows.get(op, pack().rows.get(op.rpartition(".")[0], [])))
    assert rows, f"no row for {op}"
    cases = [case for case in CASES if op_name(case.op) == op][:1]
    assert cases, f"no case for {op}"
    turn = op in COMPILED and (COMPILED.index(op) + MODES.index(mode)) % 3 == 0  # every op, every mode
    compiled = turn or (op in COMPILED and request.config.getoption("--exhaustive"))
    left_out = () if compiled else ("compile",)
    for row in rows:
        report = examine(row, cases=cases, modes=[mode], registry=pack(), leave_out=left_out)
        if report.error is not None:
            raise report.error
        assert "conservation" in report.passed


@pytest.mark.parametrize("mode", MODES)
def test_a_mode_says_what_it_is(mode: str) -> None:
    found = pack().modes[mode]
    assert found.summary
    assert found.source
    assert found.pack == "builtin"
    if isinstance(found, Mode):
        assert "bias" in found.options
