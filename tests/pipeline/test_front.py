"""The pipeline end to end: from a folder and a text or image to named results, on screen and on disk."""

from __future__ import annotations

import errno
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from PIL import Image

from dlb_core import DLBacktrace, DLBacktracePipeline, Explanation, PipelineResult
from dlb_core.generation import GenerationExplanation
from dlb_core.pipeline import saving
from pipeline import makers

TEXT = "This product is amazing!"


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "picture.png")
    return tmp_path / "picture.png"


def test_the_example_of_the_pipeline(sentiment: DLBacktracePipeline) -> None:
    """The same numbers as by hand: tokenizer, model, `explain`."""
    pipeline = DLBacktracePipeline.create_simple(model_name=sentiment.config.model_name, device="cpu")
    results = pipeline.run_simple_analysis(TEXT, label="positive")
    where = pipeline.config.model_name
    model = transformers.AutoModelForSequenceClassification.from_pretrained(where).eval()
    inputs = dict(transformers.AutoTokenizer.from_pretrained(where)(TEXT, return_tensors="pt"))
    explained = DLBacktrace(model, inputs, explain_inputs=["input_ids"]).explain(inputs, target=1)
    torch.testing.assert_close(results["relevance"]["input_ids"], explained.inputs["input_ids"])
    torch.testing.assert_close(results["predictions"], model(**inputs).logits)
    assert results["explained"] == ["positive"]
    assert [word.text for word in results["words"][0]] == ["This", "product", "is", "amazing", "!"]
    assert [word.text for word in results["words"][0].special] == ["[CLS]", "[SEP]"]
    probabilities = model(**inputs).logits.double().softmax(-1)[0].tolist()
    assert results["probabilities"][0] == pytest.approx(
        dict(zip(model.config.id2label.values(), probabilities, strict=True))
    )
    best = max(range(3), key=probabilities.__getitem__)
    assert results["labels"] == [model.config.id2label[best]]
    for part in (where, "positive", "amazing", "[CLS]", "= sum"):
        assert part in str(results)


def test_words_and_accounts_are_the_seed(sentiment: DLBacktracePipeline) -> None:
    """Over labels, modes and units: what words and special tokens got is what the ledger says of the ids."""
    for options in ({}, {"mode": "epsilon", "seed": "logit"}, {"multiplier": 3.0, "scaler": -2.0}):
        found = sentiment.run_text_classification([TEXT, "it broke"], **options)
        ledger = found["relevance"].ledger
        words = sum(words.total for words in found["words"])
        assert words == pytest.approx(ledger.inputs["input_ids"], rel=1e-5, abs=1e-6)
        assert words + sum(ledger.accounts.values()) == pytest.approx(ledger.seed, rel=1e-4, abs=1e-6)


def test_one_text_alone_or_among_others(sentiment: DLBacktracePipeline) -> None:
    """Padding changes nothing, and gets nothing."""
    texts = [TEXT, "it", "A terrible product: it broke after 3.14 days."]
    together = sentiment.run_text_classification(texts, ["positive", 0, "NEUTRAL"])
    assert together["explained"] == ["positive", "negative", "neutral"]
    for i, text in enumerate(texts):
        alone = sentiment.run_text_classification(text, together["explained"][i])["words"][0]
        assert [word.text for word in alone] == [word.text for word in together["words"][i]]
        for one, other in zip(alone, together["words"][i], strict=True):
            assert one.relevance == pytest.approx(other.relevance, abs=2e-4)
        assert all(word.relevance == 0 for word in together["words"][i].special if word.text == "[PAD]")


def test_a_pair_of_texts(sentiment: DLBacktracePipeline) -> None:
    found = sentiment.run_text_classification("A terrible product", pair="it broke")
    assert [(word.text, word.text_index) for word in found["words"][0]] == [
        ("A", 0),
        ("terrible", 0),
        ("product", 0),
        ("it", 1),
        ("broke", 1),
    ]
    assert found["pairs"] == ["it broke"]
    captions = found["explanation"].captions
    assert captions.classes == ("negative", "positive", "neutral")
    (tokens,) = captions.tokens["input_ids"]
    assert (tokens[0], tokens[-1], tokens.count("[SEP]")) == ("[CLS]", "[SEP]", 2)
    assert "".join(token for token in tokens if "[" not in token) == "A terrible productit broke"
    assert found["explanation"].text().tokens == tokens


