"""Experts: where a graph has them, as a pack finds them, and what each of them contributed."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx

from dlb_core.contrast import half_tensors
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.table import Table

SITES = "experts"  # the topic under which a pass leaves its `ExpertSite`s in `Program.sites`


@dataclass(frozen=True)
class ExpertRows:
    """A node whose rows are what experts returned, before the router weighs them and they are added up by token.

    node: its value is [*rows, width]. reads: the nodes whose values `places` takes. places: from those values the
    token and the expert of every row, two int64 tensors of as many elements as there are rows (expert -1: the row is
    nobody's, or goes nowhere). weight: the node of the router's weights; None where nothing weighs the rows. weigh:
    from its value and the shape of the rows the weight of each, [*rows] or [*rows, 1]; None: the value is just that.
    """

    node: fx.Node
    reads: tuple[fx.Node, ...]
    places: Callable[..., tuple[Tensor, Tensor]]
    weight: fx.Node | None = None
    weigh: Callable[[Tensor, torch.Size], Tensor] | None = None


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


@dataclass(frozen=True)
class Ways:
    """The nodes around a layer of experts, by name: where relevance enters, what lies on its way, where it arrives."""

    entry: str
    between: tuple[str, ...]  # from `entry`, which is one of them, to the rows, which are not
    rows: tuple[str, ...]
    router: tuple[str, ...]  # what feeds the router's weights to a node between


@dataclass(frozen=True, repr=False)
class ExpertLayer:
    """What the experts of one layer contributed, and how they were chosen.

    by_token: units by sample, token and expert, [B, T, E], 0 where an expert was not chosen; several targets add a
    leading axis. weight: the router's weights, [B, T, E], 0 where not chosen. selected: where they are not 0, bool
    [B, T, E]. probability: the router's, [B, T, E]; where it has none for experts it did not choose, its weights. T is
    1 in a model without tokens.
    """

    name: str
    by_token: Tensor
    weight: Tensor
    selected: Tensor
    probability: Tensor
    ways: Ways
    ledgers: tuple[Ledger, ...]
    several: bool = False

    @property
    def relevance(self) -> Tensor:
        """Units by expert, [E], summed over the batch as the ledger is."""
        return self.by_token.sum((-3, -2))

    @property
    def by_sample(self) -> Tensor:
        """Units by sample and expert, [B, E]."""
        return self.by_token.sum(-2)

    @property
    def load(self) -> Tensor:
        """How many tokens chose each expert, int64 [E]."""
        return self.selected.sum((0, 1))

    @property
    def entered(self) -> Any:
        """Units that entered the experts: `relevance` and `accounts` add up to them. A tuple for several targets.

        Raises ValueError when the books of single nodes were not kept.
        """
        found = tuple(self._entry(ledger).into for ledger in self.ledgers)
        return found if self.several else found[0]

    @property
    def accounts(self) -> Any:
        """What of `entered` did not reach the experts: units by account, and what went to the ``router``."""
        found = tuple(self._accounts(ledger) for ledger in self.ledgers)
        return found if self.several else found[0]

    def table(self) -> Table:
        """Expert, tokens that chose it, mean probability, units, share of what entered in per cent."""
        if self.several:
            raise ValueError("one table shows one target: explain it alone, or take .relevance")
        units, load = self.relevance.tolist(), self.load.tolist()
        mean = self.probability.mean((0, 1)).tolist()
        total = self.entered
        rows: list[tuple[Any, ...]] = [
            (str(e), load[e], mean[e], units[e], _share(units[e], total)) for e in range(len(units))
        ]
        rows += [(name, None, None, amount, _share(amount, total)) for name, amount in self.accounts.items()]
        rows.append(("= entered", None, None, total, _share(total, total)))
        return Table(("expert", "tokens", "probability", "units", "share %"), rows, title=f"experts of {self.name}")

    def side(self, total: ExpertLayer, sign: int, ledgers: tuple[Ledger, ...]) -> ExpertLayer:
        """Of a layer of differences and one of sums: one of the two maps, with its books."""
        half = half_tensors(total.by_token, self.by_token, sign)
        return dataclasses.replace(self, by_token=half, ledgers=ledgers)

    def _entry(self, ledger: Ledger) -> NodeEntry:
        if self.ways.entry not in ledger.by_node:
            raise ValueError('the books of single nodes were not kept: explain with check="raise" or "warn"')
        return ledger.by_node[self.ways.entry]

    def _accounts(self, ledger: Ledger) -> dict[str, float]:
        self._entry(ledger)
        found: dict[str, float] = {}
        inside = {*self.ways.between, *self.ways.rows}
        for entry in (ledger.by_node[name] for name in self.ways.between if name in ledger.by_node):
            away = [(name, units) for name, units in entry.edges.items() if name not in inside]
            gone = [("router" if name in self.ways.router else f"node:{name}", units) for name, units in away]
            for name, units in (*entry.accounts.items(), *gone):
                found[name] = found.get(name, 0.0) + units
        for entry in (ledger.by_node[name] for name in self.ways.rows if name in ledger.by_node):
            for name, units in entry.accounts.items():
                if name.startswith("through:"):  # dropped as it came; the rest is the experts' own
                    found[name] = found.get(name, 0.0) + units
        return found

    def __repr__(self) -> str:
        samples, tokens, experts = self.by_token.shape[-3:]
        return f"ExpertLayer({self.name!r}, {experts} experts, {samples} samples of {tokens} tokens)"


_TENSORS = ("by_token", "weight", "selected", "probability")


def to_save(layers: Mapping[str, ExpertLayer], folder: str) -> tuple[list[dict[str, Any]], dict[str, Tensor]]:
    """Layers as data that JSON can hold, and their tensors by a path under `folder`."""
    heads = [{"name": layer.name, "ways": dataclasses.asdict(layer.ways)} for layer in layers.values()]
    parts = ((f"{folder}/{i}", layer) for i, layer in enumerate(layers.values()))
    return heads, {f"{path}/{name}": getattr(layer, name) for path, layer in parts for name in _TENSORS}


def from_saved(
    heads: Sequence[Mapping[str, Any]],
    folder: str,
    tensors: Mapping[str, Tensor],
    ledgers: tuple[Ledger, ...],
    several: bool,
) -> dict[str, ExpertLayer]:
    """The layers that `to_save` wrote."""
    found = {}
    for i, head in enumerate(heads):
        entry, *nodes = (head["ways"][f.name] for f in dataclasses.fields(Ways))
        ways = Ways(entry, *map(tuple, nodes))
        parts = {name: tensors[f"{folder}/{i}/{name}"] for name in _TENSORS}
        found[head["name"]] = ExpertLayer(head["name"], **parts, ways=ways, ledgers=ledgers, several=several)
    return found


def _share(units: float, total: float) -> float | None:
    return 100 * units / total if total else None
