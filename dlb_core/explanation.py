"""`Explanation`: one result with its books, saved as safetensors and JSON."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlb_core.comparison import Comparison, compare
from dlb_core.experts import ExpertLayer, from_saved, to_save
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.relevance import Relevance
from dlb_core.saved import TENSORS, Format
from dlb_core.targets import Contrast, Query

FORMAT = "dlb-explanation"
HEAD = "explanation.json"
FILES = Format(FORMAT, 1, HEAD, "explanation")
__all__ = ["FORMAT", "HEAD", "TENSORS", "Explanation"]


@dataclass(frozen=True)
class Explanation:
    """What was explained and the answer.

    relevance: the mapping name -> tensor that was asked for (`keep=`). inputs: relevance of the explained inputs.
    ledger: where the seed went. output: the explained output of the model. target: what was explained, one per
    sample. mode, options: how.
    """

    relevance: Relevance
    output: Tensor
    options: Mapping[str, Any] = field(default_factory=dict)

    @property
    def inputs(self) -> dict[str, Tensor]:
        """Relevance of the explained inputs by name, each shaped like its input."""
        return self.relevance.inputs

    @property
    def positive(self) -> Relevance:
        """Contrastive: what speaks for the target; see `Relevance.positive`."""
        return self.relevance.positive

    @property
    def negative(self) -> Relevance:
        """Contrastive: what speaks against the target."""
        return self.relevance.negative

    @property
    def ledger(self) -> Any:
        """The `Ledger`, or a tuple of them after `targets=[...]`."""
        return self.relevance.ledger

    def by_module(self) -> Any:
        """Module path -> units in, out and booked; a tuple of them after `targets=[...]`."""
        return self.relevance.by_module()

    def compare(self, other: Explanation, *, top: int | None = None, differences: int = 5) -> Comparison:
        """How alike two explanations of the same inputs are: rank correlation, overlap of the top, where they differ.

        top: how many features count as the largest (default: a tenth of them). differences: how many changed features
        to name per input. Modes, models, targets and units may differ; raises ValueError for inputs that do not match.
        """
        return compare(self, other, top=top, differences=differences)

    @property
    def experts(self) -> dict[str, ExpertLayer]:
        """What each expert contributed, by layer; see `Relevance.experts`."""
        return self.relevance.experts

    @property
    def target(self) -> Any:
        """The target of each sample, as it was chosen."""
        return self.relevance.target

    @property
    def mode(self) -> str:
        """The mode's name."""
        return self.relevance.mode

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``explanation.json`` and ``tensors.safetensors`` into a new folder, all of it or nothing.

        An earlier explanation in that folder is replaced; a folder with other things in it is refused
        (`FileExistsError`). Returns the folder.
        """
        return FILES.save(folder, *_written(self))

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Explanation:
        """Reads a saved explanation; nothing in the files is executed. Raises `ExplanationFileError`."""
        head, tensors = FILES.load(folder)
        try:
            return _rebuild(head, tensors)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FILES.incomplete(folder, error) from None

    def __str__(self) -> str:
        return f"mode {self.mode}, target {self.target}\n" + "\n".join(map(str, self.relevance.ledgers))


def _written(explanation: Explanation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The head and the tensors of its files."""
    relevance = explanation.relevance
    flat: dict[str, Tensor] = {"output": explanation.output}
    entries: dict[str, int | None] = {}
    maps: dict[str, Mapping[str, Any]] = {"relevance": relevance, "total": relevance.total or {}}
    for kind, each in maps.items():
        for name, value in each.items():
            parts = value if isinstance(value, (tuple, list)) else None
            entries[name] = None if parts is None else len(parts)
            for i, part in enumerate(parts if parts is not None else (value,)):
                flat[f"{kind}/{name}" if parts is None else f"{kind}/{name}/{i}"] = part
    experts: dict[str, Any] = {}
    for kind, one in (("relevance", relevance), ("total", relevance.total)):
        if one is not None and one.routed:
            experts[kind], more = to_save(one.experts, f"experts/{kind}")
            flat |= more
    target, targets = _encode(relevance.target, flat)
    head = {
        "mode": relevance.mode,
        "options": {k: v for k, v in explanation.options.items() if isinstance(v, (str, int, float, bool, type(None)))},
        "target": target,
        "target_tensors": targets,
        "several": relevance.several,
        "inputs": list(relevance.inputs),
        "entries": entries,
        "experts": experts if relevance.routed else None,
        "ledgers": [ledger_out(ledger) for ledger in relevance.ledgers],
        "total_ledgers": [ledger_out(ledger) for ledger in relevance.total.ledgers] if relevance.total else None,
    }
    return head, flat


