"""How one call was routed to experts: who got which token, and what is read there out of a relevance pass."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.errors import RuleError
from dlb_core.experts import SITES, ExpertLayer, ExpertRows, ExpertSite, Ways
from dlb_core.kernel.facts import facts
from dlb_core.kernel.kinds import argument
from dlb_core.kernel.layout import Layout
from dlb_core.kernel.ledger import Ledger
from dlb_core.kernel.ops import bound_arguments
from dlb_core.kernel.run import watched


def sites_of(layout: Layout) -> list[ExpertSite]:
    """The layers of experts that packs recognised."""
    return layout.program.sites.get(SITES, [])


def slots_read(layout: Layout) -> set[int]:
    """The slots whose values say how a call was routed."""
    nodes: set[fx.Node] = set()
    for site in sites_of(layout):
        nodes |= {site.probability} if site.probability is not None else set()
        for rows in site.rows:
            nodes |= {*rows.reads, *([rows.weight] if rows.weight is not None else [])}
    return {layout.slots[node.name] for node in nodes}


@dataclass(frozen=True)
class Routed:
    """One node's rows in one call: the token and the expert (-1: none) of every row, and the table they make."""

    slot: int
    tokens: Tensor
    experts: Tensor
    size: tuple[int, int]  # tokens, experts
    shape: torch.Size  # of the rows

    def table(self, by_row: Tensor) -> Tensor:
        """Numbers by row [rows], summed by token and expert."""
        tokens, experts = self.size
        table = by_row.new_zeros(tokens * experts)
        places = self.tokens * experts + self.experts.clamp(min=0)
        return table.index_add(0, places, torch.where(self.experts < 0, 0, by_row)).reshape(tokens, experts)

    def units(self, r: Tensor) -> Tensor:
        """Relevance [*rows, width] by token and expert."""
        return self.table(r.sum(-1).reshape(-1))

    def mask(self, chosen: Sequence[int], dtype: torch.dtype) -> Tensor:
        """1 for the rows of the chosen experts, else 0, as the node is shaped but for its width: [*rows, 1]."""
        wanted = torch.tensor([*chosen], device=self.experts.device)
        return torch.isin(self.experts, wanted).to(dtype).reshape(*self.shape, 1)


@dataclass(frozen=True)
class Layer:
    """A layer of experts in one call. samples, steps: what its tokens are, sample after sample."""

    site: ExpertSite
    rows: tuple[Routed, ...]
    samples: int
    steps: int
    weight: Tensor
    selected: Tensor
    probability: Tensor
    ways: Ways

    def read(self, kept: Mapping[Any, Any], ledgers: tuple[Ledger, ...], several: bool) -> ExpertLayer | None:
        """What a relevance pass left at its rows; None where no relevance came to its experts."""
        found = [kept[watched(rows.slot)] for rows in self.rows if watched(rows.slot) in kept]
        if not found:
            return None
        units = sum(found[1:], found[0])
        size = (self.samples, self.steps, self.site.experts)
        return ExpertLayer(
            name=self.site.name,
            by_token=units.reshape(*units.shape[:-2], *size),
            weight=self.weight.reshape(size),
            selected=self.selected.reshape(size),
            probability=self.probability.reshape(size),
            ways=self.ways,
            ledgers=ledgers,
            several=several,
        )


