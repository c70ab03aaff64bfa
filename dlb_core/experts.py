"""Experts: where a graph has them, as a pack finds them, and what each of them contributed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor, fx

SITES = "experts"  # the topic under which a pass leaves its `ExpertSite`s in `Program.sites`


@dataclass(frozen=True)
class ExpertRows:
    """A node whose rows are what experts returned, before the router weighs them and they are added up by token.

    node: its value is [*rows, width]. reads: the nodes whose values `places` takes. places: from those values the
    token and the expert of every row, two int64 tensors of as many elements as there are rows. weight: the node of the
    router's weight by row, [*rows] or [*rows, 1]; None where nothing weighs them.
    """

    node: fx.Node
    reads: tuple[fx.Node, ...]
    places: Callable[..., tuple[Tensor, Tensor]]
    weight: fx.Node | None = None


@dataclass(frozen=True)
class ExpertSite:
    """One layer of experts in a graph.

    name: its module path. experts: how many there are, chosen or not. rows: what they return, in one node or several.
    entry: the node in which the weighted rows are added up by token, [*tokens, width]: relevance enters the experts
    here. probability: the node of the router's probabilities, [*tokens, experts]; None where the router has only
    weights for the experts that it chose.
    """

    name: str
    experts: int
    rows: tuple[ExpertRows, ...]
    entry: fx.Node
    probability: fx.Node | None = None
