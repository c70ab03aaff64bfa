"""`DLBacktracePipeline`: load a model by name, turn texts and images into its inputs, explain, and name the results."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlb_core.backtrace import DLBacktrace
from dlb_core.generation.text import example_of
from dlb_core.pipeline.config import PipelineConfig
from dlb_core.pipeline.encoding import Encoded, encode
from dlb_core.pipeline.loading import Loaded, load
from dlb_core.pipeline.registry import IMAGE, TEXT, WRITE, ModelRegistry
from dlb_core.pipeline.result import PipelineResult, of_classes, of_generation
from dlb_core.pipeline.saving import next_folder


class DLBacktracePipeline:
    """Explains what a model said about a text or an image, or what it wrote, by the model's name.

    config: a `PipelineConfig` or a mapping of its settings. registry: a `ModelRegistry` with names of your own. The
    model is loaded when a run first needs it and traced once for each set of inputs; what a run returns holds the
    predictions by label, the relevance, its ledger, and for text the words with their units.
    """

    def __init__(
        self, config: PipelineConfig | Mapping[str, Any] | None = None, *, registry: ModelRegistry | None = None
    ) -> None:
        if config is None:
            config = PipelineConfig()
        self.config = config if isinstance(config, PipelineConfig) else PipelineConfig.from_dict(config)
        self.registry = registry if registry is not None else ModelRegistry()
        self._loaded: dict[str, Loaded] = {}
        self._traced: dict[tuple[str, ...], DLBacktrace] = {}

    @classmethod
    def create_simple(
        cls,
        model_name: str = "bert-base",
        device: str = "cpu",
        *,
        registry: ModelRegistry | None = None,
        **settings: Any,
    ) -> DLBacktracePipeline:
        """A pipeline for a model: a short name, a hub id, a folder; further settings are those of `PipelineConfig`."""
        asked = {"model_name": str(model_name), "device": device, **settings}
        return cls(PipelineConfig.from_dict(asked), registry=registry)

    def run_simple_analysis(
        self, text: str | Sequence[str], label: str | int | Sequence[str | int] | None = None, **options: Any
    ) -> PipelineResult:
        """Which words speak for a label of this text (None: for the label that the model gives it)?"""
        return self.run_text_classification(text, label, **options)

    def run_text_classification(
        self,
        texts: str | Sequence[str],
        label: str | int | Sequence[str | int] | None = None,
        *,
        pair: str | Sequence[str] | None = None,
        **options: Any,
    ) -> PipelineResult:
        """Explains the classes of texts, or of pairs of texts, by their words.

        label: the class to explain, by name or number; one for all texts or one for each (None: the predicted ones).
        options: those of `DLBacktrace.run_task`, instead of the configuration's. The result holds `labels`,
        `probabilities`, `words` and all that a `TaskResult` has. Raises `ModelLoadError`, ValueError.
        """
        loaded = self.load(TEXT)
        given = [texts] if isinstance(texts, str) else [*texts]
        pairs = [pair] if isinstance(pair, str) else None if pair is None else [*pair]
        target = _target(label, loaded.labels, len(given))
        encoded = self._encode(loaded, given, pairs)
        dlb = self._explainer(TEXT, loaded, encoded.tensors, explain=("input_ids",))
        task = "regression" if loaded.problem == "regression" else TEXT
        result = dlb.run_task(task, encoded.tensors, target=target, **self._asked(options))
        return self._done(of_classes(result, loaded, label, texts=given, pairs=pairs, pieces=encoded.pieces))

    def run_image_classification(
        self, images: Any, label: str | int | Sequence[str | int] | None = None, **options: Any
    ) -> PipelineResult:
        """Explains the classes of images by their pixels.

        images: files, pictures of Pillow or arrays [H, W, 3] of bytes, prepared as the model was trained; or a tensor
        [B, C, H, W] that already is. Other arguments as for texts; relevance is of the prepared image.
        """
        loaded = self.load(IMAGE)
        assert loaded.images is not None
        if isinstance(images, Tensor):
            if images.dim() != 4 or not images.is_floating_point():
                raise ValueError(
                    "a tensor of images is what the model takes, [B, C, H, W] in floating numbers; got "
                    f"{list(images.shape)} in {images.dtype}"
                )
            pixels = images.to(next(loaded.model.parameters()).dtype)
        else:
            pictures = [*images] if isinstance(images, (list, tuple)) else [images]
            if not pictures:
                raise ValueError("there is no image")
            pixels = loaded.images(pictures)
        target = _target(label, loaded.labels, len(pixels))
        (name,) = _forward_names(loaded.model)[:1]
        tensors = {name: pixels.to(next(loaded.model.parameters()).device)}
        dlb = self._explainer(IMAGE, loaded, tensors, explain=None)
        result = dlb.run_task(IMAGE, tensors, target=target, **self._asked(options))
        return self._done(of_classes(result, loaded, label, pixels=pixels))

    def run_text_generation(
        self, prompts: str | Sequence[str], *, return_relevance: bool = True, **options: Any
    ) -> PipelineResult:
        """Lets a model write on, and explains each token that it wrote by the words before it.

        options: generation arguments of transformers (`max_new_tokens=`, `temperature=`, `num_beams=`, ...) and those
        of `DLBAutoSampler.generate` (`explain_tokens=`, `chunk=`, ...). The result holds `generated` (the new text of
        each sequence) and `words`: for each sequence and each explained token the words that made it.
        """
        loaded = self.load(WRITE)
        given = [prompts] if isinstance(prompts, str) else [*prompts]
        encoded = self._encode(loaded, given, None, side="left")
        example, names = example_of(loaded.model, encoded.tensors)
        dlb = self._explainer(WRITE, loaded, example, explain=names)
        asked = self._units(options)
        if not (return_relevance or options.get("return_layerwise_output", False)):
            asked = {"mode": asked["mode"]}
        elif "mode" not in options:
            asked["mode_options"] = dict(self.config.mode_options)
        asked |= {"thresholding": self.config.thresholding, "return_relevance": return_relevance, **options}
        result = dlb.run_task(WRITE, encoded.tensors, tokenizer=loaded.tokenizer, **asked)
        return self._done(of_generation(result, loaded, given, encoded))

    def load(self, task: str) -> Loaded:
        """The model for a task, with its tokenizer or image processor. Raises `ModelLoadError`."""
        if task not in self._loaded:
            name, weights = self.config.model_name, self.config.weights is not None
            self._loaded[task] = load(self.registry.resolve(name, task, weights=weights), task, self.config)
        return self._loaded[task]

    def _encode(self, loaded: Loaded, texts: list[str], pairs: list[str] | None, side: str | None = None) -> Encoded:
        takes = [name for name in _forward_names(loaded.model) if name != "labels"]
        length, most = self.config.max_length, loaded.most
        made = encode(loaded.tokenizer, texts, pairs, takes=takes, side=side, max_length=length, most=most)
        device = next(loaded.model.parameters()).device
        return Encoded({name: tensor.to(device) for name, tensor in made.tensors.items()}, made.pieces)

    def _explainer(
        self, task: str, loaded: Loaded, tensors: Mapping[str, Tensor], *, explain: Sequence[str] | None
    ) -> DLBacktrace:
        sizes = [str(list(t.shape[1:])) for t in tensors.values() if t.dim() == 4]  # those of images are not free
        key = (task, *tensors, *sizes)
        if key not in self._traced:
            self._traced[key] = DLBacktrace(
                loaded.model, dict(tensors), explain_inputs=explain, check=self.config.check
            )
        return self._traced[key]

    def _asked(self, options: Mapping[str, Any]) -> dict[str, Any]:
        """The configuration's settings for `run_task` where the call does not say otherwise."""
        for name in ("target", "targets"):
            if name in options:
                raise ValueError(f"{name}= is of DLBacktrace.run_task; here label= says which class to explain")
        inner = dict(self.config.mode_options) if "mode" not in options else {}
        return {**self._units(options), "thresholding": self.config.thresholding, **inner, **options}

    def _units(self, options: Mapping[str, Any]) -> dict[str, Any]:
        config = self.config
        if options.get("seed", "multiplier") != "multiplier":  # units are the output's own
            return {"mode": config.mode, "scaler": config.scaler}
        return {"mode": config.mode, "scaler": config.scaler, "multiplier": config.multiplier}

    def _done(self, result: PipelineResult) -> PipelineResult:
        if self.config.output_dir is None:
            return result
        folder = next_folder(Path(self.config.output_dir), result["task"])
        return result.with_more(folder=result.save(folder, pictures=self.config.pictures))


