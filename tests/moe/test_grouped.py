"""Torch's grouped product and transformers' own: the form in which experts are traced without the pack's op."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
import transformers.integrations.moe  # defines its op
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from dlb_core import DLBacktrace, UnsupportedOpError
from dlb_core.kernel.packs import registry, using
from dlb_core.testing import bind_op, check_rule, oracle
from dlb_ops_moe import DLB_CASES
from dlb_ops_moe.op import expert_linear

GROUPED = torch.ops.aten._grouped_mm.default
FALLBACK = torch.ops.transformers.grouped_mm_fallback.default
NAMES = {GROUPED: ("self", "mat2"), FALLBACK: ("input", "weight")}
OWN = torch.ops.dlb_moe.expert_linear.default
MODES = [(name, bias) for name in oracle.MODES for bias in ("absorb", "redistribute")]
IDS = torch.tensor([[5, 9, 2, 30, 11], [7, 7, 8, 3, 21]])
either = pytest.mark.parametrize("op", NAMES, ids=["torch", "transformers"])


def drawn(rows: int, *ends: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    """Rows, maps and offsets; widths of whole 16 bytes, which torch's kernel asks for."""
    g = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(rows, 8, generator=g), torch.randn(len(ends), 8, 16, generator=g)
    return x.to(dtype), weight.to(dtype), torch.tensor(ends, dtype=torch.int32)


def arguments(op: Any, x: Tensor, weight: Tensor, offs: Tensor) -> dict[str, Tensor]:
    return dict(zip((*NAMES[op], "offs"), (x, weight, offs), strict=True))


@either
@settings(max_examples=25)
@given(st.lists(st.integers(0, 3), min_size=1, max_size=4), st.integers(0, 3), st.sampled_from(MODES))
def test_relevance_is_that_of_expert_linear(op: Any, sizes: list[int], more: int, mode: tuple[str, str]) -> None:
    """Experts without rows, and rows beyond the last expert's, which are nobody's and give nothing on."""
    ends = torch.tensor(sizes).cumsum(0).tolist()
    rows = ends[-1]
    if not rows + more:
        return
    x, weight, offs = drawn(rows + more, *ends)
    r = torch.randn(rows + more, 16, generator=torch.Generator().manual_seed(7))
    done = bind_op(op, arguments(op, x, weight, offs), [NAMES[op][0]], mode).back(r)
    index = torch.tensor([expert for expert, size in enumerate(sizes) for _ in range(size)], dtype=torch.int64)
    alone = {"x": x[:rows], "index": index, "weight": weight, "transposed": True}
    expected = bind_op(OWN, alone, ["x"], mode).back(r[:rows])
    torch.testing.assert_close(done.output[:rows], expected.output)
    assert not done.output[rows:].any()
    got = done[NAMES[op][0]]
    torch.testing.assert_close(got[:rows], expected["x"], rtol=1e-4, atol=1e-4)
    assert not got[rows:].any()
    beyond = float(r[rows:].sum())
    kept = sum(done.accounts.values()) - sum(expected.accounts.values())
    assert kept == pytest.approx(beyond, rel=1e-3, abs=1e-3)


def test_rows_that_are_nobodys_are_zero_whatever_lies_in_memory() -> None:
    """Torch leaves them as it finds them."""
    x, weight, offs = drawn(6, 1, 3)
    trash = torch.full((6, 16), float("nan"))
    del trash  # its memory is what the next product of that size is likely to get
    bound = bind_op(GROUPED, arguments(GROUPED, x, weight, offs), ["self"])
    assert torch.equal(bound.output[3:], torch.zeros(3, 16))


@pytest.mark.parametrize(
    ("forms", "words"),
    [
        ({"self": (8, 16), "mat2": (16, 8), "offs": (8, 16)}, "2-d by 2-d"),
        ({"self": (2, 8, 8), "mat2": (8, 16), "offs": (8, 16)}, "3-d by 2-d"),
        ({"self": (2, 8, 8), "mat2": (2, 8, 8)}, "3-d by 3-d"),
    ],
)
def test_other_forms_are_refused_with_a_reason(forms: dict[str, tuple[int, ...]], words: str) -> None:
    tensors = {n: torch.tensor(s, dtype=torch.int32) if n == "offs" else torch.randn(s) for n, s in forms.items()}
    with pytest.raises(UnsupportedOpError, match=f"only rows by expert have a rule.*this is {words}"):
        bind_op(GROUPED, tensors, ["self"])


@either
@pytest.mark.parametrize("mode", ["epsilon", "default"])
def test_the_row_holds_what_the_kit_asks(op: Any, mode: str) -> None:
    """Also where the weights are explained themselves, and in half precision where torch's kernel takes it."""
    cases = [case for case in DLB_CASES() if case.op is op]
    assert cases
    check_rule("aten::_grouped_mm" if op is GROUPED else "transformers::grouped_mm_fallback", cases=cases, modes=[mode])


def test_the_rows_need_no_transformers() -> None:
    """They name its op; it is looked for only where a graph has it."""
    import subprocess
    import sys

    code = "import sys, dlb_ops_moe; dlb_ops_moe.dlb_rules(); assert 'transformers' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.fixture(scope="module")
def both() -> tuple[DLBacktrace, DLBacktrace]:
    """One mixture traced with the pack's op, and as transformers writes it."""
    config = transformers.OlmoeConfig(
        **{"vocab_size": 32, "hidden_size": 16, "intermediate_size": 8, "num_hidden_layers": 1, "num_experts": 4},
        **{"num_attention_heads": 2, "num_key_value_heads": 2, "num_experts_per_tok": 2, "pad_token_id": 0},
        **{"eos_token_id": 1, "use_cache": False},
    )
    torch.manual_seed(0)
    model = transformers.OlmoeForCausalLM(config).eval().double()
    assert model.config._experts_implementation == "grouped_mm"
    ours = DLBacktrace(model, (IDS,))
    with using(dataclasses.replace(registry(), lends=[])):
        return ours, DLBacktrace(model, (IDS,))


@pytest.mark.parametrize("mode", ["epsilon", "default", "attnlrp"])
def test_a_model_traced_in_that_form_gives_the_same(both: tuple[DLBacktrace, DLBacktrace], mode: str) -> None:
    """Forward, relevance, books."""
    ops = [{data["op"] for _, data in dlb.graph().nodes(data=True) if "op" in data} for dlb in both]
    assert "dlb_moe::expert_linear.default" in ops[0] - ops[1]
    assert "transformers::grouped_mm_fallback.default" in ops[1] - ops[0]
    ours, theirs = (dlb.explain(IDS, mode=mode) for dlb in both)
    torch.testing.assert_close(ours.output, theirs.output)
    torch.testing.assert_close(ours.inputs["input_ids"], theirs.inputs["input_ids"])
    assert ours.ledger.accounts == pytest.approx(theirs.ledger.accounts, abs=1e-9)


def test_expert_linear_agrees_with_torchs_kernel() -> None:
    x, weight, offs = drawn(7, 2, 2, 7)
    index = torch.tensor([0, 0, 2, 2, 2, 2, 2])
    torch.testing.assert_close(expert_linear(x, index, weight, None, True), torch._grouped_mm(x, weight, offs=offs))
