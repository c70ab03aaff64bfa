"""How often a writer is traced: once more for the inputs of its own generation, or not at all where they are there."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from dlb_core import DLBacktrace
from dlb_core.generation import DLBAutoSampler
from dlb_core.generation.text import example_of

from .writers import prompt, writer


def test_a_trace_for_writing_serves_the_sampler(monkeypatch: pytest.MonkeyPatch) -> None:
    model = writer("GPT2")
    ids, mask = prompt()
    inputs, names = example_of(model, {"input_ids": ids, "attention_mask": mask})
    dlb = DLBacktrace(model, inputs, explain_inputs=names)
    other = DLBAutoSampler(dlb.retraced({n: t for n, t in inputs.items() if n != "position_ids"}))
    _, expected = other.generate(ids, mask, max_new_tokens=3, return_relevance=True, mode="epsilon")
    monkeypatch.setattr(DLBacktrace, "retraced", lambda *_, **__: pytest.fail("traced once more"))
    _, info = DLBAutoSampler(dlb).generate(ids, mask, max_new_tokens=3, return_relevance=True, mode="epsilon")
    torch.testing.assert_close(info.relevance, expected.relevance)


def test_another_trace_has_the_settings_of_the_first() -> None:
    model, x = nn.Linear(3, 2).double().eval(), torch.randn(1, 3, dtype=torch.float64)
    dlb = DLBacktrace(model, x, check="ends", relevance_dtype=torch.float32, dynamic_shapes=None)
    again = dlb.retraced(x.expand(5, 3))
    assert again.model is model
    assert again.check == "ends"
    assert again.explain(x.expand(4, 3)).inputs["input"].dtype == torch.float32
