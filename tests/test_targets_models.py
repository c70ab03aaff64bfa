"""Targets of real models: tokens, next tokens of padded batches, several outputs, detectors; small, random weights."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
import transformers
from matrix import detection
from torch import Tensor, nn
from zoo import CASES, SLIM, VOCABULARY, randomised

from dlb_core import Contrast, DLBacktrace, Explanation, Query


@cache
def traced(build: Any, output: str | int | None, *shape: int) -> tuple[nn.Module, DLBacktrace, Tensor]:
    """A detector, its explainer, and the images it was traced with."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model, x = randomised(build()).eval(), torch.randn(shape)
        return model, DLBacktrace(model, x, output=output, tracer="tape"), x


def detr(output: str = "logits") -> tuple[nn.Module, DLBacktrace, Tensor]:
    return traced(detection.detr, output, 2, 3, 64, 64)


def units(explained: Explanation) -> dict[tuple[int, ...], float]:
    """Where the seed lies: place -> units, rounded."""
    seed = explained.relevance["output"]
    return {tuple(place): round(float(seed[tuple(place)]), 3) for place in seed.nonzero().tolist()}


# text


@cache
def tokens() -> tuple[DLBacktrace, dict[str, Tensor]]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.BertConfig(vocab_size=VOCABULARY, max_position_embeddings=40, num_labels=5, **SLIM)
        model = randomised(transformers.BertForTokenClassification(config)).eval()
    x = CASES["bert-sdpa"].example(2, 7)
    return DLBacktrace(model, x, tracer="tape"), x


def test_token_classification_by_position_span_and_sample() -> None:
    dlb, x = tokens()
    assert units(dlb.explain(x, target=(2, 3))) == {(0, 2, 3): 100, (1, 2, 3): 100}
    assert units(dlb.explain(x, target=((1, 3), 3), multiplier=8.0)) == {(b, t, 3): 4 for b in (0, 1) for t in (1, 2)}
    assert units(dlb.explain(x, target=(slice(1, 3), 3))) == units(dlb.explain(x, target=((1, 3), 3)))
    assert units(dlb.explain(x, target=[(1, 3), ((4, 6), 0)])) == {(0, 1, 3): 100, (1, 4, 0): 50, (1, 5, 0): 50}


def test_a_span_without_a_class_is_about_what_won_at_each_position() -> None:
    dlb, x = tokens()
    explained = dlb.explain(x, target=slice(1, 4), task="token-classification")
    winners = explained.output.argmax(-1)
    expected = {(b, t, int(winners[b, t])): round(100 / 3, 3) for b in (0, 1) for t in (1, 2, 3)}
    assert units(explained) == expected
    assert units(dlb.explain(x, target=(2, None))) == {(b, 2, int(winners[b, 2])): 100 for b in (0, 1)}


def test_an_encoders_tokens_need_a_position() -> None:
    dlb, x = tokens()
    for task in ("auto", "token-classification"):
        with pytest.raises(ValueError, match=r"give target=\(position, class\)"):
            dlb.explain(x, task=task)


@pytest.mark.parametrize("side", ["left", "right"])
def test_generation_is_about_the_token_after_the_last_one_that_is_no_padding(side: str) -> None:
    """A padded prompt is explained as it is alone: the same token, the same relevance, nothing at the padding."""
    model = CASES["llama-sdpa"].model(torch.float64)
    alone = torch.arange(1, 6)[None]
    pad = torch.zeros(1, 2, dtype=torch.int64)
    long = torch.arange(11, 18)[None]
    padded = torch.cat([pad, alone] if side == "left" else [alone, pad], 1)
    mask = (torch.cat([long, padded]) != 0).long()
    positions = {"position_ids": (mask.cumsum(1) - 1).clamp_min(0)} if side == "left" else {}
    both = {"input_ids": torch.cat([long, padded]), "attention_mask": mask, **positions}
    together = DLBacktrace(model, both, tracer="tape").explain(both)
    prompt = {"input_ids": alone, "attention_mask": torch.ones_like(alone)}
    single = DLBacktrace(model, prompt, tracer="tape").explain(prompt)
    last = 6 if side == "left" else 4
    token = int(single.output[0, -1].argmax())
    assert together.target[1] == (last, token)
    assert together.target[0][0] == 6
    row = together.inputs["input_ids"][1]
    kept = mask[1].bool()
    torch.testing.assert_close(row[kept], single.inputs["input_ids"][0])
    assert not row[~kept].any()


