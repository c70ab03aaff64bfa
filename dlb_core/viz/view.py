"""Views: what there is to draw of an explanation, input by input, before anything is drawn."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dlb_core.captions import KINDS

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation
    from dlb_core.kernel.ledger import Ledger
    from dlb_core.relevance import Relevance

__all__ = ["KINDS", "View", "ledger_of", "sides", "views"]

FOR, AGAINST = "for the target", "against it"
RANKS = {"image": (2, 3), "tokens": (1, 2, 3, 4), "features": (1,), "series": (2,)}  # of a sample


@dataclass(frozen=True)
class View:
    """One input of one sample, as it is drawn.

    kind: "image" [C, H, W], "tokens" [T], "features" [F], "series" [T, C] (time first), or "values" (any shape). units:
    relevance in that shape, float64 on the CPU. values: what the input held, in the same shape; None where that is not
    known. labels: of tokens, features, or a series' channels; always as many as there are. picture: what to show of
    an image, [1 or 3, H, W] in 0..1, or None. side: which of two maps, of a contrastive mode.
    """

    name: str
    kind: str
    units: Tensor
    values: Tensor | None = None
    labels: tuple[str, ...] = ()
    picture: Tensor | None = None
    side: str = ""

    @property
    def plane(self) -> Tensor:
        """Of an image: relevance summed over the channels, [H, W]."""
        return self.units.sum(0)


def sides(relevance: Relevance) -> dict[str, Relevance]:
    """The maps to draw by what they are called: one without a name, or those for and against the target."""
    if relevance.total is None:
        return {"": relevance}
    return {FOR: relevance.positive, AGAINST: relevance.negative}


def ledger_of(relevance: Relevance, target: int = 0) -> Ledger:
    """The books of one target; `target` counts those of `targets=[...]`. Raises ValueError."""
    _check("target", target, len(relevance.ledgers))
    return relevance.ledgers[target]


def views(explanation: Explanation, *, sample: int = 0, target: int = 0) -> list[View]:
    """The explained inputs of one sample; of a contrastive mode each for the target, then against it.

    target: which of several (`targets=[...]`). Raises ValueError for a sample or target that is not there.
    """
    found: list[View] = []
    maps = sides(explanation.relevance)
    for name in explanation.inputs:
        for side, relevance in maps.items():
            units = relevance.inputs[name]
            if relevance.several:
                _check("target", target, len(units))
                units = units[target]
            elif target:
                _check("target", target, 1)
            found.append(_view(explanation, name, side, units.detach().cpu().double(), sample))
    return found


def _check(what: str, number: int, count: int) -> None:
    if not 0 <= number < count:
        raise ValueError(f"{what}={number}: choose from 0 .. {count - 1}")


def _view(explanation: Explanation, name: str, side: str, units: Tensor, sample: int) -> View:
    captions = explanation.captions
    values = explanation.given.get(name)
    values = None if values is None else values.detach().cpu()
    if units.dim():
        _check("sample", sample, len(units))
        units = units[sample]
        values = None if values is None else values[sample]
    kind = captions.kinds.get(name) or _kind(explanation, name, units, values)
    if kind in RANKS and units.dim() not in RANKS[kind]:
        raise ValueError(f"{name!r} cannot be drawn as {kind}: a sample of it has the shape {list(units.shape)}")
    if kind == "tokens":
        units = units.flatten(1).sum(1) if units.dim() > 1 else units  # embeddings: by position
        values = values if values is not None and values.shape == units.shape else None
        rows = captions.tokens.get(name)
        return View(name, kind, units, values, rows[sample] if rows else _numbers(values, len(units)), side=side)
    if kind == "features":
        return View(name, kind, units, values, captions.features.get(name) or _numbers(None, len(units)), side=side)
    if kind == "series":
        if units.shape[0] < units.shape[1]:  # channels first: time is the longer axis
            units, values = units.T, None if values is None else values.T
        labels = captions.features.get(name) or _numbers(None, units.shape[1])
        return View(name, kind, units, values, labels, side=side)
    if kind == "image":
        units = units.unsqueeze(0) if units.dim() == 2 else units
        values = values.unsqueeze(0) if values is not None and values.dim() == 2 else values
        return View(name, kind, units, values, picture=_picture(captions.images, name, sample, values), side=side)
    return View(name, kind, units, values, side=side)


def _kind(explanation: Explanation, name: str, units: Tensor, values: Tensor | None) -> str:
    captions = explanation.captions
    if name in captions.images:
        return "image"
    if name in captions.tokens or name.endswith("inputs_embeds"):
        return "tokens"
    if units.dim() == 1:
        ids = values is not None and not values.is_floating_point()
        return "tokens" if ids and name not in captions.features else "features"
    return {2: "series", 3: "image"}.get(units.dim(), "values")


def _numbers(values: Tensor | None, count: int) -> tuple[str, ...]:
    """Ids where they are known, else positions."""
    return tuple(map(str, range(count) if values is None else values.tolist()))


def _picture(images: Mapping[str, Tensor], name: str, sample: int, values: Tensor | None) -> Tensor | None:
    """What to show: the caption's picture, else the input stretched into 0..1, if it has 1 or 3 channels."""
    shown: Any = images[name][sample] if name in images else values
    if shown is None or shown.shape[0] not in (1, 3):
        return None
    shown = shown.float().nan_to_num()
    low, high = float(shown.min()), float(shown.max())
    if low < -1e-3 or high > 1 + 1e-3:
        shown = (shown - low) / ((high - low) or 1.0)
    picture: Tensor = shown.clamp(0, 1)
    return picture
