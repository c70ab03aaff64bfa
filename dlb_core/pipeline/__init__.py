"""The pipeline: a model's name and a text (or an image) in, words (or pixels) with their relevance out.

`front` is the class that people use, `config` its settings, `registry` the short names, `loading` and `vision` get
models whole, `encoding` and `words` go from text to tokens and back, `result` and `saving` name and keep what came out.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlb_core.pipeline.config import PipelineConfig
    from dlb_core.pipeline.front import DLBacktracePipeline
    from dlb_core.pipeline.registry import ModelEntry, ModelRegistry
    from dlb_core.pipeline.result import PipelineResult
    from dlb_core.pipeline.words import Pieces, Word, Words

_HOMES = {
    "DLBacktracePipeline": "front",
    "ModelEntry": "registry",
    "ModelRegistry": "registry",
    "Pieces": "words",
    "PipelineConfig": "config",
    "PipelineResult": "result",
    "Word": "words",
    "Words": "words",
}

__all__ = [
    "DLBacktracePipeline",
    "ModelEntry",
    "ModelRegistry",
    "Pieces",
    "PipelineConfig",
    "PipelineResult",
    "Word",
    "Words",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"dlb_core.pipeline.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dlb_core.pipeline' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
