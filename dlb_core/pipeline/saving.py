"""A run's results on disk: JSON, safetensors and pictures in a folder of their own, all of them or none."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from dlb_core.folder import new_folder
from dlb_core.pipeline.words import Words

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


def words_page(groups: Mapping[str, Words]) -> str:
    """A page of HTML: each text with its words coloured by relevance, red for, blue against; nothing is loaded."""
    parts = ["<!doctype html><meta charset='utf-8'><title>relevance by words</title>"]
    parts.append("<body style='font:16px/2 sans-serif;margin:2em;max-width:60em'>")
    for title, words in groups.items():
        limit = max((abs(word.relevance) for word in words), default=0.0) or 1.0
        parts.append(f"<h4 style='margin:1em 0 0'>{html.escape(title)}</h4><p style='margin:0'>")
        parts += [_coloured(word.text, word.relevance, limit) for word in words]
        parts.append("</p>")
        apart = ", ".join(f"{html.escape(word.text)} {word.relevance:+.3g}" for word in words.special)
        if apart:
            parts.append(f"<p style='margin:0;color:#777;font-size:13px'>{apart}</p>")
    return "\n".join(parts) + "\n"


def _coloured(text: str, units: float, limit: float) -> str:
    red, green, blue = (225, 95, 77) if units > 0 else (67, 130, 195)
    shade = f"rgba({red},{green},{blue},{abs(units) / limit:.3f})"
    return (
        f"<span title='{units:+.6g}' style='background:{shade};padding:2px 3px;border-radius:3px'>"
        f"{html.escape(text)}</span>"
    )
