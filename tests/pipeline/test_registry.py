"""Names and settings: where a name leads, what a setting may be, and what is said to a wrong one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlb_core import DLBacktracePipeline, ModelRegistry, PipelineConfig

PROMISED = (
    "resnet vgg densenet efficientnet mobilenet vit bert-base roberta distilbert albert electra xlnet gpt2 llama3.2-1b "
    "llama3.2-3b llama3.1-8b qwen3-0.6b qwen3-1.7b qwen3-4b qwen3-8b qwen3-14b jetmoe olmoe qwen3-moe gpt-oss"
)


def test_every_name_leads_to_one_checkpoint() -> None:
    registry = ModelRegistry()
    assert [*registry] == PROMISED.split()
    for entry in registry.values():
        for task in entry.sources:
            source = registry.resolve(entry.name, task)
            assert source.kind == "torchvision" or source.where.count("/") == 1
    assert len(registry.table()) == len(registry)


def test_a_name_of_ones_own(tmp_path: Path) -> None:
    registry = ModelRegistry()
    entry = registry.register_custom_model("mine", tmp_path, labels=("no", "yes"))
    assert registry["mine"] is entry
    source = registry.resolve("mine", "text-classification")
    assert (source.kind, source.where, source.folder, source.labels) == (
        "transformers",
        str(tmp_path),
        True,
        ("no", "yes"),
    )
    registry.register_custom_model("both", {"generation": "me/writes", "text-classification": "me/reads"})
    assert registry.resolve("both", "generation").where == "me/writes"
    assert "mine" not in ModelRegistry()
    for name, source_, why in [
        ("mine", "me/reads", "taken"),
        ("bert-base", "me/reads", "taken"),
        ("a/b", "me/reads", "slashes"),
        ("", "me/reads", "short name"),
        ("x", {}, "empty"),
        ("x", {"poetry": "me/reads"}, "poetry"),
    ]:
        with pytest.raises(ValueError, match=why):
            registry.register_custom_model(name, source_)
    assert registry.register_custom_model("mine", "me/reads", replace=True).sources == {
        "text-classification": "me/reads"
    }


def test_where_a_name_leads(tmp_path: Path) -> None:
    registry = ModelRegistry()
    assert registry.resolve("owner/name", "generation").where == "owner/name"
    assert registry.resolve("vgg", "image-classification").kind == "torchvision"
    assert registry.resolve("resnet18", "image-classification", weights=True).kind == "torchvision"
    assert registry.resolve(str(tmp_path), "generation").folder
    with pytest.raises(ValueError, match=r"'gpt2' is for generation .* choose bert-base"):
        registry.resolve("gpt2", "text-classification")
    for missing in (str(tmp_path / "none"), "./none", "~/none", "a/b/c"):
        with pytest.raises(FileNotFoundError, match="no folder here"):
            registry.resolve(missing, "generation")
    file = tmp_path / "model.bin"
    file.touch()
    with pytest.raises(FileNotFoundError, match="name the folder"):
        registry.resolve(str(file), "generation")
    with pytest.raises(KeyError, match="did you mean 'distilbert'"):
        registry["distil-bert"]


def test_settings_come_from_a_mapping_and_go_back_to_one() -> None:
    settings = {"model_name": "gpt2", "mode": "epsilon", "mode_options": {"eps": 1e-3}, "labels": ["a", "b"]}
    config = PipelineConfig.from_dict(json.loads(json.dumps(settings)))
    assert (config.model_name, config.mode, config.labels) == ("gpt2", "epsilon", ("a", "b"))
    assert PipelineConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config
    assert DLBacktracePipeline(settings).config == config
    assert DLBacktracePipeline.create_simple("gpt2", mode="epsilon").config.device == "cpu"
    assert DLBacktracePipeline().config == PipelineConfig()


@pytest.mark.parametrize(
    ("settings", "why"),
    [
        ({"modle_name": "gpt2"}, "did you mean 'model_name'"),
        ({"zzz": 1}, "choose from model_name, device"),
        ({"model_name": ""}, "model_name"),
        ({"model_name": 3}, "model_name"),
        ({"multiplier": 0}, "multiplier"),
        ({"multiplier": "100"}, "multiplier"),
        ({"scaler": float("inf")}, "scaler"),
        ({"max_length": 0}, "max_length"),
        ({"max_length": True}, "max_length"),
        ({"num_classes": 2.5}, "num_classes"),
        ({"labels": "positive"}, "labels"),
        ({"dtype": "int8"}, "dtype"),
        ({"check": "no"}, "check"),
        ({"local_files_only": "yes"}, "local_files_only"),
        ({"pictures": True}, "output_dir"),
    ],
)
def test_a_wrong_setting_is_named(settings: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        PipelineConfig.from_dict(settings)
