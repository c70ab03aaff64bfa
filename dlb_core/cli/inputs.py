"""From --input on the command line to the tensors of a call: arrays, safetensors, images."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from dlb_core.cli.failure import UsageError
from dlb_core.cli.images import ImageOptions, read_image

View = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Inputs:
    """The tensors of one call, by position (`names` None) or by name.

    views: for each that was read from an image, the function that turns what the model gets back into 0..1.
    """

    tensors: tuple[Tensor, ...]
    names: tuple[str, ...] | None
    views: tuple[View | None, ...]

    def call(self, device: torch.device) -> tuple[Tensor, ...] | dict[str, Tensor]:
        """What `DLBacktrace` takes, on a device."""
        moved = tuple(tensor.to(device) for tensor in self.tensors)
        return moved if self.names is None else dict(zip(self.names, moved, strict=True))

    def labelled(self, traced: Sequence[str]) -> dict[str, tuple[Tensor, View | None]]:
        """Tensor and view by name; those given by position go by the names of the trace."""
        return dict(zip(self.names or traced, zip(self.tensors, self.views, strict=True), strict=False))


def read_inputs(args: argparse.Namespace, dtype: torch.dtype) -> Inputs:
    """All files of --input; floating values in `dtype`, integers as int64. Raises `UsageError` naming the file."""
    options = ImageOptions.parse(args)
    names: list[str | None] = []
    tensors: list[Tensor] = []
    views: list[View | None] = []
    for text in args.inputs:
        name, path = _split(text)
        if path.suffix.lower() in (".npy", ".safetensors"):
            for own_name, tensor in _read_tensors(path, name):
                names.append(own_name)
                tensors.append(_settled(tensor, dtype, path))
                views.append(None)
        else:
            names.append(name)
            tensors.append(read_image(path, options).to(dtype))
            views.append(options.undo)
    if options.given and not any(views):
        raise UsageError(f"{options.given} is for images, and no input is one")
    return Inputs(tuple(tensors), _all_or_none(names), tuple(views))


def _all_or_none(names: list[str | None]) -> tuple[str, ...] | None:
    given = [name for name in names if name is not None]
    if not given:
        return None
    if len(given) != len(names):
        raise UsageError(f"some inputs have names ({', '.join(given)}) and some have none: name all of them, or none")
    if twice := sorted({name for name in given if given.count(name) > 1}):
        raise UsageError(f"input {', '.join(twice)} is given twice")
    return tuple(given)


def _split(text: str) -> tuple[str | None, Path]:
    """``name=file``; a file whose own name has a ``=`` stays a file."""
    name, sign, rest = text.partition("=")
    path = Path(rest) if sign and name.isidentifier() and not Path(text).exists() else Path(text)
    if not path.is_file():
        raise UsageError(f"input {path}: {'is a folder' if path.is_dir() else 'no such file'}")
    return (name if path != Path(text) else None), path


def _read_tensors(path: Path, name: str | None) -> list[tuple[str | None, Tensor]]:
    """Names and tensors; a file with one tensor leaves the name to the command line."""
    if path.suffix.lower() == ".npy":
        return [(name, _read_array(path))]
    try:
        found = load_file(path)
    except (SafetensorError, OSError) as error:
        raise UsageError(f"input {path} cannot be read as safetensors: {error}") from None
    if not found:
        raise UsageError(f"input {path} holds no tensor")
    if len(found) == 1:
        return [(name, next(iter(found.values())))]
    if name is not None:
        raise UsageError(f"input {path} holds {len(found)} tensors ({', '.join(sorted(found))}): leave {name}= out")
    return [*found.items()]


def _read_array(path: Path) -> Tensor:
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"input {path} cannot be read as an array: {error}") from None
    if not isinstance(array, np.ndarray):
        raise UsageError(f"input {path} is an archive of arrays: save each as .npy, or all as .safetensors")
    if array.dtype.kind in "iu" and np.can_cast(array.dtype, np.int64):
        return torch.from_numpy(array.astype(np.int64))
    if array.dtype.kind == "f":
        return torch.from_numpy(array.astype(np.float64 if array.dtype.itemsize > 4 else np.float32))
    if array.dtype.kind == "b":
        return torch.from_numpy(array.copy())
    raise UsageError(f"input {path} has dtype {array.dtype}: save it as a floating, integer or boolean array")


def _settled(tensor: Tensor, dtype: torch.dtype, path: Path) -> Tensor:
    if tensor.is_floating_point():
        return tensor.to(dtype)
    if tensor.is_complex():
        raise UsageError(f"input {path} has dtype {tensor.dtype}: save it as a floating, integer or boolean tensor")
    return tensor if tensor.dtype is torch.bool else tensor.to(torch.int64)
