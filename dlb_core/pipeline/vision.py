"""Models of pictures: torchvision's with their weights, and pictures as the tensors that a model was trained on."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dlb_core.errors import ModelLoadError
from dlb_core.pipeline.config import PipelineConfig
from dlb_core.pipeline.loading import Loaded
from dlb_core.pipeline.registry import Source
from dlb_core.viz.heatmap import check_pillow

# Formats that Pillow decodes by itself: for some others (EPS) it would start another program on the file.
FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF", "PPM")
#: DenseNet's published weights spell ``norm.1`` where the module is called ``norm1``
OLD_SPELLING = re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)")


def load_torchvision(source: Source, config: PipelineConfig) -> Loaded:
    """A constructor of torchvision with weights from `config.weights`, or with its published ones."""
    try:
        from torchvision import models
    except ImportError as error:
        raise ModelLoadError("torchvision is missing: pip install torchvision") from error
    if source.where not in models.list_models(module=models):
        raise ModelLoadError(f"torchvision has no classifier {source.where!r}: see torchvision.models.list_models()")
    published = models.get_model_weights(source.where).DEFAULT
    sizes = {} if config.num_classes is None else {"num_classes": config.num_classes}
    model = models.get_model(source.where, weights=None, **sizes)
    labels = config.labels or source.labels
    if config.weights is None:
        if sizes:
            raise ModelLoadError("num_classes= needs weights=: the published weights have their own classes")
        state = _published(source.where, published, offline=config.local_files_only)
        labels = labels or tuple(published.meta["categories"])
    else:
        state = _weights(Path(config.weights))
    _fill(model, state, source.where)
    if config.dtype != "auto":
        model.to(getattr(torch, config.dtype))
    preset = published.transforms()
    dtype = next(model.parameters()).dtype
    return Loaded(
        model,
        source.where,
        labels,
        images=lambda pictures: torch.stack([preset(_picture(p)) for p in pictures]).to(dtype),
        undo=_undo(preset.mean, preset.std),
    )


def from_processor(loaded: Loaded, processor: Any) -> Loaded:
    """A model of transformers with its image processor."""
    dtype = next(loaded.model.parameters()).dtype

    def images(pictures: Sequence[Any]) -> Tensor:
        made = processor(images=[_picture(p) for p in pictures], return_tensors="pt")["pixel_values"]
        tensor: Tensor = made.to(dtype)
        return tensor

    mean, std = getattr(processor, "image_mean", None), getattr(processor, "image_std", None)
    undo = None
    if getattr(processor, "do_normalize", False) and mean is not None and std is not None:
        undo = _undo(mean, std)
    return dataclasses.replace(loaded, images=images, undo=undo)


def _published(name: str, weights: Any, *, offline: bool) -> dict[str, Tensor]:
    try:
        if offline and not (Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name).exists():
            raise OSError("local_files_only=True")
        state: dict[str, Tensor] = weights.get_state_dict(progress=False, check_hash=True, weights_only=True)
    except OSError as error:
        raise ModelLoadError(
            f"the weights of torchvision's {name} are not on this machine and cannot be fetched ({error}): "
            f"download {weights.url} where there is a network and give weights=FILE"
        ) from error
    return state


def _weights(path: Path) -> dict[str, Tensor]:
    """Weights by name from a .safetensors file or one of torch.save; nothing in it is run."""
    if not path.is_file():
        raise ModelLoadError(f"weights={str(path)!r}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(path))
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch, zip and safetensors raise a dozen types for a file they cannot read
        raise ModelLoadError(f"{path} holds no weights that can be read safely: {_line(error)}") from error
    if isinstance(state, dict) and isinstance(state.get("state_dict"), dict):
        state = state["state_dict"]
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ModelLoadError(f"{path} is no state_dict: save model.state_dict()")
    return state


def _fill(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    try:
        model.load_state_dict({OLD_SPELLING.sub(r"\1\2", key): value for key, value in state.items()})
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:3]]
        raise ModelLoadError(
            f"these weights are not those of {name}: {' '.join(lines)} (num_classes= says how many classes they have)"
        ) from error


def _picture(picture: Any) -> Any:
    """A picture as Pillow's, upright and in RGB: from a file, an array [H, W, 3] or a picture."""
    check_pillow()
    from PIL import Image, ImageOps, UnidentifiedImageError

    if isinstance(picture, (str, os.PathLike)):
        try:
            with Image.open(picture, formats=FORMATS) as file:
                found = ImageOps.exif_transpose(file).convert("RGB")
        except FileNotFoundError:
            raise ValueError(f"image {picture}: no such file") from None
        except UnidentifiedImageError:
            raise ValueError(f"{picture} is no image ({', '.join(FORMATS)})") from None
        except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
            raise ValueError(f"{picture} cannot be read as an image: {error}") from None
        return found
    if isinstance(picture, Image.Image):
        return ImageOps.exif_transpose(picture).convert("RGB")
    try:
        return Image.fromarray(picture).convert("RGB")
    except (TypeError, AttributeError, KeyError) as error:
        raise ValueError(f"an image must be a file, a picture of Pillow or an array of bytes: {error}") from None


def _undo(mean: Sequence[float], std: Sequence[float]) -> Callable[[Tensor], Tensor]:
    """From what a model gets back to 0..1; image [C, H, W]."""
    shift, size = torch.tensor([*mean]).reshape(-1, 1, 1), torch.tensor([*std]).reshape(-1, 1, 1)
    return lambda image: image.detach().cpu().float() * size + shift


def _line(error: BaseException) -> str:
    return next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
