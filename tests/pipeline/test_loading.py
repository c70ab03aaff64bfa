"""Loading: models whole or not at all, no random heads, no code, no network where there is none."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import nn
from torchvision.models import MobileNet_V3_Small_Weights, densenet121, mobilenet_v3_small, resnet18

from dlb_core import DLBacktracePipeline, ModelLoadError, ModelRegistry
from dlb_core.pipeline import loading
from pipeline import makers

LABELS = ["negative", "positive", "neutral"]


def pipeline(where: str | Path, **settings: Any) -> DLBacktracePipeline:
    return DLBacktracePipeline.create_simple(str(where), **settings)


def test_a_folder_is_loaded_as_it_was_saved(sentiment: DLBacktracePipeline) -> None:
    loaded = sentiment.load("text-classification")
    direct = transformers.AutoModelForSequenceClassification.from_pretrained(sentiment.config.model_name).eval()
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), direct.parameters(), strict=True))
    assert not loaded.model.training
    assert [*loaded.labels] == LABELS
    assert loaded.most == 40
    assert sentiment.load("text-classification") is loaded


def test_a_head_that_would_be_random_is_refused(tmp_path: Path, sentiment: DLBacktracePipeline) -> None:
    bare = makers.bare_encoder(tmp_path / "bare")
    with pytest.raises(ModelLoadError, match=r"classifier\.bias, classifier\.weight would be random numbers"):
        pipeline(bare).run_simple_analysis("A terrible product")
    with pytest.raises(ModelLoadError, match="was not trained for generation"):
        pipeline(sentiment.config.model_name).run_text_generation("the quick")


def test_a_head_of_another_size_is_refused(tmp_path: Path) -> None:
    where = makers.sentiment(tmp_path / "model")
    settings = json.loads((tmp_path / "model" / "config.json").read_text())
    settings["id2label"] = {"0": "a", "1": "b"}
    settings["label2id"] = {"a": 0, "b": 1}
    (tmp_path / "model" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ModelLoadError, match=r"classifier\.bias, classifier\.weight would be random"):
        pipeline(where).run_simple_analysis("A terrible product")


def test_what_fills_gaps_does_not_write(tmp_path: Path) -> None:
    model = makers.seeded(lambda: transformers.BertForMaskedLM(makers.bert_config()))
    model.save_pretrained(tmp_path)  # type: ignore[operator]
    makers.wordpiece().save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="BertForMaskedLM, which was not trained to write"):
        pipeline(tmp_path).run_text_generation("the quick")


def test_a_folder_without_a_tokenizer_or_a_model_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="its config cannot be read from"):
        pipeline(tmp_path).run_simple_analysis("x")
    makers.seeded(lambda: transformers.BertForSequenceClassification(makers.bert_config())).save_pretrained(tmp_path)
    with pytest.raises(ModelLoadError, match="no tokenizer in"):
        pipeline(tmp_path).run_simple_analysis("x")


def test_code_that_comes_with_a_checkpoint_is_not_run(tmp_path: Path) -> None:
    ran = tmp_path / "ran"
    (tmp_path / "evil.py").write_text(f"open({str(ran)!r}, 'w')\nclass Evil: pass\n")
    entry = {"model_type": "evil", "auto_map": {"AutoConfig": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(entry))
    with pytest.raises(ModelLoadError, match="cannot be read"):
        pipeline(tmp_path).run_simple_analysis("x")
    assert not ran.exists()


def test_without_a_network_a_hub_name_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "_reachable", lambda: False)
    with pytest.raises(ModelLoadError, match=r"textattack/bert-base-uncased-SST-2 .* give model_name=FOLDER"):
        pipeline("bert-base").run_simple_analysis("x")
    with pytest.raises(ModelLoadError, match="did you mean 'distilbert'"):
        pipeline("distil-bert").run_simple_analysis("x")
    monkeypatch.setattr(loading, "_reachable", lambda: pytest.fail("asked the network"))
    with pytest.raises(ModelLoadError, match="out of reach"):
        pipeline("nobody/nothing", local_files_only=True).run_simple_analysis("x")


def test_labels_of_a_checkpoint_that_has_none(tmp_path: Path) -> None:
    config = makers.bert_config(id2label={0: "LABEL_0", 1: "LABEL_1"})
    makers.seeded(lambda: transformers.BertForSequenceClassification(config)).save_pretrained(tmp_path)
    makers.wordpiece().save_pretrained(tmp_path)
    registry = ModelRegistry()
    registry.register_custom_model("films", tmp_path, labels=("negative", "positive"))
    found = DLBacktracePipeline.create_simple("films", registry=registry).run_simple_analysis("amazing", "Positive")
    assert found["explained"] == ["positive"]
    assert found["relevance"].target == 1 or found["relevance"].target == [1]
    assert pipeline(tmp_path, labels=("bad", "good")).load("text-classification").labels == ("bad", "good")
    with pytest.raises(ModelLoadError, match="3 labels for a model of 2"):
        pipeline(tmp_path, labels=("a", "b", "c")).load("text-classification")


def test_loading_leaves_the_random_state_alone(folder: Path) -> None:
    where = makers.sentiment(folder / "again")
    before = torch.get_rng_state()
    pipeline(where).load("text-classification")
    assert torch.equal(before, torch.get_rng_state())


# torchvision


@pytest.mark.parametrize("suffix", [".pt", ".safetensors"])
def test_torchvision_with_a_local_file(tmp_path: Path, suffix: str) -> None:
    model = makers.seeded(lambda: resnet18(num_classes=3))
    file = tmp_path / f"weights{suffix}"
    _save(model, file)
    made = pipeline("resnet18", weights=file, num_classes=3, labels=("cat", "dog", "fox"))
    loaded = made.load("image-classification")
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), model.parameters(), strict=True))
    assert loaded.labels == ("cat", "dog", "fox")
    assert loaded.images is not None
    assert loaded.images([torch.zeros(300, 400, 3, dtype=torch.uint8).numpy()]).shape == (1, 3, 224, 224)
    with pytest.raises(ModelLoadError, match="num_classes="):
        pipeline("resnet18", weights=file).load("image-classification")


def test_published_weights_come_from_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    registry = ModelRegistry()
    registry.register_custom_model("small", "torchvision:mobilenet_v3_small", task="image-classification")
    made = DLBacktracePipeline.create_simple("small", registry=registry, local_files_only=True)
    with pytest.raises(ModelLoadError, match=r"download https://.*mobilenet_v3_small.* give weights=FILE"):
        made.load("image-classification")
    model = makers.seeded(mobilenet_v3_small)
    file = tmp_path / "checkpoints" / Path(MobileNet_V3_Small_Weights.DEFAULT.url).name
    file.parent.mkdir()
    torch.save(model.state_dict(), file)
    loaded = made.load("image-classification")
    assert all(torch.equal(a, b) for a, b in zip(loaded.model.parameters(), model.parameters(), strict=True))
    assert loaded.labels[:2] == ("tench", "goldfish")
    with pytest.raises(ModelLoadError, match="num_classes= needs weights="):
        pipeline("vgg", num_classes=3).load("image-classification")


def test_the_old_spelling_of_densenets_weights(tmp_path: Path) -> None:
    model = makers.seeded(densenet121)
    old = {
        key.replace(".norm1.", ".norm.1.").replace(".conv2.", ".conv.2."): value
        for key, value in model.state_dict().items()
    }
    assert old.keys() != model.state_dict().keys()
    torch.save(old, tmp_path / "weights.pth")
    made = pipeline("densenet", weights=tmp_path / "weights.pth").load("image-classification")
    assert all(torch.equal(value, made.model.state_dict()[key]) for key, value in model.state_dict().items())


def test_files_that_are_no_weights(tmp_path: Path) -> None:
    (tmp_path / "text.pt").write_text("no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    torch.save(nn.Linear(2, 2), tmp_path / "pickle.pt")
    for name, why in [
        ("none.pt", "no such file"),
        ("text.pt", "read safely"),
        ("list.pt", "no state_dict"),
        ("pickle.pt", "read safely"),
    ]:
        with pytest.raises(ModelLoadError, match=why):
            pipeline("resnet18", weights=tmp_path / name).load("image-classification")
    with pytest.raises(ModelLoadError, match="no classifier 'resnet19'"):
        pipeline("resnet19", weights=tmp_path / "list.pt").load("image-classification")
    with pytest.raises(ModelLoadError, match="for images, not for text-classification"):
        pipeline("resnet18", weights=tmp_path / "list.pt").load("text-classification")


def test_weights_belong_to_torchvision(sentiment: DLBacktracePipeline, tmp_path: Path) -> None:
    with pytest.raises(ModelLoadError, match="torchvision constructor"):
        pipeline(sentiment.config.model_name, weights=tmp_path / "x.pt").load("text-classification")


def test_a_device_that_is_not_there(sentiment: DLBacktracePipeline) -> None:
    with pytest.raises(ModelLoadError, match="device='cuda:77'"):
        pipeline(sentiment.config.model_name, device="cuda:77").load("text-classification")


def _save(model: nn.Module, file: Path) -> None:
    if file.suffix == ".safetensors":
        from safetensors.torch import save_file

        save_file(model.state_dict(), file)
    else:
        torch.save({"state_dict": model.state_dict()}, file)
