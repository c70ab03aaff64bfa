"""`Relevance`: an immutable mapping from node, input and module names to relevance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from torch import Tensor

from dlb_core.contrast import half_ledger, half_tensors
from dlb_core.experts import ExpertLayer
from dlb_core.kernel.axes import Axis
from dlb_core.kernel.ledger import Ledger


class Relevance(Mapping[str, Any]):
    """Name -> relevance, a tensor shaped like that node's output (a tuple for a node with several outputs).

    Keys are the input names first, then node names in execution order, then ``output`` (the seed). A module path
    (``layer1.0.conv2``) or the name of a folded node works as a key too. `ledger` keeps the books of the seed; with
    several targets every tensor has a leading axis over them and `ledger` is a tuple. In a contrastive mode the mapping
    is the difference of two maps, `positive` and `negative`, whose sum is `total`.
    """

    def __init__(
        self,
        tensors: Mapping[str, Any],
        ledgers: tuple[Ledger, ...],
        *,
        inputs: tuple[str, ...],
        target: Any,
        mode: str,
        several: bool = False,
        total: Relevance | None = None,
        resolve: Callable[[str], str] = str,
        why_not: Callable[[str], str] = lambda name: "no relevance was kept for it",
        part: Callable[[str, str], tuple[str, int, Axis]] | None = None,
        experts: Mapping[str, ExpertLayer] | None = None,
    ) -> None:
        self._tensors = MappingProxyType(dict(tensors))
        self._resolve = resolve
        self._why_not = why_not
        self._part = part
        self._experts = experts
        self._inputs = inputs
        self.ledgers = ledgers
        self.several = several
        self.total = total
        self.target = target
        self.mode = mode

    @property
    def ledger(self) -> Any:
        """The `Ledger` of the seed; a tuple of them, one per target, after `targets=[...]`."""
        return self.ledgers if self.several else self.ledgers[0]

    @property
    def positive(self) -> Relevance:
        """Contrastive: the map of what speaks for the target, >= 0, with its own ledger."""
        return self._side(1)

    @property
    def negative(self) -> Relevance:
        """Contrastive: the map of what speaks against the target, >= 0, with its own ledger."""
        return self._side(-1)

    def _side(self, sign: int) -> Relevance:
        if self.total is None:
            raise AttributeError(f"mode {self.mode!r} has one map; mode='contrastive' has .positive and .negative")
        pairs = zip(self.total.ledgers, self.ledgers, strict=True)
        ledgers = tuple(half_ledger(total, difference, sign) for total, difference in pairs)
        whole = self.total.experts
        experts = {name: layer.side(whole[name], sign, ledgers) for name, layer in self.experts.items()}
        return Relevance(
            {name: half_tensors(total, self._tensors[name], sign) for name, total in self.total.items()},
            ledgers,
            inputs=self._inputs,
            target=self.target,
            mode=self.mode,
            several=self.several,
            resolve=self._resolve,
            why_not=self._why_not,
            part=self._part,
            experts=experts,
        )

    @property
    def experts(self) -> dict[str, ExpertLayer]:
        """What each expert contributed, by layer, where relevance came to experts; empty for a model without.

        Raises ValueError in modes along a path or over noise, where every point may choose other experts.
        """
        if self._experts is None:
            raise ValueError(f"mode {self.mode!r} runs at several points, which may choose different experts")
        return dict(self._experts)

    @property
    def routed(self) -> bool:
        """Is it known what its experts contributed (also when there are none)?"""
        return self._experts is not None

    @property
    def inputs(self) -> dict[str, Any]:
        """Relevance of the explained inputs by name."""
        return {name: self._tensors[name] for name in self._inputs if name in self._tensors}

    def of_inputs(self) -> Relevance:
        """The same books with the relevance of the inputs alone, as `explain` keeps it by default."""
        return Relevance(
            self.inputs,
            self.ledgers,
            inputs=self._inputs,
            target=self.target,
            mode=self.mode,
            several=self.several,
            total=None if self.total is None else self.total.of_inputs(),
            experts=self._experts,
        )

    def by_module(self) -> Any:
        """Module path -> units in, out and booked (see `Ledger.by_module`); a tuple of them after `targets=[...]`."""
        books = tuple(ledger.by_module() for ledger in self.ledgers)
        return books if self.several else books[0]

    def by_channel(self, name: str, dim: int | None = None) -> Tensor:
        """Units per channel of a node, module or input: [B, C], dimension 0 and the channels; the rest is summed.

        The dimension of channels is 1 of a convolution and what keeps its layout, the last of a linear layer; `dim`
        says it where the graph does not. Several targets add their leading axis. Raises KeyError for what was not kept,
        ValueError for a node without channels.
        """
        if dim is None:
            return self._totals("channel", name)
        r = self._tensor(name)
        rank = r.dim() - self.several
        if not -rank <= dim < rank:
            raise ValueError(f"dim={dim}: {name!r} has dimensions 0 .. {rank - 1}")
        return Axis(dim % rank).totals(r, rank)

    def by_head(self, name: str) -> Tensor:
        """Units per head of an attention, [B, H]: of its result, or of the module that holds it.

        Several targets add their leading axis. Raises KeyError for what was not kept, ValueError for what has no heads.
        """
        return self._totals("head", name)

    def _totals(self, what: str, name: str) -> Tensor:
        if self._part is None:
            advice = f"give dim= to sum its {what}s" if what == "channel" else "sum them before it is saved"
            raise ValueError(f"{name!r}: a saved explanation does not know the graph; {advice}")
        node, rank, axis = self._part(what, name)
        return axis.totals(self._tensor(node), rank)

    def _tensor(self, name: str) -> Tensor:
        r = self[name]
        if not isinstance(r, Tensor):
            raise ValueError(f"{name!r} has several outputs: name the node that takes one of them")
        return r

    def __getitem__(self, name: str) -> Any:
        if name in self._tensors:
            return self._tensors[name]
        resolved = self._resolve(name)
        if resolved in self._tensors:
            return self._tensors[resolved]
        raise KeyError(f"{name!r}: {self._why_not(resolved)}")

    def __contains__(self, name: object) -> bool:
        return isinstance(name, str) and (name in self._tensors or self._resolve(name) in self._tensors)

    def __iter__(self) -> Iterator[str]:
        return iter(self._tensors)

    def __len__(self) -> int:
        return len(self._tensors)

    def __repr__(self) -> str:
        return (
            f"Relevance(mode={self.mode!r}, target={self.target!r}, {len(self)} entries, inputs={list(self._inputs)})"
        )
