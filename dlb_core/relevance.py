"""`Relevance`: an immutable mapping from node, input and module names to relevance."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType
from typing import Any

from dlb_core.contrast import half_ledger, half_tensors
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
    ) -> None:
        self._tensors = MappingProxyType(dict(tensors))
        self._resolve = resolve
        self._why_not = why_not
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
        return Relevance(
            {name: half_tensors(total, self._tensors[name], sign) for name, total in self.total.items()},
            tuple(half_ledger(total, difference, sign) for total, difference in pairs),
            inputs=self._inputs,
            target=self.target,
            mode=self.mode,
            several=self.several,
            resolve=self._resolve,
            why_not=self._why_not,
        )

    @property
    def inputs(self) -> dict[str, Any]:
        """Relevance of the explained inputs by name."""
        return {name: self._tensors[name] for name in self._inputs if name in self._tensors}

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
