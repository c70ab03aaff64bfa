"""Short names: which checkpoint a name means for a task."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType

from dlb_core.table import Table

TEXT, IMAGE, WRITE = "text-classification", "image-classification", "generation"
TOKEN = "token-classification"
TORCHVISION = "torchvision:"
SST2 = ("negative", "positive")  # the films' labels, which their checkpoints call LABEL_0 and LABEL_1


@dataclass(frozen=True)
class ModelEntry:
    """A short name. sources: task -> hub id, folder or ``torchvision:constructor``. labels: where they do not tell."""

    name: str
    sources: Mapping[str, str]
    labels: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """Where a model comes from: `kind` "transformers" (hub id or folder) or "torchvision" (a constructor).

    hint: a name of the registry that may have been meant.
    """

    kind: str
    where: str
    labels: tuple[str, ...] = ()
    folder: bool = False
    hint: str = ""


# A bare encoder has no head and decides nothing: for these a checkpoint that was trained on films' reviews (SST-2).
TABLE = (
    ModelEntry("resnet", {IMAGE: "microsoft/resnet-50"}),
    ModelEntry("vgg", {IMAGE: "torchvision:vgg16"}),
    ModelEntry("densenet", {IMAGE: "torchvision:densenet121"}),
    ModelEntry("efficientnet", {IMAGE: "google/efficientnet-b0"}),
    ModelEntry("mobilenet", {IMAGE: "google/mobilenet_v2_1.0_224"}),
    ModelEntry("vit", {IMAGE: "google/vit-base-patch16-224"}),
    ModelEntry("bert-base", {TEXT: "textattack/bert-base-uncased-SST-2"}, SST2),
    ModelEntry("roberta", {TEXT: "textattack/roberta-base-SST-2"}, SST2),
    ModelEntry("distilbert", {TEXT: "distilbert/distilbert-base-uncased-finetuned-sst-2-english"}),
    ModelEntry("albert", {TEXT: "textattack/albert-base-v2-SST-2"}, SST2),
    ModelEntry("electra", {TEXT: "howey/electra-base-sst2"}, SST2),
    ModelEntry("xlnet", {TEXT: "textattack/xlnet-base-cased-SST-2"}, SST2),
    ModelEntry("gpt2", {WRITE: "openai-community/gpt2"}),
    ModelEntry("llama3.2-1b", {WRITE: "meta-llama/Llama-3.2-1B"}),
    ModelEntry("llama3.2-3b", {WRITE: "meta-llama/Llama-3.2-3B"}),
    ModelEntry("llama3.1-8b", {WRITE: "meta-llama/Llama-3.1-8B"}),
    ModelEntry("qwen3-0.6b", {WRITE: "Qwen/Qwen3-0.6B"}),
    ModelEntry("qwen3-1.7b", {WRITE: "Qwen/Qwen3-1.7B"}),
    ModelEntry("qwen3-4b", {WRITE: "Qwen/Qwen3-4B"}),
    ModelEntry("qwen3-8b", {WRITE: "Qwen/Qwen3-8B"}),
    ModelEntry("qwen3-14b", {WRITE: "Qwen/Qwen3-14B"}),
    ModelEntry("jetmoe", {WRITE: "jetmoe/jetmoe-8b"}),
    ModelEntry("olmoe", {WRITE: "allenai/OLMoE-1B-7B-0924"}),
    ModelEntry("qwen3-moe", {WRITE: "Qwen/Qwen3-30B-A3B"}),
    ModelEntry("gpt-oss", {WRITE: "openai/gpt-oss-20b"}),
)
KNOWN_TASKS = (TEXT, IMAGE, TOKEN, WRITE)


class ModelRegistry(Mapping[str, ModelEntry]):
    """Name -> `ModelEntry`: the table above and what `register_custom_model` adds to this registry."""

    def __init__(self) -> None:
        self._entries = {entry.name: entry for entry in TABLE}

    def __getitem__(self, name: str) -> ModelEntry:
        if name not in self._entries:
            hint = _near(name, self._entries)
            raise KeyError(f"no model is called {name!r}; {hint}there are {', '.join(self._entries)}")
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, name: object) -> bool:
        return name in self._entries

    def register_custom_model(
        self,
        name: str,
        source: str | Path | Mapping[str, str | Path],
        *,
        task: str = TEXT,
        labels: tuple[str, ...] = (),
        replace: bool = False,
    ) -> ModelEntry:
        """Adds a name for a hub id, a folder or ``torchvision:constructor``; or for several of them, by task.

        labels: the names of the classes, where the model does not tell. Raises ValueError for a name that is taken
        (`replace=True` takes it) and for unknown tasks.
        """
        if not name or "/" in name or name != name.strip():
            raise ValueError(f"name={name!r}: give a short name without slashes, which are for hub ids and folders")
        if name in self._entries and not replace:
            raise ValueError(f"{name!r} is taken ({_told(self._entries[name])}): choose another, or give replace=True")
        sources = source if isinstance(source, Mapping) else {task: source}
        for asked in sources:
            if asked not in KNOWN_TASKS:
                raise ValueError(f"task={asked!r}: choose one of {', '.join(map(repr, KNOWN_TASKS))}")
        if not sources:
            raise ValueError("source={} is empty: give {task: hub id or folder}")
        entry = ModelEntry(name, MappingProxyType({t: str(s) for t, s in sources.items()}), tuple(labels))
        self._entries[name] = entry
        return entry

    def resolve(self, name: str, task: str, *, weights: bool = False) -> Source:
        """Where `name` leads for a task: an entry, a folder, a torchvision constructor (with `weights`) or a hub id.

        Raises ValueError for an entry that is not for this task, `FileNotFoundError` for a folder that is none.
        """
        labels: tuple[str, ...] = ()
        if name in self._entries:
            entry = self._entries[name]
            if task not in entry.sources:
                fitting = ", ".join(e.name for e in self._entries.values() if task in e.sources)
                raise ValueError(f"{name!r} is for {_told(entry)}, not for {task}; for that choose {fitting or 'none'}")
            name, labels = entry.sources[task], entry.labels
        if name.startswith(TORCHVISION):
            return Source("torchvision", name.removeprefix(TORCHVISION), labels)
        path = Path(name).expanduser()
        if path.is_dir():
            return Source("transformers", str(path), labels, folder=True)
        if weights:
            return Source("torchvision", name, labels)
        if path.exists():
            raise FileNotFoundError(f"{name} is a file: name the folder that save_pretrained wrote")
        if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
            raise FileNotFoundError(f"{name} is no folder here, and no hub id (owner/name)")
        return Source("transformers", name, labels, hint=_near(name, self._entries))

    def table(self) -> Table:
        """Every name with its task and where it leads."""
        rows = [(e.name, task, where) for e in self._entries.values() for task, where in e.sources.items()]
        return Table(("name", "task", "checkpoint"), rows, title="models")


def _near(name: str, known: Iterable[str]) -> str:
    near = get_close_matches(name, [*known], n=1)
    return f"did you mean {near[0]!r}? " if near and near[0] != name else ""


def _told(entry: ModelEntry) -> str:
    return ", ".join(f"{task} ({where})" for task, where in entry.sources.items())
