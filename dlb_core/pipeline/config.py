"""What a pipeline is set to."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from dlb_core.choices import CHECKS, choose

DTYPES = ("auto", "float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True)
class PipelineConfig:
    """The settings of a `DLBacktracePipeline`; all of them have a default.

    model_name: a name of the registry, a hub id (``owner/name``), a folder written by `save_pretrained`, or a
    torchvision constructor. device: "cpu", "cuda", ... or "auto" (a GPU where there is one). mode, mode_options,
    multiplier, scaler, thresholding, check: as in `DLBacktrace`. dtype: of the weights ("auto": as they were saved).
    max_length: cut texts off at so many tokens (None: a text that the model cannot read whole is refused). weights: a
    file of weights for a torchvision constructor. num_classes: how many it has. labels: names of the classes, if the
    model does not tell. revision: of a hub id. local_files_only: never ask the network. output_dir: where each run
    saves its results (None: nowhere). pictures: save pictures, too.

    Raises ValueError naming the setting.
    """

    model_name: str = "bert-base"
    device: str = "cpu"
    mode: str = "default"
    mode_options: Mapping[str, Any] = field(default_factory=dict)
    multiplier: float = 100.0
    scaler: float = 1.0
    thresholding: float = 0.5
    check: str = "raise"
    dtype: str = "auto"
    max_length: int | None = None
    weights: str | Path | None = None
    num_classes: int | None = None
    labels: tuple[str, ...] = ()
    revision: str | None = None
    local_files_only: bool = False
    output_dir: str | Path | None = None
    pictures: bool = False

    def __post_init__(self) -> None:
        for name in ("model_name", "device", "mode"):
            if not isinstance(value := getattr(self, name), str) or not value:
                raise ValueError(f"{name}={value!r}: must be a text")
        for name in ("multiplier", "scaler"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value) or not value:
                raise ValueError(f"{name}={value!r}: must be a finite number other than 0")
        for name in ("max_length", "num_classes"):
            value = getattr(self, name)
            if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 1):
                raise ValueError(f"{name}={value!r}: must be a positive whole number or None")
        for name in ("local_files_only", "pictures"):
            if not isinstance(value := getattr(self, name), bool):
                raise ValueError(f"{name}={value!r}: must be True or False")
        labels: Any = self.labels
        if isinstance(labels, str) or not all(isinstance(label, str) for label in labels):
            raise ValueError(f"labels={self.labels!r}: must be a list of texts")
        object.__setattr__(self, "labels", tuple(self.labels))
        choose("dtype", self.dtype, DTYPES)
        choose("check", self.check, CHECKS)
        if self.pictures and self.output_dir is None:
            raise ValueError("pictures=True needs a folder to save them in: give output_dir=")

    @classmethod
    def from_dict(cls, settings: Mapping[str, Any]) -> PipelineConfig:
        """The settings of a mapping (a JSON file's, say). Raises ValueError for a key that is no setting."""
        known = [each.name for each in dataclasses.fields(cls)]
        for key in settings:
            if key not in known:
                near = get_close_matches(str(key), known, n=1)
                hint = f"did you mean {near[0]!r}? " if near else ""
                raise ValueError(f"there is no setting {key!r}; {hint}choose from {', '.join(known)}")
        return cls(**settings)

    def to_dict(self) -> dict[str, Any]:
        """The settings as data that JSON can hold."""
        found = {each.name: getattr(self, each.name) for each in dataclasses.fields(self)}
        plain = {name: str(value) if isinstance(value, Path) else value for name, value in found.items()}
        return {**plain, "mode_options": dict(self.mode_options), "labels": [*self.labels]}