def test_regression_is_about_the_value(tmp_path: Path) -> None:
    config = makers.bert_config(id2label={0: "stars"}, problem_type="regression")
    makers.seeded(lambda: transformers.BertForSequenceClassification(config)).save_pretrained(tmp_path)
    makers.wordpiece().save_pretrained(tmp_path)
    found = DLBacktracePipeline.create_simple(str(tmp_path)).run_simple_analysis(TEXT, seed="logit", mode="epsilon")
    assert found["task"] == "regression"
    assert found["relevance"].ledger.seed == pytest.approx(found["values"][0][0], rel=1e-5)
    assert "probabilities" not in found
    assert found["explanation"].captions.classes == ()


def test_one_output_is_a_class_and_its_opposite(tmp_path: Path) -> None:
    config = makers.bert_config(id2label={0: "toxic"})
    makers.seeded(lambda: transformers.BertForSequenceClassification(config)).save_pretrained(tmp_path)
    makers.wordpiece().save_pretrained(tmp_path)
    pipeline = DLBacktracePipeline.create_simple(str(tmp_path))
    found = pipeline.run_simple_analysis(TEXT)
    side = float(found["predictions"].sigmoid())
    assert found["probabilities"][0] == pytest.approx({"not toxic": 1 - side, "toxic": side})
    assert found["labels"] == found["explained"] == ["toxic" if side > 0.5 else "not toxic"]
    assert found["explanation"].captions.classes == ("toxic",)
    assert pipeline.run_simple_analysis(TEXT, label="toxic")["explained"] == ["toxic"]


def test_classes_that_do_not_exclude_each_other(tmp_path: Path) -> None:
    config = makers.bert_config(problem_type="multi_label_classification")
    makers.seeded(lambda: transformers.BertForSequenceClassification(config)).save_pretrained(tmp_path)
    makers.wordpiece().save_pretrained(tmp_path)
    found = DLBacktracePipeline.create_simple(str(tmp_path)).run_simple_analysis(TEXT)
    assert [*found["probabilities"][0].values()] == pytest.approx(found["predictions"].double().sigmoid()[0].tolist())


