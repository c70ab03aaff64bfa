"""`dlb explain --model NAME`: words of a text, pixels of an image, tokens that a model wrote."""

from __future__ import annotations

import functools
import json
import re
import signal
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from PIL import Image
from pipeline import makers

from dlb_core import DLBacktracePipeline, Explanation
from dlb_core.generation import GenerationExplanation
from dlb_core.pipeline.encoding import encode, written
from dlb_core.pipeline.result import _by_words

TEXT = "This product is amazing, and I don't regret it!"
PROMPT = "the quick brown fox"


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("named")
    for make in (makers.sentiment, makers.bare_encoder, makers.writer, makers.seer):
        make(folder / make.__name__)
    return folder


once = functools.cache(DLBacktracePipeline.create_simple)


@pytest.fixture
def _one_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """A model is loaded and traced once for the tests that ask it several things."""
    monkeypatch.setattr(DLBacktracePipeline, "create_simple", once)


@pytest.fixture(scope="module")
def result(models: Path) -> Any:
    """One run, for the tests of what happens after it."""
    return once(str(models / "sentiment"), "auto").run_text_classification(TEXT)


def section(page: str, title: str) -> list[list[str]]:
    """The rows of the table under a title, in cells."""
    lines = page[page.index(f"\n{title}") + 1 :].splitlines()
    first = next(i for i, line in enumerate(lines) if line.startswith("─"))
    rows = lines[first + 1 : next(i for i, line in enumerate(lines) if i > first and not line.strip())]
    return [re.split(r"\s{2,}", row.strip()) for row in rows if not row.startswith("─")]


@pytest.mark.usefixtures("_one_load")
def test_a_text_by_its_words(dlb, place, models):
    model = str(models / "sentiment")
    answer = dlb("explain", "--model", model, "--text", TEXT, "--target", "positive", "--mode", "epsilon")
    assert (answer.code, answer.err) == (0, "")
    assert "\x1b" not in answer.out
    assert answer.out.startswith(f"{model}  mode epsilon (")
    labels = section(answer.out, "prediction")
    assert sorted(row[0] for row in labels) == ["negative", "neutral", "positive"]
    assert sum(float(row[1].removesuffix(" %")) for row in labels) == pytest.approx(100, abs=0.02)
    (chosen,) = (row for row in labels if row[-1].endswith("explained"))
    assert chosen[0] == "positive"

    saved = Explanation.load("dlb-explanation/explanation")
    assert saved.target == 1
    units = float(saved.inputs["input_ids"].sum())
    words = section(answer.out, "strongest words")
    assert float(words[-1][1]) == pytest.approx(units, abs=0.01)
    assert sum(float(row[1]) for row in words[:-1]) == pytest.approx(units, abs=0.1)
    assert {row[0] for row in words} >= {"special tokens: [CLS] [SEP]", "don't", "= sum"}
    plain = next(line for line in answer.out.splitlines() if line.startswith("This("))
    assert re.sub(r"\([+-][^()]*\)", "", plain) == TEXT
    ledger = section(answer.out, "ledger")
    assert sum(round(100 * float(row[-1].removesuffix(" %"))) for row in ledger[:-1]) == 100_00
    assert {"explanation", "result.json", "words.html"} == {p.name for p in (place.path / "dlb-explanation").iterdir()}
    assert "don&#x27;t" in (place.path / "dlb-explanation/words.html").read_text()


@pytest.mark.usefixtures("_one_load")
def test_as_data(dlb, place, models):
    """By the class that the model gives it; the words hold all units of the input."""
    told = dlb("explain", "--model", str(models / "sentiment"), "--text", TEXT, "--json", "--out", "x/y").json
    saved = json.loads((place.path / "x/y/result.json").read_text())
    assert told["words"] == saved["words"][0]
    assert told["prediction"]["label"] == told["explained"] == saved["labels"][0]
    assert told["text"] == TEXT
    assert sum(word["relevance"] for word in told["words"]) == pytest.approx(told["ledger"]["inputs"]["input_ids"])
    assert round(sum(line["share"] for line in told["ledger"]["shares"]), 6) == 100.0
    for file in told["files"]:
        assert (place.path / file["path"]).is_file()


@pytest.mark.usefixtures("_one_load")
def test_an_image_by_its_pixels(dlb, place, models):
    model = str(models / "seer")
    answer = dlb(
        "explain", "--model", model, "--image", "photo.png", "--target", "fox", "--top", "3", "--bias", "absorb"
    )
    assert (answer.code, answer.err) == (0, "")
    assert "bias=absorb" in answer.out
    assert len(section(answer.out, "strongest inputs")) == 3
    assert Image.open("dlb-explanation/heatmap-0.png").size[0] > 16
    relevance = Explanation.load("dlb-explanation/explanation").inputs["pixel_values"]
    assert relevance.shape == (1, 3, 16, 16)
    told = dlb("explain", "--model", model, "--image", "photo.png", "--target", "2", "--bias", "absorb", "--json").json
    best = told["strongest"][0]
    assert relevance[tuple(best["index"])].item() == pytest.approx(best["relevance"])
    assert told["explained"] == "fox"


