"""Makes `import torchvision` work where its binary library does not load.

torchvision's wheel is linked against CUDA libraries that torch's CPU build does not bring. Without them its Python half
fails at import, because it describes two operators that nobody defined. `register()` defines their schemas, without an
implementation: model classes (transformers' too, which import torchvision) then load. Call it before anything imports
torchvision; call it as often as you like. Where torchvision's own library loads, or torchvision is absent, it does
nothing.

`implement()` goes further, for the tests that run a detector whole: suppression and region pooling in plain torch code.
"""

from __future__ import annotations

import sys
from importlib.machinery import EXTENSION_SUFFIXES
from importlib.util import find_spec
from pathlib import Path

import torch
from torch import Tensor

NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
ROI_ALIGN = (
    "(Tensor input, Tensor rois, float spatial_scale, SymInt pooled_height, SymInt pooled_width, "
    "int sampling_ratio, bool aligned) -> Tensor"
)
OPERATORS = {"nms": NMS, "qnms": NMS, "roi_align": ROI_ALIGN}

_implemented = False
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
    for name, schema in OPERATORS.items():
        _library.define(name + schema)
    return True


def implement() -> bool:
    """Give nms and roi_align an implementation where torchvision's own does not load; say whether ours are in use."""
    global _implemented
    if not register() or _implemented:
        return _implemented
    from torchvision import extension
    from torchvision.ops import boxes

    pooling = sys.modules["torchvision.ops.roi_align"]

    def nms(dets: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        """The best box, then the best of those that overlap no chosen one by more than the threshold, and so on."""
        left, kept = scores.argsort(descending=True, stable=True), []
        while len(left):
            kept.append(left[0])
            overlap = boxes.box_iou(dets[left[:1]], dets[left])[0]
            overlap[0] = 1.0 + iou_threshold  # itself
            left = left[overlap <= iou_threshold]
        return torch.stack(kept) if kept else left

    assert _library is not None
    _library.impl("nms", nms, "CPU")
    # torchvision's own reference in Python, which it would compile; of parts that autograd knows
    _library.impl("roi_align", pooling._roi_align.__wrapped__, "CompositeImplicitAutograd")
    extension._has_ops = pooling._has_ops = lambda: True
    _implemented = True
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