def test_images_are_prepared_as_the_model_was_trained(seer: DLBacktracePipeline, picture: Path) -> None:
    found = seer.run_image_classification(picture, label="fox")
    processor = transformers.AutoImageProcessor.from_pretrained(seer.config.model_name)
    pixels = processor(images=Image.open(picture), return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(found["pixels"], pixels)
    assert found["relevance"]["pixel_values"].shape == (1, 3, 16, 16)
    assert found["explained"] == ["fox"]
    assert 0 <= float(found["images"][0].min()) <= float(found["images"][0].max()) <= 1 + 1e-6
    captions = found["explanation"].captions
    assert captions.classes == ("cat", "dog", "fox")
    assert torch.equal(captions.images["pixel_values"], torch.stack(found["images"]))
    again = seer.run_image_classification([Image.open(picture), np.asarray(Image.open(picture))], label="fox")
    ready = seer.run_image_classification(pixels, label="fox")
    for other in (again["relevance"]["pixel_values"][1:], ready["relevance"]["pixel_values"]):
        torch.testing.assert_close(other, found["relevance"]["pixel_values"], atol=1e-3, rtol=1e-3)


def test_a_writer_tells_by_which_words_it_wrote(writer: DLBacktracePipeline) -> None:
    prompts = ["the quick brown", "A terrible product: it"]
    found = writer.run_text_generation(prompts, max_new_tokens=4, mode="epsilon")
    loaded = writer.load("generation")
    info = found["explanation"]
    assert isinstance(info, GenerationExplanation)
    assert found["generated"] == [loaded.tokenizer.decode(ids, skip_special_tokens=True) for ids in info.tokens]
    for sequence, text in enumerate(prompts):
        for n, words in enumerate(found["words"][sequence]):
            assert words.total == pytest.approx(float(info.relevance[sequence, n].double().sum()), abs=1e-6)
            own = [word.text for word in words if word.text_index == 0]
            assert own == [word.text for word in found["words"][sequence][0] if word.text_index == 0]
            assert "".join(own) == text.replace(" ", "")
            assert all(position < info.prompt_length + info.steps[n] for word in words for position in word.tokens)
    plain = writer.run_text_generation(prompts[0], max_new_tokens=4, return_relevance=False)
    assert plain["generated"] == found["generated"][:1]
    assert "words" not in plain
    several = writer.run_text_generation(
        prompts, max_new_tokens=2, num_beams=2, num_return_sequences=2, explain_tokens=1
    )
    assert [len(each) for each in several["words"]] == [1] * 4
    assert [each[0][0].text for each in several["words"]] == ["the", "the", "A", "A"]


def test_settings_reach_a_generation(writer: DLBacktracePipeline) -> None:
    settings = {"mode": "epsilon", "mode_options": {"eps": 1e-2}, "multiplier": 3.0, "scaler": 2.0}
    made = DLBacktracePipeline({**writer.config.to_dict(), **settings})
    info = made.run_text_generation("the quick", max_new_tokens=2)["explanation"]
    assert (info.mode, dict(info.options)["eps"]) == ("epsilon", 1e-2)
    assert [ledger.seed for ledger in info.ledgers] == pytest.approx([6.0, 6.0])
    other = made.run_text_generation("the quick", max_new_tokens=2, mode="default", multiplier=1.0)["explanation"]
    assert (other.mode, other.ledgers[0].seed) == ("default", pytest.approx(2.0))
    assert made.run_text_generation("the quick", max_new_tokens=2, return_relevance=False)["relevance"] is None


def test_an_encoder_decoder_tells_by_the_words_of_its_source(tmp_path: Path) -> None:
    config = transformers.T5Config(
        vocab_size=len(makers.metaspace()), d_model=16, d_kv=8, d_ff=24, num_layers=1, num_heads=2,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=2,
    )  # fmt: skip
    makers.seeded(lambda: transformers.T5ForConditionalGeneration(config)).save_pretrained(tmp_path)
    makers.metaspace().save_pretrained(tmp_path)
    pipeline = DLBacktracePipeline.create_simple(str(tmp_path))
    found = pipeline.run_text_generation("the quick brown fox", max_new_tokens=3, min_new_tokens=3)
    info = found["explanation"]
    for n, words in enumerate(found["words"][0]):
        both = float(info.relevance[0, n].double().sum() + info.source_relevance[0, n].double().sum())
        assert words.total == pytest.approx(both, abs=1e-6)
        assert [word.text for word in words][:4] == ["the", "quick", "brown", "fox"]


# on disk


def test_results_are_saved_and_read_back(sentiment: DLBacktracePipeline, tmp_path: Path) -> None:
    settings = {**sentiment.config.to_dict(), "output_dir": tmp_path / "out", "pictures": True}
    pipeline = DLBacktracePipeline(settings)
    found = pipeline.run_simple_analysis(TEXT, label="positive")
    second = pipeline.run_simple_analysis("<b>it & broke</b>")
    assert [found["folder"].name, second["folder"].name] == ["text-classification-1", "text-classification-2"]
    head = json.loads((found["folder"] / "result.json").read_text("utf-8"))
    assert (head["format"], head["task"], head["explained"]) == ("dlb-result", "text-classification", ["positive"])
    assert [record["text"] for record in head["words"][0] if not record["special"]] == [
        w.text for w in found["words"][0]
    ]
    (tmp_path / "ours").mkdir()
    assert found["folder"].stat().st_mode == (tmp_path / "ours").stat().st_mode  # readable like any new folder
    books = Explanation.load(found["folder"] / "explanation")
    assert torch.equal(books.inputs["input_ids"], found["relevance"]["input_ids"])
    assert list(books.relevance) == ["input_ids"]
    assert books.ledger.seed == 100
    page = (second["folder"] / "words.html").read_text("utf-8")
    assert "&lt;" in page
    assert "<b>" not in page
    assert sorted(head["files"]) == ["explanation", "words.html"]


def test_pictures_of_images_and_of_generations(
    seer: DLBacktracePipeline, writer: DLBacktracePipeline, picture: Path, tmp_path: Path
) -> None:
    images = seer.run_image_classification([picture, picture])
    folder = images.save(tmp_path / "images", pictures=True)
    with Image.open(folder / "heatmap-1.png") as heat:
        assert heat.size[0] > 256
    written = writer.run_text_generation("the quick", max_new_tokens=2)
    folder = written.save(tmp_path / "written", pictures=True)
    assert GenerationExplanation.load(folder / "explanation").steps == (0, 1)
    head = json.loads((folder / "result.json").read_text("utf-8"))
    assert (head["generated"], len(head["words"][0])) == (written["generated"], 2)
    assert "token 2" in (folder / "words.html").read_text("utf-8")


@pytest.mark.parametrize("trouble", [KeyboardInterrupt(), OSError(errno.ENOSPC, "No space left on device")])
@pytest.mark.parametrize("moment", ["explanation", "head", "picture"])
def test_an_interrupt_or_a_full_disk_leaves_nothing(
    sentiment: DLBacktracePipeline, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, trouble: BaseException, moment: str
) -> None:
    found = sentiment.run_simple_analysis(TEXT)
    write = Path.write_text

    def fails(path: Path, *rest: Any) -> Any:
        if path.name == {"head": saving.HEAD, "picture": "words.html", "explanation": "explanation.json"}[moment]:
            write(path, "half")
            raise trouble
        return write(path, *rest)

    monkeypatch.setattr(Path, "write_text", fails)
    with pytest.raises(type(trouble)):
        found.save(tmp_path / "new" / "result", pictures=True)
    assert [*tmp_path.iterdir()] == []
    monkeypatch.undo()
    assert found.save(tmp_path / "new" / "result").is_dir()


def test_an_interrupt_while_writing_leaves_all_as_it_was(writer: DLBacktracePipeline, tmp_path: Path) -> None:
    pipeline = DLBacktracePipeline({**writer.config.to_dict(), "output_dir": tmp_path / "out"})
    before, state = pipeline.run_text_generation("the quick", max_new_tokens=3), torch.get_rng_state()

    def stop(ids: torch.Tensor) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.run_text_generation("the quick", max_new_tokens=3, temperature=2.0, on_token=stop)
    assert [entry.name for entry in (tmp_path / "out").iterdir()] == ["generation-1"]
    assert torch.equal(state, torch.get_rng_state())
    again = pipeline.run_text_generation("the quick", max_new_tokens=3)
    assert torch.equal(again["generated_ids"], before["generated_ids"])
    assert torch.equal(again["relevance"], before["relevance"])
    assert again["folder"].name == "generation-2"


def test_nothing_of_somebody_elses_is_overwritten(sentiment: DLBacktracePipeline, tmp_path: Path) -> None:
    found = sentiment.run_simple_analysis(TEXT)
    (tmp_path / "thesis.txt").write_text("all of it")
    with pytest.raises(FileExistsError, match="not empty"):
        found.save(tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


@pytest.mark.parametrize(
    ("task", "arguments", "why"),
    [
        ("text", (TEXT, "happy"), "'negative', 'positive', 'neutral'"),
        ("text", (TEXT, 3), "0 .. 2"),
        ("text", (TEXT, True), "number of a class"),
        ("text", ([TEXT, TEXT], ["positive"]), "1 labels for 2 samples"),
        ("text", ([],), "no text"),
        ("text", ([3],), "must be a str"),
        ("text", ("a " * 100,), "the model reads 40"),
        ("image", ("none.png",), "no such file"),
        ("image", (torch.zeros(3, 16, 16),), "B, C, H, W"),
        ("image", (torch.zeros(1, 3, 16, 16, dtype=torch.uint8),), "floating numbers"),
        ("image", ([object()],), "array of bytes"),
        ("image", ([],), "no image"),
    ],
)
def test_what_cannot_be_explained_is_refused(
    sentiment: DLBacktracePipeline, seer: DLBacktracePipeline, task: str, arguments: tuple[Any, ...], why: str
) -> None:
    run = sentiment.run_text_classification if task == "text" else seer.run_image_classification
    with pytest.raises(ValueError, match=why):
        run(*arguments)


def test_classes_are_said_by_label(sentiment: DLBacktracePipeline) -> None:
    for options in ({"target": 1}, {"targets": [0, 1]}):
        with pytest.raises(ValueError, match="label= says which class"):
            sentiment.run_simple_analysis(TEXT, **options)


def test_a_long_text_is_cut_only_on_request(sentiment: DLBacktracePipeline) -> None:
    pipeline = DLBacktracePipeline({**sentiment.config.to_dict(), "max_length": 6})
    found = pipeline.run_simple_analysis("the quick brown fox jumps over the lazy dog")
    assert isinstance(found, PipelineResult)
    assert found["relevance"]["input_ids"].shape == (1, 6)
