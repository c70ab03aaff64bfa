"""Results on disk: a folder with a JSON head and its tensors, written whole or not at all; reading one runs nothing."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from dlb_core.errors import ExplanationFileError
from dlb_core.folder import new_folder

TENSORS = "tensors.safetensors"


@dataclass(frozen=True)
class Format:
    """What is saved: `name` and `version` stand in the head, `head` is the head's file, `what` its name in errors."""

    name: str
    version: int
    head: str
    what: str

    def save(self, folder: str | os.PathLike[str], head: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
        """Writes the two files into a new folder, all of it or nothing; returns the folder.

        An earlier one of this format in its place is replaced; a folder with other things in it is refused
        (`FileExistsError`).
        """
        path = Path(folder)
        if path.exists() and not self._is_ours(path):
            raise FileExistsError(f"{path} exists and is no {self.what} of ours: choose another folder")
        with new_folder(path) as work:
            # written as bytes, so that the file has the permissions of any new file
            data = save({name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()})
            (work / TENSORS).write_bytes(data)
            whole = {"format": self.name, "version": self.version, **head, "sha256": _digest(work / TENSORS)}
            (work / self.head).write_text(json.dumps(whole, indent=1), "utf-8")
        return path

    def load(self, folder: str | os.PathLike[str]) -> tuple[dict[str, Any], dict[str, Tensor]]:
        """The head and the tensors of a folder, as they were saved. Raises `ExplanationFileError`."""
        path = Path(folder)
        try:
            head = json.loads((path / self.head).read_text("utf-8"))
        except FileNotFoundError:
            raise ExplanationFileError(f"{path} holds no {self.head}: it is no saved {self.what}") from None
        except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise ExplanationFileError(f"{path / self.head} cannot be read: {error}") from None
        if not isinstance(head, dict) or head.get("format") != self.name:
            raise ExplanationFileError(f"{path / self.head} is not a dlb {self.what}")
        if head.get("version") != self.version:
            raise ExplanationFileError(
                f"{path} was written in format version {head.get('version')!r}; this dlb reads {self.version}"
            )
        return head, self._tensors(path / TENSORS, head.get("sha256"))

    def incomplete(self, folder: str | os.PathLike[str], error: Exception) -> ExplanationFileError:
        """What to raise when the head does not say what it should."""
        return ExplanationFileError(f"{Path(folder) / self.head} is incomplete: {type(error).__name__}: {error}")

    def _tensors(self, path: Path, digest: Any) -> dict[str, Tensor]:
        try:
            if _digest(path) != digest:
                raise ExplanationFileError(
                    f"{path} is not what was saved (truncated or changed): save the {self.what} again"
                )
            return dict(load_file(path))
        except FileNotFoundError:
            raise ExplanationFileError(f"{path} is missing: the {self.what} is incomplete") from None
        except (SafetensorError, OSError) as error:
            raise ExplanationFileError(f"{path} cannot be read: {error}") from None

    def _is_ours(self, path: Path) -> bool:
        """Is this an empty folder, or one that holds an earlier result of this format and nothing else?"""
        names = {entry.name for entry in path.iterdir()} if path.is_dir() and not path.is_symlink() else {"?"}
        if not names:
            return True
        if not {self.head} <= names <= {self.head, TENSORS}:
            return False
        with contextlib.suppress(OSError, ValueError, AttributeError):
            return bool(json.loads((path / self.head).read_text("utf-8")).get("format") == self.name)
        return False


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