def _forward_names(model: torch.nn.Module) -> list[str]:
    return [*inspect.signature(model.forward).parameters]


def _target(label: Any, labels: Sequence[str], samples: int) -> Any:
    """Labels as classes: None, one for all samples, or a list with one for each."""
    if label is None or isinstance(label, (str, int)):
        return None if label is None else _class(label, labels)
    asked = [*label]
    if len(asked) != samples:
        raise ValueError(f"{len(asked)} labels for {samples} samples: give one for all or one for each")
    return [_class(one, labels) for one in asked]


def _class(label: Any, labels: Sequence[str]) -> int:
    if isinstance(label, str):
        found = [i for i, name in enumerate(labels) if name == label]
        found = found or [i for i, name in enumerate(labels) if name.lower() == label.strip().lower()]
        if len(found) == 1:
            return found[0]
        known = ", ".join(map(repr, labels[:20])) + (f" and {len(labels) - 20} more" if len(labels) > 20 else "")
        several = "names several classes" if found else "is no label of this model"
        raise ValueError(f"label={label!r} {several}: give a number or one of {known or 'none'}")
    if isinstance(label, bool) or not isinstance(label, int) or (labels and not 0 <= label < len(labels)):
        raise ValueError(f"label={label!r}: give the name or the number of a class (0 .. {len(labels) - 1})")
    return label