def test_a_decoder_ends_where_its_own_mask_says() -> None:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        config = transformers.T5Config(
            vocab_size=VOCABULARY, d_model=16, d_kv=4, d_ff=24, num_layers=1, num_heads=4, decoder_start_token_id=0
        )
        model = randomised(transformers.T5ForConditionalGeneration(config)).eval()
    x = {
        "input_ids": torch.randint(1, VOCABULARY, (2, 4)),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "decoder_input_ids": torch.randint(1, VOCABULARY, (2, 4)),
        "decoder_attention_mask": torch.tensor([[1, 1, 1, 0], [1, 1, 1, 1]]),
    }
    assert [last for last, _ in DLBacktrace(model, x, tracer="tape").explain(x).target] == [2, 3]
    del x["decoder_attention_mask"]
    assert [last for last, _ in DLBacktrace(model, x, tracer="tape").explain(x).target] == [3, 3]


# several outputs


class Heads(nn.Module):
    """Two heads of one trunk: classes [B, 3] and a number [B, 1], by name."""

    def __init__(self) -> None:
        super().__init__()
        self.trunk, self.kind, self.age = nn.Linear(4, 6), nn.Linear(6, 3), nn.Linear(6, 1)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.trunk(x).relu()
        return {"kind": self.kind(h), "age": self.age(h)}


@cache
def heads() -> tuple[nn.Module, Tensor]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return Heads().double().eval(), torch.randn(2, 4, dtype=torch.float64)


@cache
def explainer(output: str | None = None) -> DLBacktrace:
    return DLBacktrace(*heads(), output=output)


def test_the_other_outputs_get_nothing() -> None:
    model, x = heads()
    for output, other in (("kind", "age"), ("age", "kind")):
        explained = explainer(output).explain(x, task="regression", keep="all")
        assert not any(name.startswith(other) for name in explained.relevance)
        assert explained.relevance[output].abs().sum() == pytest.approx(200)
        assert torch.equal(explained.output, model(x)[output])


def test_a_target_is_about_the_chosen_output() -> None:
    model, x = heads()
    assert units(explainer("kind").explain(x, target=2)) == {(0, 2): 100, (1, 2): 100}
    with pytest.raises(ValueError, match=r"target 2 is out of range: choose an int in 0 .. 0"):
        explainer("age").explain(x, target=2)
    with pytest.raises(ValueError, match=r"floating outputs are 0 \(kind\), 1 \(age\)"):
        DLBacktrace(model, x, output="name")


@pytest.mark.parametrize("mode", ["default", "epsilon", "contrastive"])
def test_two_outputs_in_one_pass_are_their_sum(mode: str) -> None:
    dlb, (_, x) = explainer(), heads()
    both = dlb.explain(x, mode=mode, target={"kind": 1, "age": 0}, keep="all")
    kind = dlb.explain(x, mode=mode, target={"kind": 1})
    age = explainer("age").explain(x, mode=mode, target=0)
    torch.testing.assert_close(both.inputs["x"], kind.inputs["x"] + age.inputs["x"])
    assert both.target == {"kind": 1, "age": 0}
    assert kind.target == {"kind": 1}
    assert [tuple(seed.shape) for seed in both.relevance["output"]] == [(2, 3), (2, 1)]
    if mode != "contrastive":
        assert both.ledger.seed == pytest.approx(400)
        assert both.ledger.seeded == pytest.approx({"linear_1": 200, "linear_2": 200})


