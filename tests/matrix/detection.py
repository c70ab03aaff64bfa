"""Detectors: transformers' end to end, torchvision's as backbone and heads, and whole."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torchvision_stub
import transformers
from torch import Tensor, nn
from torchvision.models import detection
from zoo import SLIM, named, rows

from .entry import Entry, Size

torchvision_stub.implement()

SIDE = 64
SAME = (Size(3, 0), Size(1, 0))


class Heads(nn.Module):
    """Backbone, feature pyramid and heads of a one-stage detector, no anchors, no suppression: scores, boxes."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        found = self.detector.head(list(self.detector.backbone(x).values()))
        return found["cls_logits"], found["bbox_regression"]


class Proposals(nn.Module):
    """Backbone and region proposal head of Faster R-CNN: objectness of every anchor of the finest level."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> Tensor:
        scores, _ = self.detector.rpn.head(list(self.detector.backbone(x).values()))
        return scores[0]


class Whole(nn.Module):
    """A detector of torchvision as it is, suppression included: the scores of what it found in the first image."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, x: Tensor) -> Tensor:
        return self.detector(list(x))[0]["scores"].unsqueeze(0)


def detr() -> nn.Module:
    backbone = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 12, 16, 20], depths=[1, 1, 1, 1], layer_type="basic", out_features=["stage4"]
    )
    return transformers.DetrForObjectDetection(
        transformers.DetrConfig(
            use_timm_backbone=False, use_pretrained_backbone=False, backbone=None, backbone_config=backbone,
            num_queries=5, d_model=32, encoder_layers=2, decoder_layers=2, encoder_ffn_dim=48, decoder_ffn_dim=48,
            encoder_attention_heads=4, decoder_attention_heads=4, num_labels=4,
        )
    )  # fmt: skip


def yolos() -> nn.Module:
    return transformers.YolosForObjectDetection(
        transformers.YolosConfig(image_size=[32, 32], patch_size=8, num_detection_tokens=5, num_labels=4, **SLIM)
    )


def torchvision_detector(name: str, **more: Any) -> nn.Module:
    build = getattr(detection, name)
    return build(weights=None, weights_backbone=None, num_classes=4, min_size=SIDE, max_size=SIDE, **more)


def ssd(name: str, **more: Any) -> nn.Module:
    """It sizes its images itself."""
    return getattr(detection, name)(weights=None, weights_backbone=None, num_classes=4, **more)


def _entry(name: str, build: Callable[[], nn.Module], side: int, **more: Any) -> Entry:
    settled = {"inputs": rows(3, side, side), "calls": SAME, "target": (1, 2), **more}
    return Entry(name, build, family="detection", **settled)


def _hf(name: str, build: Callable[[], nn.Module], side: int, **more: Any) -> Entry:
    inputs = named("pixel_values", torch.randn, 3, side, side)
    return _entry(name, build, side, inputs=inputs, explained=("pixel_values",), output="logits", **more)


def _whole(name: str, build: Callable[[], nn.Module], side: int) -> Entry:
    return _entry(f"{name}, whole", lambda: Whole(build()), side, calls=(Size(1, 0),), target=0, tracer="tape")


FEW = {
    "box_score_thresh": 0.0,
    "box_detections_per_img": 5,
    "rpn_pre_nms_top_n_test": 50,
    "rpn_post_nms_top_n_test": 20,
}

retinanet = partial(torchvision_detector, "retinanet_resnet50_fpn", score_thresh=0.0, detections_per_img=5)
faster_rcnn = partial(torchvision_detector, "fasterrcnn_resnet50_fpn", **FEW)
ssd300 = partial(ssd, "ssd300_vgg16", score_thresh=0.0, detections_per_img=5)
ssdlite = partial(ssd, "ssdlite320_mobilenet_v3_large", score_thresh=0.0, detections_per_img=5)

ENTRIES = [
    _hf("DETR", detr, 64),
    _hf("YOLOS", yolos, 32, kept=("constant:vit.embeddings.cls_token", "constant:vit.embeddings.detection_tokens")),
    _entry("RetinaNet, backbone and heads", lambda: Heads(retinanet()), 64),
    _entry("SSD300, backbone and heads", lambda: Heads(ssd300()), 300, calls=(Size(2, 0), Size(1, 0))),
    _entry("SSDlite, backbone and heads", lambda: Heads(ssdlite()), 320),
    _entry("Faster R-CNN, backbone and proposals", lambda: Proposals(faster_rcnn()), 64, target=(0, 3, 3)),
    _whole("RetinaNet", retinanet, 64),
    _whole("SSDlite", ssdlite, 320),
    _whole("Faster R-CNN", faster_rcnn, 64),
]