@pytest.mark.usefixtures("_one_load")
def test_what_a_model_wrote_token_by_token(dlb, place, models):
    model = str(models / "writer")
    call = (
        "explain",
        "--model",
        model,
        "--generate",
        "--text",
        PROMPT,
        "--max-new-tokens",
        "4",
        "--option",
        "eps=1e-4",
    )
    answer = dlb(*call, "--mode", "epsilon")
    assert (answer.code, answer.err) == (0, "")
    assert "eps=0.0001" in answer.out
    assert len(section(answer.out, "tokens")) == 4
    found = GenerationExplanation.load("dlb-explanation/explanation")
    length = found.prompt_length
    words = section(answer.out, "strongest words")
    assert {row[0] for row in words} == {"the", "quick", "brown", "fox", "= sum"}
    assert float(words[-1][1]) == pytest.approx(float(found.relevance[..., :length].sum()), rel=1e-3, abs=0.02)
    assert section(answer.out, "ledger of all tokens")[-1][1:] == ["400.00", "100.00 %"]

    told = dlb(*call, "--mode", "epsilon", "--json").json
    assert told["generated_ids"] == found.tokens[0].tolist()
    for n, token in enumerate(told["tokens"]):
        own = [word for word in token["words"] if word["text_index"] == 0]
        assert sum(w["relevance"] for w in own) == pytest.approx(float(found.relevance[0, n, :length].sum()), abs=1e-4)
        assert token["ledger"]["seed"] == pytest.approx(100)
        assert 0 < token["probability"] < 1


@pytest.mark.usefixtures("_one_load")
def test_a_report_of_a_text(dlb, place, models):
    call = ("explain", "--model", str(models / "sentiment"), "--text", "This product is <b>amazing</b>")
    answer = dlb(*call, "--report", "--beside", "epsilon")
    assert answer.code == 0, answer.err
    assert "dlb-explanation/report.html" in answer.out
    assert "<b>amazing" not in (place.path / "dlb-explanation/report.html").read_text("utf-8")
    captions = Explanation.load("dlb-explanation/explanation").captions
    assert captions.classes == ("negative", "positive", "neutral")
    assert " product" in captions.tokens["input_ids"][0]


@pytest.mark.usefixtures("_one_load")
def test_a_report_of_what_was_written(dlb, place, models):
    call = ("explain", "--model", str(models / "writer"), "--generate", "--text", PROMPT, "--max-new-tokens", "2")
    told = dlb(*call, "--report", "it.html", "--json").json
    assert told["files"][-1]["path"] == "it.html"
    assert (place.path / "it.html").stat().st_size > 1000
    assert GenerationExplanation.load("dlb-explanation/explanation").steps == (0, 1)


def test_what_an_encoder_decoder_wrote_is_no_part_of_its_prompt():
    """Its source is the first text, its own words are the second."""
    tokenizer = makers.metaspace()
    (prompt,) = encode(tokenizer, ["This product"]).pieces
    told = written(tokenizer, tokenizer("the quick fox", add_special_tokens=False)["input_ids"])
    length = 1 + len(told[1])
    relevance = torch.arange(1.0, length + 1).expand(1, 1, -1)
    info = SimpleNamespace(
        steps=(length - 2,), relevance=relevance, source_relevance=torch.full((1, 1, len(prompt.tokens)), 10.0)
    )
    (words,) = _by_words(info, 0, prompt, told, 1, True)
    assert [word.text for word in words if word.text_index == 0] == ["This", "product"]
    own = [word.text for word in words if word.text_index == 1]
    assert own[:2] == ["the", "quick"]  # the last piece is what is explained
    before = float(relevance[..., : length - 1].sum())
    assert words.total == pytest.approx(10 * len(prompt.tokens) + before)


def fill_the_disk(*args: Any, **kwargs: Any) -> None:
    raise OSError(28, "No space left on device")


