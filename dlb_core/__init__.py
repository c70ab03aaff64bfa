"""dlb: relevance propagation for any PyTorch model that `torch.export` can trace, every unit accounted for.

`DLBacktrace(model, example).explain(x)` is the whole path; see `dlb_core.rules` for packs. Names load on
first use, so importing the package (and `dlb --help`) does not import torch.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dlb_core.backtrace import DLBacktrace, NodeIO
    from dlb_core.calibration import TemperatureFit, fit_temperature
    from dlb_core.errors import (
        ConservationError,
        DLBError,
        DrawingError,
        ExplanationFileError,
        InputMismatchError,
        ModelLoadError,
        NonFiniteError,
        PackError,
        RuleError,
        StaleActivationsError,
        TraceError,
        UnsupportedOpError,
        UntrustedFileError,
    )
    from dlb_core.explanation import Explanation
    from dlb_core.generation import DLBAutoSampler, GenerationExplanation
    from dlb_core.inside import Heads
    from dlb_core.kernel.ledger import Ledger
    from dlb_core.paths import integrated, smooth
    from dlb_core.pipeline.config import PipelineConfig
    from dlb_core.pipeline.front import DLBacktracePipeline
    from dlb_core.pipeline.registry import ModelEntry, ModelRegistry
    from dlb_core.pipeline.result import PipelineResult
    from dlb_core.profiling import Profile, profiled
    from dlb_core.relevance import Relevance
    from dlb_core.reproducible import deterministic
    from dlb_core.similarity import Pairs, pairs
    from dlb_core.targets import Contrast, Query
    from dlb_core.task_result import TaskResult

__version__ = "0.1.0"

logging.getLogger("dlb").addHandler(logging.NullHandler())  # silent until the application says otherwise

_HOMES = {
    "DLBacktrace": "backtrace",
    "NodeIO": "backtrace",
    "Explanation": "explanation",
    "DLBAutoSampler": "generation",
    "GenerationExplanation": "generation",
    "Heads": "inside",
    "Relevance": "relevance",
    "TemperatureFit": "calibration",
    "fit_temperature": "calibration",
    "deterministic": "reproducible",
    "Profile": "profiling",
    "profiled": "profiling",
    "Pairs": "similarity",
    "pairs": "similarity",
    "Contrast": "targets",
    "Query": "targets",
    "DLBacktracePipeline": "pipeline.front",
    "PipelineConfig": "pipeline.config",
    "PipelineResult": "pipeline.result",
    "ModelEntry": "pipeline.registry",
    "ModelRegistry": "pipeline.registry",
    "TaskResult": "task_result",
    "Ledger": "kernel.ledger",
    "integrated": "paths",
    "smooth": "paths",
    **dict.fromkeys(
        (
            "ConservationError",
            "DLBError",
            "DrawingError",
            "ExplanationFileError",
            "InputMismatchError",
            "ModelLoadError",
            "NonFiniteError",
            "PackError",
            "RuleError",
            "StaleActivationsError",
            "TraceError",
            "UnsupportedOpError",
            "UntrustedFileError",
        ),
        "errors",
    ),
}

__all__ = [
    "ConservationError",
    "Contrast",
    "DLBAutoSampler",
    "DLBError",
    "DLBacktrace",
    "DLBacktracePipeline",
    "DrawingError",
    "Explanation",
    "ExplanationFileError",
    "GenerationExplanation",
    "Heads",
    "InputMismatchError",
    "Ledger",
    "ModelEntry",
    "ModelLoadError",
    "ModelRegistry",
    "NodeIO",
    "NonFiniteError",
    "PackError",
    "Pairs",
    "PipelineConfig",
    "PipelineResult",
    "Profile",
    "Query",
    "Relevance",
    "RuleError",
    "StaleActivationsError",
    "TaskResult",
    "TemperatureFit",
    "TraceError",
    "UnsupportedOpError",
    "UntrustedFileError",
    "__version__",
    "deterministic",
    "fit_temperature",
    "integrated",
    "pairs",
    "profiled",
    "smooth",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"dlb_core.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'dlb_core' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
