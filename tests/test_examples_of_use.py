"""What a user types first, as it stands in the documents: on small models, with the names that results must have."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn as nn
import transformers
from generation.writers import END, prompt, writer
from torch import Tensor

from dlb_core import DLBacktrace, DLBAutoSampler


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.relu, self.pool = nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(64, 10)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.pool(self.relu(self.conv1(x))).flatten(1))


def test_predict_and_evaluation() -> None:
    model, x = Net().eval(), torch.randn(1, 3, 224, 224)
    dlb = DLBacktrace(model=model, input_for_graph=(x,), device="cpu")
    node_io = dlb.predict(x)
    for inputs, output in node_io.values():
        assert all(isinstance(t, Tensor) for t in inputs)
        assert output is not None
    assert node_io[list(node_io)[-1]][1].argmax() == model(x).argmax()
    relevance = dlb.evaluation(mode="default", multiplier=100.0, task="multi-class classification")
    assert relevance["x"].shape == x.shape
    assert relevance["conv2d"].shape == (1, 64, 224, 224)
    assert float(relevance["x"].sum()) == pytest.approx(100, rel=1e-4)


def bert() -> Any:
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = transformers.BertConfig(vocab_size=64, max_position_embeddings=64, num_labels=3, **sizes)
    return transformers.BertForSequenceClassification(config).eval()


def test_a_transformer_at_another_length_and_one_call() -> None:
    tokens = {"input_ids": torch.randint(1, 64, (1, 16)), "attention_mask": torch.ones(1, 16, dtype=torch.long)}
    dlb = DLBacktrace(bert(), input_for_graph=(tokens["input_ids"], tokens["attention_mask"]), device="cpu")
    ids, mask = torch.randint(1, 64, (1, 32)), torch.ones(1, 32, dtype=torch.long)
    dlb.predict(ids, mask)
    assert dlb.evaluation(mode="default")["input_ids"].shape == (1, 32)
    results = dlb.run_task(
        task="text-classification",
        inputs={"input_ids": ids, "attention_mask": mask},
        mode="default",
        multiplier=100.0,
    )
    assert 0 <= int(results["predictions"].argmax()) < 3
    assert results["relevance"]["input_ids"].shape == (1, 32)
    assert "output" in results["node_io"]


class Tokenizer:
    """The little of a tokenizer that generation asks for."""

    pad_token_id = 0

    def decode(self, ids: Tensor) -> str:
        return " ".join(map(str, ids.tolist()))


@pytest.fixture(scope="module")
def dlb() -> DLBacktrace:
    """Of a small LLaMA."""
    ids, mask = prompt()
    return DLBacktrace(writer("Llama"), {"input_ids": ids, "attention_mask": mask})


def test_a_sampler(dlb: DLBacktrace) -> None:
    model: Any = dlb.model
    input_ids = prompt()[0][1:]
    sampler = DLBAutoSampler(dlb=dlb, tokenizer=Tokenizer())
    torch.manual_seed(0)
    output = sampler.generate(input_ids=input_ids, max_new_tokens=12, temperature=0.8, top_p=0.9)
    torch.manual_seed(0)
    asked = {"max_new_tokens": 12, "temperature": 0.8, "top_p": 0.9}
    assert torch.equal(output, model.generate(input_ids, do_sample=True, **asked))
    output, info = sampler.generate(
        input_ids=input_ids, max_new_tokens=12, num_beams=4, return_relevance=True, dlb_tokens_count=10
    )
    assert torch.equal(output, model.generate(input_ids, num_beams=4, max_new_tokens=12, do_sample=False))
    written = output.shape[1] - 5
    assert len(info["relevance_trace"]) == min(10, written)
    assert info["relevance_trace"][0]["relevance"]["input_ids"].shape == (1, output.shape[1])
    assert END in output[0] or written == 12


def test_generation_in_one_call_has_its_traces(dlb: DLBacktrace) -> None:
    ids, mask = prompt()
    results = dlb.run_task(
        task="generation",
        inputs={"input_ids": ids, "attention_mask": mask},
        max_new_tokens=4,
        min_new_tokens=4,
        return_scores=True,
        return_relevance=True,
        return_layerwise_output=True,
        dlb_tokens_count=2,
    )
    assert results["generated_ids"].shape == (2, 9)
    assert len(results["scores_trace"]) == 4
    assert len(results["relevance_trace"]) == len(results["layerwise_output_trace"]) == 2