def interrupt(*args: Any, **kwargs: Any) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    try:
        signal.raise_signal(signal.SIGINT)
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("where", "how", "code", "said"),
    [
        ("pathlib.Path.write_bytes", fill_the_disk, 1, "No space left on device"),
        ("pathlib.Path.write_text", fill_the_disk, 1, "No space left on device"),
        ("pathlib.Path.write_bytes", interrupt, 130, "dlb: interrupted\n"),
        ("pathlib.Path.write_text", interrupt, 130, "dlb: interrupted\n"),
        ("pathlib.Path.rename", interrupt, 130, "dlb: interrupted\n"),
    ],
)
def test_what_cannot_be_written_whole_is_not_there(dlb, place, models, result, monkeypatch, where, how, code, said):
    monkeypatch.setattr("dlb_core.cli.named._run", lambda *args: lambda: result)
    call = ("explain", "--model", str(models / "sentiment"), "--text", TEXT, "--out", "a/result")
    before = place.entries()
    for _ in range(2):
        with monkeypatch.context() as patch:
            patch.setattr(where, how)
            answer = dlb(*call)
        assert (answer.code, answer.out) == (code, "")
        assert said in answer.err
        assert "Traceback" not in answer.err
        assert place.entries() == before
        assert dlb(*call).code == 0  # and the next time what is there stays as it is
        before = place.entries()


def test_ctrl_c_while_it_writes(dlb, place, models, monkeypatch):
    from transformers import LlamaForCausalLM

    calls = []
    forward = LlamaForCausalLM.forward

    @functools.wraps(forward)
    def slow(self, *args: Any, **kwargs: Any) -> Any:
        cache = kwargs.get("past_key_values")
        if cache is not None and cache.get_seq_length():  # a prompt was read, and tokens are being written
            calls.append(cache.get_seq_length())
            if len(calls) == 3:
                interrupt()
        return forward(self, *args, **kwargs)

    monkeypatch.setattr(LlamaForCausalLM, "forward", slow)
    before, state = place.entries(), torch.get_rng_state()
    answer = dlb("explain", "--model", str(models / "writer"), "--generate", "--text", PROMPT, "--max-new-tokens", "40")
    assert (answer.code, answer.out, answer.err) == (130, "", "dlb: interrupted\n")
    assert len(calls) == 3
    assert place.entries() == before
    assert torch.equal(torch.get_rng_state(), state)


NAMED = ("explain", "--model", "m")


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("explain", "a:b", "--text", "hi"), "--text goes with --model NAME"),
        (("explain", "a:b", "--generate"), "--generate goes with --model NAME"),
        ((*NAMED, "a:b", "--text", "hi"), "MODEL does not go with --model"),
        ((*NAMED, "--text", "hi", "--input", "x.npy"), "--input does not go with --model"),
        ((*NAMED, "--text", "hi", "--plan"), "--plan does not go with --model"),
        ((*NAMED, "--text", "hi", "--tracer", "tape"), "--tracer does not go with --model"),
        (NAMED, "give --text TEXT or --image FILE"),
        ((*NAMED, "--text", "hi", "--image", "x.png"), "give --text TEXT or --image FILE"),
        ((*NAMED, "--generate"), "give it with --text"),
        ((*NAMED, "--generate", "--text", "hi", "--target", "1"), "--target does not go with --generate"),
        ((*NAMED, "--generate", "--text", "hi", "--max-new-tokens", "0"), "must be at least 1"),
        ((*NAMED, "--text", "hi", "--max-new-tokens", "3"), "--max-new-tokens goes with --generate"),
        (
            (*NAMED, "--generate", "--text", "hi", "--report", "--beside", "flat"),
            "--beside does not go with --generate",
        ),
        ((*NAMED, "--text", "hi", "--classes", "x.txt"), "--classes does not go with --model"),
        ((*NAMED, "--text", "hi", "--top", "0"), "--top 0"),
        ((*NAMED, "--text", "hi", "--mode", "magic"), "unknown mode 'magic'"),
        ((*NAMED, "--text", "hi", "--option", "nothing=1"), "has no option 'nothing'"),
        ((*NAMED, "--text", "hi", "--multiplier", "nan"), "multiplier"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_a_mixture_is_refused_before_anything_is_loaded(dlb, place, monkeypatch, argv, said):
    monkeypatch.setattr(DLBacktracePipeline, "load", lambda *args: pytest.fail("too late"))
    answer = dlb(*argv)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("bare_encoder", "--text", "hi"), "would be random numbers"),
        (("sentiment", "--text", "hi", "--target", "happy"), "one of 'negative', 'positive', 'neutral'"),
        (("sentiment", "--text", "hi", "--target", "7"), "0 .. 2"),
        (("sentiment", "--text", "hi", "--target", "0", "--target", "1"), "--target is given twice"),
        (("seer", "--image", "nowhere.png"), "nowhere.png: no such file"),
        (("./nowhere", "--text", "hi"), "no folder here"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_explained_is_one_sentence(dlb, place, models, argv, said):
    before = place.entries()
    answer = dlb("explain", "--model", str(models / argv[0]), *argv[1:])
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert "Traceback" not in answer.err
    assert place.entries() == before


def test_offline_a_name_says_how_to_give_a_folder(dlb, place, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setenv("HF_HUB_CACHE", str(place.path))
    answer = dlb("explain", "--model", "nobody/nothing", "--text", "hi")
    assert answer.code == 2
    assert "give --model FOLDER" in answer.err
