"""Units by layer of experts and expert, as a heat map with shares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from dlb_core.experts import ExpertLayer
from dlb_core.viz.plots.digits import Digits
from dlb_core.viz.plots.heading import heading
from dlb_core.viz.plots.matrix import Matrix
from dlb_core.viz.plots.picture import Block, Picture, compose
from dlb_core.viz.plots.scale import Scale
from dlb_core.viz.view import ledger_of, sides

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation

IN_CELLS = 22  # experts whose shares there is room for in their cells
STRONGEST = 3  # of more experts, so many have their shares beside the map


def plot_experts(explanation: Explanation, *, target: int = 0) -> Picture:
    """See `Explanation.plot_experts`."""
    if not explanation.relevance.routed:
        raise ValueError(
            f"mode {explanation.mode!r} runs at several points, which may choose different experts: "
            "explain with a mode that runs once"
        )
    maps = {side: relevance.experts for side, relevance in sides(explanation.relevance).items()}
    if not next(iter(maps.values())):
        raise ValueError("no relevance came to experts: this model has none, or relevance did not reach them")
    ledger_of(explanation.relevance, target)  # is there such a target?
    units = {side: _units(layers, target) for side, layers in maps.items()}
    scale = Scale.of(*units.values())
    rows: list[list[Block]] = [[_map(side, maps[side], units[side], scale, target)] for side in maps]
    return compose(heading(explanation, "Experts", target=target), rows)


def _units(layers: dict[str, ExpertLayer], target: int) -> Tensor:
    """Units [layers, experts]; NaN where a layer has fewer experts than another."""
    each = [_of(layer, target) for layer in layers.values()]
    padded = torch.full((len(each), max(map(len, each))), float("nan"), dtype=torch.float64)
    for row, units in zip(padded, each, strict=True):
        row[: len(units)] = units
    return padded


def _of(layer: ExpertLayer, target: int) -> Tensor:
    units = layer.relevance.detach().cpu().double()
    return units[target] if layer.several else units


def _map(side: str, layers: dict[str, ExpertLayer], units: Tensor, scale: Scale, target: int) -> Matrix:
    entered = [_entered(layer, target) for layer in layers.values()]
    whole = [float(row.nansum()) if came is None else came for row, came in zip(units, entered, strict=True)]
    shares = [[_share(n, all_of_it) for n in row] for row, all_of_it in zip(units.tolist(), whole, strict=True)]
    digits = Digits.of(max(map(abs, whole)))
    notes = [digits.exact(each) for each in whole]
    what, where = ("of their sum", "the sum") if None in entered else ("of what entered", "what entered the layer")
    few = units.shape[1] <= IN_CELLS
    if not few:
        notes = [_strongest(note, row, mine) for note, row, mine in zip(notes, units, shares, strict=True)]
        where += ", and the strongest"
    title = f"units by expert, and their share {what} in %; right: {where}"
    return Matrix(
        f"experts {side}".strip(),
        " · ".join(filter(None, [side, title])),
        units,
        [*layers],
        [str(e) for e in range(units.shape[1])],
        scale,
        shares if few else None,
        notes,
        cell=(0.44, 0.3),
    )


def _strongest(note: str, units: Tensor, shares: list[str]) -> str:
    """Of many experts the shares do not go into the cells."""
    order = units.abs().nan_to_num().argsort(descending=True, stable=True)[:STRONGEST].tolist()
    named = [f"{e}: {shares[e]} %" for e in order if shares[e]]
    return f"{note}   {', '.join(named)}" if named else note


def _entered(layer: ExpertLayer, target: int) -> float | None:
    """Units that entered; None where the books of single nodes were not kept."""
    if not all(layer.ways.entry in ledger.by_node for ledger in layer.ledgers):
        return None
    entered = layer.entered
    return float(entered[target] if layer.several else entered)


def _share(units: float, whole: float) -> str:
    if not whole or units != units:
        return ""
    share = 100 * units / whole
    return Digits(1 if abs(share) < 100 else 0).text(share, sign=False)
