"""Images: torchvision's classifiers and segmenters, a U-Net, SegFormer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn
from torchvision.models import segmentation
from torchvision.models.swin_transformer import PatchMergingV2, SwinTransformer, SwinTransformerBlockV2
from torchvision.models.vision_transformer import VisionTransformer
from transformers import SegformerConfig, SegformerForSemanticSegmentation
from zoo import named, rows

from .entry import Entry, Size

SAME_SIZE = (Size(3, 0), Size(1, 0))


class UNet(nn.Module):
    """Two levels with skips; up by a transposed convolution or by interpolation: [B, 3, H, W] -> [B, 4, H, W]."""

    def __init__(self, transposed: bool) -> None:
        super().__init__()
        self.down = nn.ModuleList([self.block(3, 8), self.block(8, 16)])
        self.bottom = self.block(16, 32)
        self.up = nn.ModuleList([self.upward(32, 16, transposed), self.upward(16, 8, transposed)])
        self.merge = nn.ModuleList([self.block(32, 16), self.block(16, 8)])
        self.head = nn.Conv2d(8, 4, 1)

    @staticmethod
    def block(fan_in: int, fan_out: int) -> nn.Module:
        layers: list[nn.Module] = []
        for width in (fan_in, fan_out):
            layers += [nn.Conv2d(width, fan_out, 3, padding=1), nn.BatchNorm2d(fan_out), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers)

    @staticmethod
    def upward(fan_in: int, fan_out: int, transposed: bool) -> nn.Module:
        if transposed:
            return nn.ConvTranspose2d(fan_in, fan_out, 2, stride=2)
        larger = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
        return nn.Sequential(larger, nn.Conv2d(fan_in, fan_out, 1))

    def forward(self, x: Tensor) -> Tensor:
        skips = []
        for block in self.down:
            skips.append(block(x))
            x = F.max_pool2d(skips[-1], 2)
        x = self.bottom(x)
        for up, merge in zip(self.up, self.merge, strict=True):
            x = merge(torch.cat([skips.pop(), up(x)], 1))
        return self.head(x)


def classifier(name: str, **config: Any) -> Callable[[], nn.Module]:
    return partial(torchvision.models.get_model, name, weights=None, num_classes=10, **config)


def vgg(name: str) -> nn.Module:
    """The convolutions of the real one; its dense layers of 4096 are 64 wide."""
    model = torchvision.models.get_model(name, weights=None, num_classes=10)
    model.avgpool = nn.AdaptiveAvgPool2d(2)
    model.classifier = nn.Sequential(
        nn.Linear(2048, 64),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(64, 64),
        nn.ReLU(True),
        nn.Dropout(),
        nn.Linear(64, 10),
    )
    return model


def vit() -> nn.Module:
    """ViT-B/16's class in slim."""
    return VisionTransformer(32, 8, num_layers=2, num_heads=4, hidden_dim=32, mlp_dim=48, num_classes=10)


def swin(version: int) -> nn.Module:
    """Two stages of two blocks, the second of which is shifted."""
    blocks: dict[str, Any] = (
        {} if version == 1 else {"block": SwinTransformerBlockV2, "downsample_layer": PatchMergingV2}
    )
    return SwinTransformer([4, 4], 16, [2, 2], [2, 4], [4, 4], num_classes=10, **blocks)


def segformer() -> nn.Module:
    return SegformerForSemanticSegmentation(
        SegformerConfig(
            num_encoder_blocks=2, depths=[1, 1], sr_ratios=[2, 1], hidden_sizes=[8, 16], patch_sizes=[7, 3],
            strides=[4, 2], num_attention_heads=[1, 2], mlp_ratios=[2, 2], decoder_hidden_size=16, num_labels=4,
        )
    )  # fmt: skip


def _image(name: str, build: Callable[[], nn.Module], size: int, argument: str = "x", **more: Any) -> Entry:
    inputs = named(argument, torch.randn, 3, size, size)
    return Entry(name, build, inputs, explained=(argument,), family="vision", calls=SAME_SIZE, **more)


def _free(name: str, build: Callable[[], nn.Module], side: int, more: int, **rest: Any) -> Entry:
    """Height and width may change, on request."""

    def inputs(batch: int, length: int) -> dict[str, Tensor]:
        return rows(3, length, length)(batch, length)

    calls = (Size(3, more), Size(1, 0))
    return Entry(name, build, inputs, side, family="vision", dynamic={"x": (2, 3)}, calls=calls, **rest)


ENTRIES = [
    _free("resnet18", classifier("resnet18"), 64, 16),
    _image("resnet50", classifier("resnet50"), 64),
    _image("vgg16", partial(vgg, "vgg16"), 64),
    _image("vgg16_bn", partial(vgg, "vgg16_bn"), 64),
    _image("densenet121", classifier("densenet121"), 64),
    _image("efficientnet_b0", classifier("efficientnet_b0"), 64),
    _image("mobilenet_v2", classifier("mobilenet_v2"), 64),
    _image("mobilenet_v3_small", classifier("mobilenet_v3_small"), 64, fast=True),
    _image("convnext_tiny", classifier("convnext_tiny"), 64),
    _image("vit_b_16 (slim)", vit, 32, kept=("constant:class_token",)),
    _image("swin_t (slim)", partial(swin, 1), 32),
    _image("swin_v2_t (slim)", partial(swin, 2), 32),
    _image("regnet_y_400mf", classifier("regnet_y_400mf"), 64),
    _image("shufflenet_v2_x0_5", classifier("shufflenet_v2_x0_5"), 64),
    _image("googlenet", classifier("googlenet", init_weights=False, aux_logits=False), 64),
    _image("inception_v3", classifier("inception_v3", init_weights=False, aux_logits=False), 96),
    _image("squeezenet1_1", classifier("squeezenet1_1"), 64),
    _image("mnasnet0_5", classifier("mnasnet0_5"), 64),
    _free("unet, transposed", partial(UNet, True), 16, 4, fast=True),
    _free("unet, bilinear", partial(UNet, False), 16, 4),
    _image("fcn_resnet50", partial(segmentation.fcn_resnet50, weights=None, weights_backbone=None, num_classes=4), 64),
    _image(
        "deeplabv3_resnet50",
        partial(segmentation.deeplabv3_resnet50, weights=None, weights_backbone=None, num_classes=4),
        64,
    ),
    _image(
        "lraspp_mobilenet_v3",
        partial(segmentation.lraspp_mobilenet_v3_large, weights=None, weights_backbone=None, num_classes=4),
        64,
        "input",
    ),
    _image("segformer", segformer, 32, "pixel_values"),
]
