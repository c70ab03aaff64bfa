"""`run_task`: one call for each task; what it decides, what it says, and what it refuses."""

from __future__ import annotations

import subprocess
import sys
from functools import cache
from typing import Any

import pytest
import torch
import transformers
from pipeline.makers import wordpiece
from torch import Tensor, nn
from zoo import CASES, SLIM, VOCABULARY, randomised, traced

from dlb_core import DLBacktrace, Explanation, TaskResult


class Segmenter(nn.Module):
    """Classes at pixels: [B, 3, H, W] -> [B, 4, H, W]."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class Table(nn.Module):
    """Numbers and categories: [B, 3] and [B, 2] -> [B, 1]."""

    def __init__(self) -> None:
        super().__init__()
        self.kinds, self.head = nn.Embedding(5, 2), nn.Linear(7, 1)

    def forward(self, numbers: Tensor, kinds: Tensor) -> Tensor:
        return self.head(torch.cat([numbers, self.kinds(kinds).flatten(1)], 1).tanh())


class Detector(nn.Module):
    """Scores and boxes of six queries: [B, 3] -> [B, 6, 3] and [B, 6, 4]."""

    def __init__(self) -> None:
        super().__init__()
        self.queries, self.scores, self.boxes = nn.Linear(3, 6 * 8), nn.Linear(8, 3), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.queries(x).unflatten(1, (6, 8)).relu()
        return {"logits": self.scores(found), "pred_boxes": self.boxes(found).sigmoid()}


def seeded(build: Any) -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return randomised(build()).eval()


def bert(kind: Any, **config: Any) -> nn.Module:
    return seeded(
        lambda: kind(transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=40, **SLIM, **config))
    )


@cache
def explainer(name: str) -> tuple[DLBacktrace, Any]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        numbers, images = torch.randn(2, 3), torch.randn(2, 3, 8, 8)
    text = CASES["bert-sdpa"].example(2, 7)
    shared = {"text": "bert-sdpa", "image": "net", "numbers": "mlp"}
    if name in shared:
        return traced(shared[name]), CASES[shared[name]].example()
    if name == "table":
        model, x = seeded(Table), (numbers, torch.tensor([[0, 1], [4, 2]]))
    elif name == "tokens":
        model, x = bert(transformers.BertForTokenClassification, num_labels=5), text
    elif name == "features":
        model, x = bert(transformers.BertModel), text
    elif name == "pixels":
        model, x = seeded(Segmenter), images
    elif name == "queries":
        model, x = seeded(Detector), numbers
    else:
        model, x = CASES["llama-sdpa"].model(), CASES["llama-sdpa"].example(1, 6)
    return DLBacktrace(model, x, tracer="tape"), x


TASKS = {
    "text": "text-classification",
    "image": "image-classification",
    "table": "tabular-classification",
    "numbers": "tabular-classification",
    "tokens": "token-classification",
    "pixels": "segmentation",
    "queries": "detection",
}


@pytest.mark.parametrize("name", TASKS)
def test_one_call_does_what_predict_and_evaluation_do(name: str) -> None:
    """Named or decided, the task gives the same; the numbers are those of the two calls."""
    dlb, x = explainer(name)
    asked = dlb.run_task(task=TASKS[name], inputs=x, mode="default", multiplier=100.0)
    found = dlb.run_task(inputs=x)
    assert found["task"] == asked["task"] == TASKS[name]
    assert "as asked" in asked["decided"]
    assert TASKS[name] in found["decided"]
    assert "as asked" not in found["decided"]
    assert {"task", "node_io", "relevance", "predictions", "explanation", "decided"} <= set(found)
    node_io = dlb.predict(x)
    assert torch.equal(found["predictions"], node_io["output"].output)
    assert list(found["node_io"]) == list(node_io)
    if name != "tokens":  # which evaluation has no default for
        expected = dlb.evaluation()
        for key, value in expected.inputs.items():
            assert torch.equal(found["relevance"][key], value)
            assert torch.equal(asked.relevance[key], value)
    assert isinstance(found["explanation"], Explanation)
    assert found["explanation"].ledger.seed == pytest.approx(100.0 * len(found["predictions"]), rel=1e-4)


def test_the_example_of_one_call() -> None:
    dlb, x = explainer("text")
    ids, mask = x["input_ids"], x["attention_mask"]
    results = dlb.run_task(
        task="text-classification",
        inputs={"input_ids": ids, "attention_mask": mask},
        mode="default",
        multiplier=100.0,
    )
    assert 0 <= results["predictions"][0].argmax() < 3
    assert results["relevance"]["input_ids"].shape == ids.shape
    assert list(results["node_io"])[-1] == "output"
    assert dlb.all_layer_expert_relevance == {}


def test_arguments_reach_the_evaluation() -> None:
    dlb, x = explainer("image")
    found = dlb.run_task(inputs=x, mode="epsilon", target=3, scaler=2.0, multiplier=7.0, temperature=0.5, eps=1e-3)
    explained = dlb.explain(x, mode="epsilon", target=3, scaler=2.0, multiplier=7.0, temperature=0.5, eps=1e-3)
    assert torch.equal(found["relevance"]["x"], explained.inputs["x"])
    assert torch.equal(found["predictions"], explained.output)
    assert found.explanation.options == explained.options
    several = dlb.run_task(inputs=x, targets=[0, 1], seed="logit")
    assert several["relevance"]["x"].shape == (2, *x["x"].shape)


def test_tokens_without_a_target_are_all_explained_but_padding() -> None:
    dlb, x = explainer("tokens")
    found = dlb.run_task(inputs=x)
    seed = found["relevance"]["output"]
    winners = found["predictions"].argmax(-1)
    for sample, real in enumerate(x["attention_mask"].sum(1).tolist()):
        expected = torch.zeros_like(seed[sample])
        expected[range(real), winners[sample, :real]] = 100 / real
        torch.testing.assert_close(seed[sample], expected)
    assert "winning classes" in found["decided"]
    one = dlb.run_task("token-classification", x, target=(2, 1))
    assert one["relevance"]["output"].nonzero().tolist() == [[0, 2, 1], [1, 2, 1]]
    assert "winning" not in one["decided"]


def test_a_threshold_decides_between_two() -> None:
    dlb, x = explainer("table")
    low = dlb.run_task(inputs=x, thresholding=0.0)
    high = dlb.run_task(inputs=x, thresholding=1.0)
    assert low["relevance"].target == [1, 1]
    assert high["relevance"].target == [0, 0]
    two = DLBacktrace(nn.Linear(4, 2).eval(), y := torch.randn(3, 4))
    assert two.run_task(inputs=y, thresholding=0.0)["relevance"].target == [1, 1, 1]
    assert two.run_task(inputs=y, thresholding=1.0)["relevance"].target == [0, 0, 0]
    values = dlb.run_task("regression", x)
    assert torch.equal(values["relevance"]["output"].sign(), values["predictions"].sign())


def test_a_recorded_model_is_explained_in_one_call() -> None:
    """With the tape every call has an engine of its own, and the task is told from that one."""
    x = torch.randn(4, 6)
    dlb = DLBacktrace(CASES["mlp"].model(), x, tracer="tape")
    found = dlb.run_task(inputs=x[:3])
    (name,) = found["relevance"].inputs
    assert found["task"] == "tabular-classification"
    assert found["relevance"][name].shape == (3, 6)


def test_a_result_is_read_only_and_says_what_it_holds() -> None:
    dlb, x = explainer("numbers")
    found = dlb.run_task(inputs=x)
    assert found.predictions is found["predictions"]
    with pytest.raises(AttributeError, match="read only"):
        found.predictions = None  # type: ignore[misc]
    with pytest.raises(TypeError):
        found["predictions"] = None  # type: ignore[index]
    with pytest.raises(KeyError, match="predictions"):
        found["prediction"]
    with pytest.raises(AttributeError, match="no 'prediction'"):
        _ = found.prediction
    assert "tabular-classification" in repr(found)
    more = found.with_more(name="one")
    assert isinstance(more, TaskResult)
    assert (more["name"], "name" in found) == ("one", False)


def test_what_was_decided_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    dlb, x = explainer("image")
    with caplog.at_level("INFO", logger="dlb"):
        found = dlb.run_task(inputs=x)
    assert found["decided"] in caplog.text


@pytest.mark.parametrize(
    ("name", "arguments", "why"),
    [
        ("image", {"task": "image"}, "image-classification"),
        ("image", {"return_scores": True}, "return_scores= belongs to task='generation'"),
        ("image", {"return_relevance": True}, "always holds"),
        ("image", {"return_layerwise_output": True}, "always holds"),
        ("image", {"max_new_tokens": 3}, "max_new_tokens"),
        ("image", {"tokenizer": object()}, "tokenizer"),
        ("image", {"task": "image-classification", "tokenizer": object()}, "tokenizer"),
        ("image", {"task": "text-classification"}, "no input holds ids"),
        ("image", {"task": "segmentation"}, "4 dimensions"),
        ("text", {"task": "image-classification"}, "no input is an image"),
        ("tokens", {"task": "text-classification"}, "try task='auto'"),
        ("features", {}, "features, no classes"),
        ("image", {"thresholding": 0.7}, "thresholding"),
        ("image", {"temperature": 0.0}, "temperature"),
        ("image", {"multiplier": float("nan")}, "multiplier"),
        ("image", {"inputs": None}, "empty"),
        ("text", {"inputs": {}}, "empty"),
        ("text", {"inputs": "a text"}, "tokenizer"),
        ("text", {"inputs": ["a text"]}, "tokenizer"),
        ("image", {"task": "generation"}, "generate"),
        ("writer", {"target": 3}, "explain_tokens"),
        ("writer", {"thresholding": 0.7}, "thresholding"),
        ("writer", {"multiplier": 3.0}, "return_relevance"),
        ("writer", {"inputs": {"attention_mask": torch.ones(1, 3)}}, "input_ids"),
    ],
    ids=lambda value: value if isinstance(value, str) and len(value) < 12 else None,
)
def test_what_does_not_belong_is_refused(name: str, arguments: dict[str, Any], why: str) -> None:
    dlb, x = explainer(name)
    with pytest.raises(ValueError, match=why):
        dlb.run_task(**{"inputs": x, **arguments})


def test_generation_in_one_call() -> None:
    dlb, x = explainer("writer")
    plain = dlb.run_task(inputs=x, max_new_tokens=4)
    assert plain["task"] == "generation"
    assert "writes text" in plain["decided"]
    assert (plain["relevance"], plain["explanation"]) == (None, None)
    assert not {"scores_trace", "relevance_trace", "layerwise_output_trace"} & set(plain)
    expected = dlb.model.generate(**x, max_new_tokens=4, do_sample=False)
    assert torch.equal(plain["generated_ids"], expected)
    by_place = dlb.run_task(inputs=(x["input_ids"], x["attention_mask"]), max_new_tokens=4)
    assert torch.equal(by_place["generated_ids"], expected)
    found = dlb.run_task(
        "generation",
        x,
        mode="epsilon",
        max_new_tokens=4,
        return_scores=True,
        return_relevance=True,
        return_layerwise_output=True,
        dlb_tokens_count=2,
    )
    assert torch.equal(found["generated_ids"], expected)
    assert found["relevance"].shape == (1, 2, 10)
    assert [len(found[f"{name}_trace"]) for name in ("scores", "relevance", "layerwise_output")] == [4, 2, 2]
    alone = dlb.explain({**x}, mode="epsilon")
    torch.testing.assert_close(found["relevance"][:, 0, :6], alone.inputs["input_ids"], atol=1e-3, rtol=1e-3)


def test_texts_in_words_out() -> None:
    tokenizer = wordpiece()
    model = bert(transformers.BertForSequenceClassification)
    model.resize_token_embeddings(len(tokenizer))  # type: ignore[operator]
    dlb = DLBacktrace(
        model, {name: tokenizer("a", return_tensors="pt")[name] for name in ("input_ids", "attention_mask")}
    )
    found = dlb.run_task(inputs=["A terrible product", "amazing"], tokenizer=tokenizer)
    assert " product" in found["explanation"].text().tokens
    assert found["task"] == "text-classification"
    assert [[word.text for word in words] for words in found["words"]] == [["A", "terrible", "product"], ["amazing"]]
    for words, row in zip(found["words"], found["relevance"]["input_ids"], strict=True):
        assert words.total == pytest.approx(float(row.sum()), rel=1e-5)
    assert found["tokens"][1][0] == "[CLS]"
    assert found["predictions"].shape == (2, 2)
    of_ids = dlb.run_task(inputs={n: found["node_io"][n].output for n in dlb.input_names})
    assert torch.equal(of_ids["relevance"]["input_ids"], found["relevance"]["input_ids"])


def test_embeddings_are_text() -> None:
    model = CASES["bert-sdpa"].model()
    embedded = {"inputs_embeds": torch.randn(2, 5, 32), "attention_mask": torch.ones(2, 5, dtype=torch.int64)}
    dlb = DLBacktrace(model, embedded)
    found = dlb.run_task(inputs=embedded)
    assert found["task"] == "text-classification"
    assert "'inputs_embeds' holds a text" in found["decided"]
    with pytest.raises(ValueError, match="no input holds ids"):
        dlb.run_task(inputs=embedded, tokenizer=wordpiece())


def test_temperature_of_a_generation_is_that_of_sampling() -> None:
    dlb, x = explainer("writer")
    found = dlb.run_task(inputs=x, max_new_tokens=6, temperature=5.0, generator=torch.Generator().manual_seed(3))
    again = dlb.run_task(inputs=x, max_new_tokens=6, temperature=5.0, generator=torch.Generator().manual_seed(3))
    greedy = dlb.run_task(inputs=x, max_new_tokens=6)
    assert torch.equal(found["generated_ids"], again["generated_ids"])
    assert not torch.equal(found["generated_ids"], greedy["generated_ids"])


LAZY = """
import sys
import dlb_core, dlb_core.pipeline
assert not {"torch", "transformers", "torchvision", "tokenizers", "PIL"} & set(sys.modules)
dlb_core.DLBacktracePipeline, dlb_core.ModelRegistry, dlb_core.PipelineConfig, dlb_core.TaskResult
dlb_core.DLBacktracePipeline.create_simple()
assert not {"transformers", "torchvision", "tokenizers", "PIL"} & set(sys.modules)
"""


def test_nobody_pays_for_what_is_not_used() -> None:
    done = subprocess.run([sys.executable, "-c", LAZY], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
