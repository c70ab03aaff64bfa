"""Relevance of the inputs: each drawn by what it is, two maps of a contrastive mode on one scale."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from dlb_core.viz.plots.bars import Bars, Column, reach_of, tone
from dlb_core.viz.plots.digits import Digits, plain
from dlb_core.viz.plots.heading import above, heading
from dlb_core.viz.plots.image import image_blocks
from dlb_core.viz.plots.picture import Block, Picture, compose
from dlb_core.viz.plots.series import series_blocks
from dlb_core.viz.plots.tokens import token_blocks
from dlb_core.viz.view import View, views

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation

MOST_BARS = 20


def plot_inputs(
    explanation: Explanation, name: str | None = None, *, sample: int = 0, target: int = 0, channels: bool = False
) -> Picture:
    """See `Explanation.plot`."""
    inputs: dict[str, list[View]] = {}
    for view in views(explanation, sample=sample, target=target):
        inputs.setdefault(view.name, []).append(view)
    if not inputs:
        raise ValueError("this explanation keeps no relevance of inputs")
    if name is not None:
        if name not in inputs:
            raise ValueError(f"{name!r} is no explained input; choose from {', '.join(inputs)}")
        inputs = {name: inputs[name]}
    if channels and all(sides[0].kind != "image" for sides in inputs.values()):
        raise ValueError("channels=True: none of these inputs is an image")
    rows = [row for sides in inputs.values() for row in _blocks(sides, channels)]
    return compose(heading(explanation, "Relevance", target=target, sample=sample), rows)


def _blocks(sides: Sequence[View], channels: bool) -> list[list[Block]]:
    if not sides[0].units.numel():
        raise ValueError(f"{sides[0].name!r} is empty: there is nothing to draw")
    if sides[0].kind == "image":
        return image_blocks(sides, channels)
    return BLOCKS[sides[0].kind](sides)


def bar_blocks(sides: Sequence[View]) -> list[list[Block]]:
    """The largest elements as bars, the others in one; two maps have the same order and scale."""
    units = [side.units.flatten() for side in sides]
    first = sides[0]
    labels = first.labels or tuple(_place(first, i) for i in range(units[0].numel()))
    sizes = torch.stack(units).abs().nan_to_num().sum(0)
    order = sizes.argsort(descending=True, stable=True).tolist()
    top, rest = (order, []) if len(order) <= MOST_BARS + 1 else (order[:MOST_BARS], order[MOST_BARS:])
    lengths = [[float(each[i]) for i in top] + ([float(each[rest].nansum())] if rest else []) for each in units]
    names = [labels[i] for i in top] + ([f"… {len(rest)} more"] if rest else [])
    values = None if first.values is None else first.values.flatten()
    notes = [] if values is None else [plain(values[i].item()) for i in top] + ([""] if rest else [])
    reach = reach_of(*lengths)
    digits = Digits.of(max(-reach[0], reach[1]))
    row: list[Block] = []
    for side, mine in zip(sides, lengths, strict=True):
        tones = [tone(length, pale=bool(rest) and i == len(top)) for i, length in enumerate(mine)]
        column = Column("", mine, [[digits.exact(n) for n in mine]], reach, width=3.4, colours=tones)
        quiet = frozenset([len(top)] if rest else [])
        row.append(Bars(f"{side.name} {side.side}".strip(), above(side), names, [column], notes, quiet))
    return [row]


def _place(view: View, flat: int) -> str:
    """Where an element is, as one would index it."""
    index = [int(i) for i in torch.unravel_index(torch.tensor(flat), view.units.shape)]
    return f"[{', '.join(map(str, index))}]" if index else view.name


BLOCKS: dict[str, Callable[[Sequence[View]], list[list[Block]]]] = {
    "tokens": token_blocks,
    "features": bar_blocks,
    "series": series_blocks,
    "values": bar_blocks,
}
