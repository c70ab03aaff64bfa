"""The inputs of an explanation as plain data, within the room that a page has."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.viz.colour import colour_limit
from dlb_core.viz.report.arrays import averaged, block, floats, pixels, plain, summed
from dlb_core.viz.view import View

SIDE = 512  # pixels of an image's longer side, and steps of a series
ROWS = 100  # of a table; the rest in one line
CHANNELS = 24  # of a series; the rest in one line
TEXTS = 4096  # tokens


@dataclass(frozen=True)
class Room:
    """How much of each sample fits: images by channel or summed, and how many pixels a side."""

    channels: bool = True
    side: int = SIDE

    def cost(self, view: View) -> int:
        """About how many bytes of the page a view takes."""
        if view.kind == "image":
            size = block(view.units.shape[1:], self.side)
            area = math.ceil(view.units.shape[1] / size) * math.ceil(view.units.shape[2] / size)
            shown = 0 if view.picture is None else len(view.picture) * area
            return 4 * (4 * area * (len(view.units) if self.channels else 1) + shown) // 3
        if view.kind == "series":
            steps, channels = view.units.shape
            return 4 * 8 * min(steps, SIDE) * min(channels, CHANNELS + 1) // 3
        if view.kind == "tokens":
            return sum(len(label) + 12 for label in view.labels)
        return 80 * min(view.units.numel(), ROWS)


def shown(view: View, room: Room) -> dict[str, Any]:
    """One input of one sample; the units of what is listed or drawn sum to `total`."""
    data = {"name": view.name, "kind": view.kind, "side": view.side, "total": plain(float(view.units.sum()))}
    return data | _KINDS[view.kind](view, room)


def _image(view: View, room: Room) -> dict[str, Any]:
    size = block(view.units.shape[1:], room.side)
    units = summed(view.units if room.channels else view.plane[None], size)
    planes = [units.sum(0), *(units if len(units) > 1 else ())]
    picture = view.picture
    if picture is not None:
        picture = averaged(picture, block(picture.shape[1:], room.side))
    return {
        "size": list(view.units.shape),
        "block": size,
        "units": floats(units),
        "limits": [plain(colour_limit(plane)) for plane in planes],
        "picture": None if picture is None else pixels(picture),
    }


def _tokens(view: View, room: Room) -> dict[str, Any]:
    kept = view.units[:TEXTS]
    rest = view.units[TEXTS:]
    return {
        "labels": list(view.labels[:TEXTS]),
        "units": floats(kept),
        "limits": [_largest(kept)],
        "rest": {"count": len(rest), "units": plain(float(rest.sum()))},
    }


def _rows(view: View, room: Room) -> dict[str, Any]:
    units = view.units.flatten()
    values = None if view.values is None else view.values.flatten()
    order = units.abs().argsort(descending=True, stable=True)
    kept = order[:ROWS].sort().values.tolist()
    rows = [
        {
            "label": view.labels[i] if view.labels else _index(i, view.units),
            "value": None if values is None else plain(values[i].item()) if not values.is_complex() else str(values[i]),
            "units": plain(float(units[i])),
        }
        for i in kept
    ]
    rest = order[ROWS:]
    return {
        "rows": rows,
        "limits": [_largest(units)],
        "rest": {"count": len(rest), "units": plain(float(units[rest].sum()))},
    }


def _series(view: View, room: Room) -> dict[str, Any]:
    steps = len(view.units)
    size = math.ceil(steps / SIDE) if steps else 1
    units = _in_blocks(view.units, size)
    order = view.units.abs().sum(0).argsort(descending=True, stable=True)
    kept = order[:CHANNELS].sort().values
    rest = order[CHANNELS:]
    values = None
    if view.values is not None and not view.values.is_complex():
        chosen = view.values[:, kept].double().nan_to_num()
        counts = _in_blocks(torch.ones(steps, 1, dtype=torch.float64), size)
        values = floats((_in_blocks(chosen, size) / counts).T)
    labels = [view.labels[i] for i in kept.tolist()]
    rows = units[:, kept].T
    if len(rest):
        rows = torch.cat([rows, units[:, rest].sum(1)[None]])
        labels.append(f"... {len(rest)} more")
    return {
        "steps": steps,
        "block": size,
        "labels": labels,
        "units": floats(rows),
        "values": values,
        "limits": [plain(colour_limit(rows))],
    }


def _in_blocks(units: Tensor, size: int) -> Tensor:
    """[T, C] summed over `size` steps at a time; none is lost."""
    padded = torch.nn.functional.pad(units, [0, 0, 0, -len(units) % size])
    sums: Tensor = padded.unflatten(0, (-1, size)).sum(1)
    return sums


def _largest(units: Tensor) -> Any:
    return plain(float(units.abs().max())) if units.numel() else 0.0


def _index(position: int, units: Tensor) -> str:
    if not units.dim():
        return "value"
    where = torch.unravel_index(torch.tensor(position), units.shape)
    return f"[{', '.join(str(int(i)) for i in where)}]"


_KINDS = {"image": _image, "tokens": _tokens, "features": _rows, "series": _series, "values": _rows}