def _encode(target: Any, flat: dict[str, Tensor]) -> tuple[Any, int]:
    """A target as JSON; tensors inside go to the tensor file, tuples keep being tuples."""
    count = 0

    def walk(value: Any) -> Any:
        nonlocal count
        if isinstance(value, Tensor):
            flat[f"target/{count}"] = value
            count += 1
            return {"tensor": count - 1}
        if isinstance(value, tuple):
            return {"tuple": [walk(v) for v in value]}
        if isinstance(value, list):
            return [walk(v) for v in value]
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop, value.step]}
        if isinstance(value, Mapping):
            return {"outputs": [[name, walk(one)] for name, one in value.items()]}
        if isinstance(value, (Contrast, Query)):
            return {type(value).__name__: {f.name: walk(getattr(value, f.name)) for f in fields(value)}}
        return value

    return walk(target), count


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[f"target/{value['tensor']}"]
        if "slice" in value:
            return slice(*value["slice"])
        if "outputs" in value:
            return {name: _decode(v, tensors) for name, v in value["outputs"]}
        for named in (Contrast, Query):
            if named.__name__ in value:
                return named(**{name: _decode(v, tensors) for name, v in value[named.__name__].items()})
        return tuple(_decode(v, tensors) for v in value["tuple"])
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    return value


def ledger_out(ledger: Ledger) -> dict[str, Any]:
    data = asdict(ledger)
    data["tolerance"] = None if math.isinf(ledger.tolerance) else ledger.tolerance
    return data


def ledger_in(data: dict[str, Any]) -> Ledger:
    by_node = data.pop("by_node").items()
    nodes = {name: NodeEntry(**{**entry, "modules": tuple(entry["modules"])}) for name, entry in by_node}
    tolerance = data.pop("tolerance")
    return Ledger(**data, by_node=nodes, tolerance=math.inf if tolerance is None else tolerance)


def _rebuild(head: dict[str, Any], tensors: Mapping[str, Tensor]) -> Explanation:
    target = _decode(head["target"], tensors)

    def named(folder: str, ledgers: Any, total: Relevance | None = None) -> Relevance:
        found: dict[str, Any] = {}
        for name, count in head["entries"].items():
            path = f"{folder}/{name}"
            found[name] = tensors[path] if count is None else tuple(tensors[f"{path}/{i}"] for i in range(count))
        books = tuple(ledger_in(entry) for entry in ledgers)
        layers = head.get("experts", {})
        routed = (
            None
            if layers is None
            else from_saved(layers.get(folder, []), f"experts/{folder}", tensors, books, head["several"])
        )
        return Relevance(
            found,
            books,
            experts=routed,
            inputs=tuple(head["inputs"]),
            target=target,
            mode=head["mode"],
            several=head["several"],
            total=total,
            why_not=lambda name: "not in the saved explanation",
        )

    whole = head.get("total_ledgers")
    relevance = named("relevance", head["ledgers"], None if whole is None else named("total", whole))
    output = tensors["output"]
    assert isinstance(output, torch.Tensor)
    return Explanation(relevance=relevance, output=output, options=head["options"])