def test_several_seeds_may_name_different_outputs(tmp_path: Any) -> None:
    dlb, (_, x) = explainer(), heads()
    asked = [{"kind": 1}, {"age": 0}, {"kind": [0, 2], "age": 0}]
    together = dlb.explain(x, targets=asked, mode="epsilon")
    for i, target in enumerate(asked):
        alone = dlb.explain(x, target=target, mode="epsilon")
        torch.testing.assert_close(together.inputs["x"][i], alone.inputs["x"], rtol=0, atol=1e-9)
        assert together.target[i] == alone.target
        assert together.ledger[i].seed == pytest.approx(alone.ledger.seed)
    loaded = Explanation.load(together.save(tmp_path / "it"))
    assert loaded.target == together.target


@pytest.mark.parametrize(
    ("question", "says"),
    [
        ({"target": {"name": 1}}, r"floating outputs are 0 \(kind\), 1 \(age\)"),
        ({"target": {}}, "give {output: target}"),
        ({"targets": [{"kind": 1}, 2]}, "name it in all"),
        ({"target": {"kind": 1}, "at": "trunk"}, "give one of them"),
        ({"target": {"kind": 5}}, "out of range: choose an int in 0 .. 2"),
    ],
)
def test_outputs_that_cannot_be_named_are_refused(question: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        explainer().explain(heads()[1], **question)


# detectors


@pytest.mark.parametrize("build", [detection.detr, detection.yolos], ids=["DETR", "YOLOS"])
def test_a_detector_explains_its_most_confident_query(build: Any) -> None:
    side = 64 if build is detection.detr else 32
    model, dlb, x = traced(build, "logits", 2, 3, side, side)
    explained = dlb.explain(x)
    probabilities = model(x).logits.softmax(-1)[..., :-1]  # the last class says that there is nothing
    flat = probabilities.flatten(1).argmax(1)
    expected = [(int(i) // 4, int(i) % 4) for i in flat]
    assert explained.target == expected
    assert units(explained) == {(b, *place): 100 for b, place in enumerate(expected)}
    assert explained.ledger.seed == pytest.approx(200)
    assert explained.inputs["pixel_values"].sum() > 0


def test_a_query_and_a_class_by_name_or_as_they_are() -> None:
    _, dlb, x = detr()
    assert units(dlb.explain(x, target=Query(3, 1))) == {(0, 3, 1): 100, (1, 3, 1): 100}
    assert units(dlb.explain(x, target=(3, 1))) == units(dlb.explain(x, target=Query(3, 1)))
    assert units(dlb.explain(x, target=[(3, 1), Query(0, 2)])) == {(0, 3, 1): 100, (1, 0, 2): 100}
    best = dlb.explain(x, target=Query(3))
    scores = best.output[:, 3, :4].argmax(-1)
    assert units(best) == {(b, 3, int(scores[b])): 100 for b in (0, 1)}
    contrast = dlb.explain(x, target=Contrast(1, against=2, at=3))
    assert units(contrast) == {(b, 3, c): u for b in (0, 1) for c, u in ((1, 100), (2, -100))}


def test_where_nothing_is_an_object_or_every_class_is() -> None:
    _, dlb, x = detr()
    scores = dlb.explain(x, target=(0, 0)).output
    with_nothing = dlb.explain(x, target=Query(no_object=None)).relevance["output"]
    assert torch.equal(with_nothing.flatten(1).argmax(1), scores.flatten(1).argmax(1))
    without_first = dlb.explain(x, target=Query(no_object=0)).relevance["output"]
    assert not without_first[..., 0].any()
    expected = scores.softmax(-1)[..., 1:].amax(-1).argmax(1)
    assert torch.equal(without_first.sum(-1).argmax(1), expected)


def test_a_box_of_the_most_confident_query() -> None:
    model, dlb, x = detr("pred_boxes")
    out = model(x)
    query = out.logits.softmax(-1)[..., :-1].amax(-1).argmax(1)
    explained = dlb.explain(x)
    assert explained.target == query.tolist()
    boxes = out.pred_boxes[torch.arange(2), query]
    expected = 100 * boxes / boxes.abs().sum(1, keepdim=True)
    torch.testing.assert_close(explained.relevance["output"][torch.arange(2), query], expected)
    assert torch.equal(dlb.explain(x, task="bbox-regression").inputs["pixel_values"], explained.inputs["pixel_values"])


def test_a_coordinate_of_a_query() -> None:
    _, dlb, x = detr("pred_boxes")
    assert units(dlb.explain(x, target=(3, 0))) == {(0, 3, 0): 100, (1, 3, 0): 100}
    assert units(dlb.explain(x, target=Query(3, 0))) == {(0, 3, 0): 100, (1, 3, 0): 100}
    box = dlb.explain(x, target=3)
    assert torch.equal(box.relevance["output"], dlb.explain(x, target=Query(3)).relevance["output"])
    assert set(units(box)) == {(b, 3, c) for b in (0, 1) for c in range(4)}
    one = dlb.explain(x, target=Query(unit=2))
    assert {place[2] for place in units(one)} == {2}


def test_a_query_and_its_box_in_one_pass() -> None:
    _, dlb, x = detr()
    both = dlb.explain(x, target={"logits": (3, 1), "pred_boxes": (3, 0)})
    parts = dlb.explain(x, targets=[{"logits": (3, 1)}, {"pred_boxes": (3, 0)}])
    scale = both.inputs["pixel_values"].abs().max()
    assert (parts.inputs["pixel_values"].sum(0) - both.inputs["pixel_values"]).abs().max() < 1e-4 * scale
    boxes = detr("pred_boxes")[1].explain(x, target=(3, 0))
    assert (parts.inputs["pixel_values"][1] - boxes.inputs["pixel_values"]).abs().max() < 1e-4 * scale


@pytest.mark.parametrize(
    ("output", "question", "says"),
    [
        ("logits", {"target": Query(5)}, "query 5 is out of range: choose an int in 0 .. 4"),
        ("logits", {"target": Query(0, 5)}, "class 5 is out of range: choose an int in 0 .. 4"),
        ("pred_boxes", {"target": Query(0, 4)}, "coordinate 4 is out of range: choose an int in 0 .. 3"),
        ("logits", {"target": 3}, r"of a detector give \(query, class\) or Query\(3\)"),
        ("logits", {"task": "bbox-regression"}, "this output holds class scores: choose output="),
        ("logits", {"target": Query(no_object=9)}, "no_object 9 is out of range"),
        ("pred_boxes", {"seed": "probability"}, "has no probabilities"),
    ],
)
def test_what_a_detector_cannot_be_asked_is_refused(output: str, question: dict[str, Any], says: str) -> None:
    _, dlb, x = detr(output)
    with pytest.raises(ValueError, match=says):
        dlb.explain(x, **question)


class Anchors(nn.Module):
    """A one-stage detector's backbone and heads: what it says of every anchor, by the names that torchvision gives."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found: dict[str, Tensor] = self.detector.head(list(self.detector.backbone(x).values()))
        return {"cls_logits": found["cls_logits"], "bbox_regression": found["bbox_regression"]}


def retinanet() -> nn.Module:
    return Anchors(detection.retinanet())


def ssdlite() -> nn.Module:
    return Anchors(detection.ssdlite())


@pytest.mark.parametrize(("build", "side", "nothing"), [(retinanet, 64, None), (ssdlite, 320, 0)])
def test_an_anchors_class_and_coordinate(build: Any, side: int, nothing: int | None) -> None:
    model, dlb, x = traced(build, "cls_logits", 1, 3, side, side)
    scores = model(x)["cls_logits"]
    assert units(dlb.explain(x, target=(17, 2))) == {(0, 17, 2): 100}
    confident = dlb.explain(x, target=Query(no_object=nothing))
    objects = scores if nothing is None else scores.softmax(-1)[..., 1:]
    anchor = int(objects.amax(-1)[0].argmax())
    unit = int(objects[0, anchor].argmax()) + (nothing is not None)
    assert units(confident) == {(0, anchor, unit): 100}
    box = dlb.explain(x, target={"bbox_regression": (anchor, 1)})
    sign = float(model(x)["bbox_regression"][0, anchor, 1].sign())
    assert units(box) == {(0, anchor, 1): 100 * sign}
    assert box.ledger.seed == pytest.approx(100 * sign)