class Routing:
    """How a call was routed, layer by layer; read off its activations before relevance flows."""

    def __init__(self, layout: Layout, values: Sequence[Any], shapes: Sequence[Any], samples: int) -> None:
        self.layers = {site.name: _layer(site, layout, values, shapes, samples) for site in sites_of(layout)}

    @property
    def watch(self) -> dict[int, Callable[[Tensor], Tensor]]:
        """What a relevance pass keeps of the rows of experts: units by token and expert."""
        return {rows.slot: rows.units for layer in self.layers.values() for rows in layer.rows}

    def read(self, kept: Mapping[Any, Any], ledgers: tuple[Ledger, ...], several: bool) -> dict[str, ExpertLayer]:
        """The layers that relevance came to, by name."""
        found = {name: layer.read(kept, ledgers, several) for name, layer in self.layers.items()}
        return {name: layer for name, layer in found.items() if layer is not None}

    def masks(self, name: str, numbers: Iterable[int], dtype: torch.dtype) -> dict[int, Tensor]:
        """By slot, what of a layer's rows belongs to these experts. Raises ValueError for one that is not there."""
        layer = self.layers[name]
        count = layer.site.experts
        chosen = [*numbers]
        for number in chosen:
            if not -count <= number < count:
                raise ValueError(f"through[{name!r}] names expert {number}: choose from 0 .. {count - 1}")
        return {rows.slot: rows.mask([n % count for n in chosen], dtype) for rows in layer.rows}


def _layer(site: ExpertSite, layout: Layout, values: Sequence[Any], shapes: Sequence[Any], samples: int) -> Layer:
    entry = shapes[layout.slots[site.entry.name]]
    tokens = math.prod(entry[:-1])
    size = tokens, site.experts
    routed = tuple(_routed(rows, layout, values, shapes, size) for rows in site.rows)
    weights, counts = [], []
    for rows, found in zip(site.rows, routed, strict=True):
        ones = torch.ones(found.tokens.shape[0], device=found.tokens.device)
        by_row = ones if rows.weight is None else _weight(rows, rows.weight, found, layout, values)
        weights.append(found.table(by_row))
        counts.append(found.table((by_row != 0).to(ones)))  # a block may run every expert, and weigh most by zero
    weight = sum(weights[1:], weights[0])
    steps = math.prod(entry[1:-1]) if len(entry) > 2 else tokens // samples if tokens % samples == 0 else tokens
    return Layer(
        site,
        routed,
        tokens // max(steps, 1),
        steps,
        weight,
        sum(counts[1:], counts[0]) > 0,
        weight if site.probability is None else _value(site.probability, layout, values).reshape(size),
        _ways(site, layout),
    )


def _weight(rows: ExpertRows, node: fx.Node, found: Routed, layout: Layout, values: Sequence[Any]) -> Tensor:
    value = _value(node, layout, values)
    return (value if rows.weigh is None else rows.weigh(value, found.shape)).reshape(-1)


def _value(node: fx.Node, layout: Layout, values: Sequence[Any]) -> Tensor:
    value: Tensor = values[layout.slots[node.name]]
    return value


def _routed(
    rows: ExpertRows, layout: Layout, values: Sequence[Any], shapes: Sequence[Any], size: tuple[int, int]
) -> Routed:
    slot = layout.slots[rows.node.name]
    shape = shapes[slot][:-1]
    tokens, experts = rows.places(*(_value(node, layout, values) for node in rows.reads))
    if not tokens.shape == experts.shape == (math.prod(shape),):
        raise RuleError(
            f"{rows.node.name!r} has {math.prod(shape)} rows of experts, but the pack that recognised it places "
            f"{list(tokens.shape)} tokens and {list(experts.shape)} experts"
        )
    return Routed(slot, tokens, experts, size, shape)


def _ways(site: ExpertSite, layout: Layout) -> Ways:
    """The nodes between a site's entry and its rows."""
    ends = {rows.node for rows in site.rows}
    first = min(layout.slots[node.name] for node in ends)
    below: set[fx.Node] = set()  # of the rows
    for node in layout.nodes[first : layout.slots[site.entry.name] + 1]:
        if node not in ends and any(source in ends or source in below for source in node.all_input_nodes):
            below.add(node)
    between: dict[fx.Node, None] = {site.entry: None}
    waiting = [site.entry]
    while waiting:
        found = [source for source in waiting.pop().all_input_nodes if source in below and source not in between]
        between |= dict.fromkeys(found)
        waiting += found
    weighing = [(node, name) for node in between for name in facts(node).routers]
    router = [argument(bound_arguments(node), name).name for node, name in weighing]
    return Ways(site.entry.name, tuple(n.name for n in between), tuple(n.name for n in ends), tuple(router))
