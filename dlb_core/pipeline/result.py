"""What a run returns: the task's result with labels, probabilities and words, as text, data and files."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlb_core.captions import fitting
from dlb_core.explanation import Explanation
from dlb_core.pipeline.encoding import Encoded, written
from dlb_core.pipeline.loading import Loaded
from dlb_core.pipeline.saving import image_pictures, save_result
from dlb_core.pipeline.words import Pieces, Words
from dlb_core.task_result import TaskResult
from dlb_core.viz.text import ColouredText, page


class PipelineResult(TaskResult):
    """A `TaskResult` that knows names: `labels` (predicted), `explained` (of which label), `probabilities`, `words`."""

    def save(self, folder: str | Path, *, pictures: bool = False) -> Path:
        """Writes ``result.json``, the explanation (relevance of the inputs, ledger) and pictures into a new folder.

        All of it or nothing; a folder with anything in it is refused (`FileExistsError`). pictures: heat maps of
        images, for text a page with coloured words. Returns the folder.
        """
        explanation = self["explanation"]
        if isinstance(explanation, Explanation):
            explanation = dataclasses.replace(explanation, relevance=explanation.relevance.of_inputs())
        return save_result(Path(folder), self.to_dict(), explanation, self._pictures() if pictures else None)

    def to_dict(self) -> dict[str, Any]:
        """What is no tensor, as data: the task, the model, texts, labels, probabilities, words."""
        names = (
            "task",
            "decided",
            "model",
            "texts",
            "pairs",
            "labels",
            "probabilities",
            "values",
            "explained",
            "generated",
        )
        found = {name: self[name] for name in names if name in self}
        if "generated_ids" in self:
            found["generated_ids"] = self["generated_ids"].tolist()
            found["words"] = [[words.records() for words in each] for each in self.get("words", ())]
        elif "words" in self:
            found["words"] = [words.records() for words in self["words"]]
        return found

    def _pictures(self) -> dict[str, Any]:
        if "pixels" in self:
            (relevance,) = self["relevance"].inputs.values()
            return image_pictures(relevance, self["images"], self["relevance"].mode)
        return {"words.html": page(self._coloured(), "relevance by words")} if "words" in self else {}

    def _coloured(self) -> Iterator[ColouredText]:
        """Every group of words under a title of its own."""
        if "generated_ids" in self:
            each = len(self["words"]) // len(self["texts"])
            for i, groups in enumerate(self["words"]):
                texts = (self["texts"][i // each], self["generated"][i])
                for step, words in zip(self["steps"], groups, strict=True):
                    yield words.coloured(f"{i + 1}, token {step + 1}: {self['written'][i][step]}", texts)
            return
        pairs = self.get("pairs", ("",) * len(self["texts"]))
        named = zip(self["explained"], self["words"], self["texts"], pairs, strict=True)
        for i, (name, words, text, pair) in enumerate(named):
            yield words.coloured(f"{i + 1}: {name}", (text, pair))

    def __str__(self) -> str:
        lines = [f"{self['model']}: {self['decided']}"]
        for i, name in enumerate(self.get("labels", ())):
            lines.append(f"{i + 1}: {name}, explained: {self['explained'][i]}")
        lines += [f"{i + 1}: {text!r}" for i, text in enumerate(self.get("generated", ()))]
        if "words" in self and "generated_ids" not in self:
            lines += [str(words) for words in self["words"]]
        return "\n".join(lines)


def of_classes(
    result: TaskResult,
    loaded: Loaded,
    label: Any,
    *,
    texts: Sequence[str] | None = None,
    pairs: Sequence[str] | None = None,
    pieces: Sequence[Pieces] = (),
    pixels: Tensor | None = None,
) -> PipelineResult:
    """The result of a classification, named. label: what was asked for."""
    output = result["predictions"]
    more: dict[str, Any] = {"model": loaded.name}
    names: dict[str, Any] = {"model": loaded.name}  # what pictures of the explanation show
    if result["task"] == "regression":
        more["values"] = output.tolist()
        more["labels"] = more["explained"] = ["the value"] * len(output)
    else:
        one = output.dim() < 2 or output.shape[1] == 1
        labels = _sides(loaded.labels) if one else loaded.labels
        scores, best = _probabilities(output, one=one, exclusive=loaded.problem != "multi_label_classification")
        more["labels"] = [_name(labels, i) for i in best]
        more["probabilities"] = [{_name(labels, i): p for i, p in enumerate(row)} for row in scores]
        asked_one = one and label is not None  # the unit, which stands for its class
        more["explained"] = _explained(1 if asked_one else result["relevance"].target, labels, len(output))
        names["classes"] = fitting(loaded.labels, output)
    if texts is not None:
        units = result["relevance"].inputs["input_ids"]
        more["texts"] = [*texts]
        if pairs is not None:
            more["pairs"] = [*pairs]
        more["words"] = tuple(piece.words(row) for piece, row in zip(pieces, units, strict=True))
        names["tokens"] = {"input_ids": [piece.shown() for piece in pieces]}
    if pixels is not None:
        more["pixels"] = pixels
        more["images"] = [loaded.undo(image) if loaded.undo else image for image in pixels]
        if loaded.undo and pixels.shape[1] in (1, 3):
            names["images"] = torch.stack(more["images"])
    more["explanation"] = result["explanation"].captioned(**names)
    return PipelineResult({**result, **more})


def of_generation(result: TaskResult, loaded: Loaded, prompts: Sequence[str], encoded: Encoded) -> PipelineResult:
    """The result of a generation, with the text that was written and the words behind each explained token."""
    ids = result["generated_ids"]
    tokenizer = loaded.tokenizer
    info = result["explanation"]
    model: Any = loaded.model
    encoder = bool(model.config.is_encoder_decoder)
    start = 1 if encoder else encoded.tensors["input_ids"].shape[1]
    start = info.prompt_length if info is not None else start
    told = [written(tokenizer, row[start:].tolist()) for row in ids]
    more: dict[str, Any] = {"model": loaded.name, "texts": [*prompts], "generated": [text for text, *_ in told]}
    more["written"] = [tokens for _, tokens, *_ in told]
    if info is not None and info.relevance is not None:
        each = len(ids) // len(encoded.pieces)
        more["steps"] = [*info.steps]
        more["words"] = tuple(
            _by_words(info, i, encoded.pieces[i // each], told[i], start, encoder) for i in range(len(ids))
        )
    return PipelineResult({**result, **more})


def _by_words(info: Any, i: int, prompt: Pieces, told: Any, start: int, encoder: bool) -> tuple[Words, ...]:
    """The words behind every explained token of sequence i: all that stands before it, an encoder's source first."""
    text, tokens, spans, special = told
    begin = Pieces(prompt.texts, ("<start>",) * start, (None,) * start, (True,) * start) if encoder else prompt
    pieces = begin.and_then(text, tokens, spans, special)
    found: list[Words] = []
    for step, row in zip(info.steps, info.relevance[i], strict=True):
        words = pieces.until(start + step).words(row[: start + step])
        found.append(words if not encoder else _joined(prompt.words(info.source_relevance[i, len(found)]), words))
    return tuple(found)


def _joined(first: Words, second: Words) -> Words:
    return Words((*first.words, *second.words), (*first.special, *second.special))


def _probabilities(output: Tensor, *, one: bool, exclusive: bool) -> tuple[list[list[float]], list[int]]:
    """Probabilities by class of each sample, and the likeliest class; one output is a class and its opposite."""
    output = output.detach().double()
    if one:
        side = output.sigmoid().reshape(-1)
        output = torch.stack([1 - side, side], 1)
    else:
        output = output.softmax(1) if exclusive else output.sigmoid()
    return output.tolist(), output.argmax(1).tolist()


def _sides(labels: Sequence[str]) -> tuple[str, str]:
    (name,) = labels or ("1",)
    return f"not {name}", name


def _explained(target: Any, labels: Sequence[str], samples: int) -> list[str]:
    each = target if isinstance(target, list) else [target] * samples
    return [_name(labels, one) if isinstance(one, int) else str(one) for one in each]


def _name(labels: Sequence[str], index: int) -> str:
    return labels[index] if 0 <= index < len(labels) else str(index)
