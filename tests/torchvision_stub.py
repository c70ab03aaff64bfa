"""Makes `import torchvision` work where its binary library does not load.

torchvision's wheel is linked against CUDA libraries that torch's CPU build does not bring. Without them its Python half
fails at import, because it describes two operators that nobody defined. `register()` defines their schemas, without an
implementation: model classes (transformers' too, which import torchvision) then load. Call it before anything imports
torchvision; call it as often as you like. Where torchvision's own library loads, or torchvision is absent, it does
nothing.
"""

from __future__ import annotations

from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch

SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
OPERATORS = ("nms", "qnms")

_library: torch.library.Library | None = None  # a schema lives as long as the library object that defined it


def register() -> bool:
    """Define what is missing; say whether the schemas come from here."""
    global _library
    if _library is not None:
        return True
    spec = find_spec("torchvision")
    if spec is None or not spec.submodule_search_locations or _loads(Path(spec.submodule_search_locations[0])):
        return False
    _library = torch.library.Library("torchvision", "DEF")
    for name in OPERATORS:
        _library.define(name + SCHEMA)
    return True


def _loads(package: Path) -> bool:
    """Load torchvision's own library, as importing it would."""
    for suffix in EXTENSION_SUFFIXES:
        if (path := package / f"_C{suffix}").exists():
            try:
                torch.ops.load_library(path)
            except OSError:
                return False
            return True
    return False
