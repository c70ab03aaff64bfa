"""A run's results on disk: JSON, safetensors and pictures in a folder of their own, all of them or none."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dlb_core.folder import new_folder

HEAD, BOOKS = "result.json", "explanation"
FORMAT, VERSION = "dlb-result", 1


def save_result(
    folder: Path, head: Mapping[str, Any], explanation: Any, pictures: Mapping[str, Any] | None = None
) -> Path:
    """Writes ``result.json``, the explanation in a folder below, and the pictures; all of it or nothing.

    explanation: what has `save(folder)`, or None. pictures: file name -> a picture of Pillow, or a page as text. Raises
    `FileExistsError` when `folder` holds anything.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise FileExistsError(f"{folder} is there and not empty: choose another folder")
    files = [*(pictures or {}), *([BOOKS] if explanation is not None else [])]
    whole = {"format": FORMAT, "version": VERSION, **head, "files": files}
    text = json.dumps(whole, indent=1, ensure_ascii=False, allow_nan=False)
    with new_folder(folder) as work:
        if explanation is not None:
            explanation.save(work / BOOKS)
        for name, picture in (pictures or {}).items():
            if isinstance(picture, str):
                (work / name).write_text(picture, "utf-8")
            else:
                picture.save(work / name)
        (work / HEAD).write_text(text, "utf-8")
    return folder


def next_folder(parent: Path, task: str) -> Path:
    """The first free ``<task>-<number>`` in a folder."""
    number = 1
    while (parent / f"{task}-{number}").exists():
        number += 1
    return parent / f"{task}-{number}"


def image_pictures(relevance: Tensor, images: Sequence[Tensor], mode: str) -> dict[str, Any]:
    """A heat map for each sample of [B, C, H, W], beside its image."""
    from dlb_core.viz.heatmap import heatmap

    made = zip(relevance, images, strict=True)
    return {f"heatmap-{i}.png": heatmap(r, image, title=f"relevance, {mode}") for i, (r, image) in enumerate(made)}
