"""`Explanation`: one result with its books, saved as safetensors and JSON."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import secrets
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dlb_core.comparison import Comparison, compare
from dlb_core.errors import ExplanationFileError
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.relevance import Relevance
from dlb_core.targets import Contrast, Query

FORMAT = "dlb-explanation"
FORMAT_VERSION = 1
HEAD, TENSORS = "explanation.json", "tensors.safetensors"


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
        path = Path(folder)
        if path.exists() and not _is_ours(path):
            raise FileExistsError(f"{path} exists and is no explanation of ours: choose another folder")
        work = path.with_name(f".{path.name}-{secrets.token_hex(4)}")
        work.mkdir(parents=True)
        try:
            _write(self, work)
            if path.exists():
                shutil.rmtree(path)
            work.rename(path)
        except BaseException:
            shutil.rmtree(work, ignore_errors=True)
            raise
        return path

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> Explanation:
        """Reads a saved explanation; nothing in the files is executed. Raises `ExplanationFileError`."""
        path = Path(folder)
        try:
            head = json.loads((path / HEAD).read_text("utf-8"))
        except FileNotFoundError:
            raise ExplanationFileError(f"{path} holds no {HEAD}: it is no saved explanation") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ExplanationFileError(f"{path / HEAD} cannot be read: {error}") from None
        if not isinstance(head, dict) or head.get("format") != FORMAT:
            raise ExplanationFileError(f"{path / HEAD} is not a dlb explanation")
        if head.get("version") != FORMAT_VERSION:
            raise ExplanationFileError(
                f"{path} was written in format version {head.get('version')!r}; this dlb reads {FORMAT_VERSION}"
            )
        tensors = _read_tensors(path / TENSORS, head.get("sha256"))
        try:
            return _rebuild(head, tensors)
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise ExplanationFileError(f"{path / HEAD} is incomplete: {type(error).__name__}: {error}") from None

    def __str__(self) -> str:
        return f"mode {self.mode}, target {self.target}\n" + "\n".join(map(str, self.relevance.ledgers))


def _is_ours(path: Path) -> bool:
    """Is this an empty folder, or one that holds an earlier explanation and nothing else?"""
    names = {entry.name for entry in path.iterdir()} if path.is_dir() and not path.is_symlink() else {"?"}
    if not names:
        return True
    if not {HEAD} <= names <= {HEAD, TENSORS}:
        return False
    with contextlib.suppress(OSError, ValueError, AttributeError):
        return bool(json.loads((path / HEAD).read_text("utf-8")).get("format") == FORMAT)
    return False


def _write(explanation: Explanation, folder: Path) -> None:
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
    target, targets = _encode(relevance.target, flat)
    # written as bytes, so that the file has the permissions of any new file
    (folder / TENSORS).write_bytes(save({k: v.detach().cpu().contiguous().clone() for k, v in flat.items()}))
    head = {
        "format": FORMAT,
        "version": FORMAT_VERSION,
        "mode": relevance.mode,
        "options": {k: v for k, v in explanation.options.items() if isinstance(v, (str, int, float, bool, type(None)))},
        "target": target,
        "target_tensors": targets,
        "several": relevance.several,
        "inputs": list(relevance.inputs),
        "entries": entries,
        "ledgers": [_ledger_out(ledger) for ledger in relevance.ledgers],
        "total_ledgers": [_ledger_out(ledger) for ledger in relevance.total.ledgers] if relevance.total else None,
        "sha256": _digest(folder / TENSORS),
    }
    (folder / HEAD).write_text(json.dumps(head, indent=1), "utf-8")


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


def _ledger_out(ledger: Ledger) -> dict[str, Any]:
    data = asdict(ledger)
    data["tolerance"] = None if math.isinf(ledger.tolerance) else ledger.tolerance
    return data


def _ledger_in(data: dict[str, Any]) -> Ledger:
    by_node = data.pop("by_node").items()
    nodes = {name: NodeEntry(**{**entry, "modules": tuple(entry["modules"])}) for name, entry in by_node}
    tolerance = data.pop("tolerance")
    return Ledger(**data, by_node=nodes, tolerance=math.inf if tolerance is None else tolerance)


def _read_tensors(path: Path, digest: Any) -> dict[str, Tensor]:
    try:
        if _digest(path) != digest:
            raise ExplanationFileError(
                f"{path} is not what was saved (truncated or changed): save the explanation again"
            )
        return dict(load_file(path))
    except FileNotFoundError:
        raise ExplanationFileError(f"{path} is missing: the explanation is incomplete") from None
    except (SafetensorError, OSError) as error:
        raise ExplanationFileError(f"{path} cannot be read: {error}") from None


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _rebuild(head: dict[str, Any], tensors: Mapping[str, Tensor]) -> Explanation:
    target = _decode(head["target"], tensors)

    def named(folder: str, ledgers: Any, total: Relevance | None = None) -> Relevance:
        found: dict[str, Any] = {}
        for name, count in head["entries"].items():
            path = f"{folder}/{name}"
            found[name] = tensors[path] if count is None else tuple(tensors[f"{path}/{i}"] for i in range(count))
        return Relevance(
            found,
            tuple(_ledger_in(entry) for entry in ledgers),
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
