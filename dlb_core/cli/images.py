"""Image files as model inputs: [1, C, H, W] in 0..1, resized and normalised on request."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dlb_core.cli.failure import UsageError
from dlb_core.viz.heatmap import check_pillow

if TYPE_CHECKING:
    from PIL import Image

# Formats that Pillow decodes by itself: for some others (EPS) it would start another program on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
GREY_MODES = ("1", "L", "LA", "I;16", "I;16B", "I;16L")


@dataclass(frozen=True)
class ImageOptions:
    """What --channels, --resize, --mean and --std ask for; None where nothing was said."""

    channels: str | None = None
    size: tuple[int, int] | None = None  # height, width
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None
    given: str = ""  # the first of these options that was typed

    @classmethod
    def parse(cls, args: argparse.Namespace) -> ImageOptions:
        """Reads the options off the command line. Raises `UsageError`."""
        typed = (f"--{o}" for o in ("channels", "resize", "mean", "std") if getattr(args, o) is not None)
        std = _numbers("--std", args.std)
        if std is not None and not all(value > 0 for value in std):
            raise UsageError(f"--std {args.std}: must be positive")
        return cls(args.channels, _size(args.resize), _numbers("--mean", args.mean), std, next(typed, ""))

    def normalise(self, image: Tensor) -> Tensor:
        """(image - mean) / std, per channel; image [..., C, H, W]."""
        channels = image.shape[-3]
        return (image - _spread("--mean", self.mean, channels, 0.0)) / _spread("--std", self.std, channels, 1.0)

    def undo(self, image: Tensor) -> Tensor:
        """From what the model gets back to 0..1, to show it."""
        channels = image.shape[-3]
        return image.cpu().float() * _spread("--std", self.std, channels, 1.0) + _spread(
            "--mean", self.mean, channels, 0.0
        )


def read_image(path: Path, options: ImageOptions) -> Tensor:
    """An image file as float32 [1, C, H, W] in 0..1 (upright, without transparency), then normalised."""
    try:
        check_pillow()
    except ImportError as error:
        raise UsageError(f"input {path} is no .npy or .safetensors; to read it as an image, {error}") from None
    from PIL import Image, ImageOps, UnidentifiedImageError

    try:
        with Image.open(path, formats=FORMATS) as file:
            image = ImageOps.exif_transpose(file)
            image.load()
    except UnidentifiedImageError:
        raise UsageError(f"input {path} is no .npy, .safetensors or image ({', '.join(FORMATS)})") from None
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise UsageError(f"input {path} cannot be read as an image: {error}") from None
    pixels = _pixels(image, options.channels, path)
    planes = torch.from_numpy(pixels).permute(2, 0, 1)[None]
    if options.size is not None and options.size != tuple(planes.shape[2:]):
        planes = torch.nn.functional.interpolate(planes, options.size, mode="bilinear", antialias=True).clamp(0, 1)
    return options.normalise(planes.contiguous())


def _pixels(image: Image.Image, channels: str | None, path: Path) -> np.ndarray[Any, np.dtype[np.float32]]:
    """[H, W, C] float32 in 0..1."""
    if image.mode in ("I", "F"):
        raise UsageError(f"input {path} has pixels of 32 bits, of which nobody says what is white: save it as .npy")
    if image.mode.startswith("I;16"):  # Pillow would cut these to 8 bits, not scale them
        grey = np.asarray(image).astype(np.float32) / np.float32(65535)
        return np.stack([grey] * (3 if channels == "RGB" else 1), axis=-1)
    wanted = channels or ("L" if image.mode in GREY_MODES else "RGB")
    pixels = np.asarray(image.convert(wanted)).astype(np.float32) / np.float32(255)
    return pixels[..., None] if pixels.ndim == 2 else pixels


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    match = re.fullmatch(r"([1-9]\d{0,4})[xX]([1-9]\d{0,4})", text)
    if match is None:
        raise UsageError(f"--resize {text}: give height x width, e.g. 224x224")
    return int(match[1]), int(match[2])


def _numbers(option: str, text: str | None) -> tuple[float, ...] | None:
    if text is None:
        return None
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"{option} {text}: give one number or one per channel, e.g. 0.485,0.456,0.406") from None


def _spread(option: str, values: tuple[float, ...] | None, channels: int, default: float) -> Tensor:
    values = values or (default,)
    if len(values) not in (1, channels):
        raise UsageError(f"{option} has {len(values)} numbers for an image of {channels} channel(s)")
    return torch.tensor(values, dtype=torch.float32).reshape(-1, 1, 1)
