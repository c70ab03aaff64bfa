"""Why two inputs are similar: which place of one with which place of the other.

The similarity of two embeddings is a sum over their coordinates k of a_k b_k. Relevance says how much of each
coordinate every place of the input made, R_i<-k(a) and R_j<-k(b); the pair (i, j) then made sum_k R_i<-k(a) R_j<-k(b).
That is BiLRP (Eberle et al. 2020, doi:10.1109/TPAMI.2020.3020738) with any mode of relevance.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.backtrace import DLBacktrace
from dlb_core.choices import choose
from dlb_core.errors import ConservationError
from dlb_core.explanation import Explanation
from dlb_core.kernel.settle import TOLERANCE
from dlb_core.table import Table

KINDS = ("cosine", "dot")
INPUTS = "inputs"


@dataclass(frozen=True)
class Pairs:
    """How similar two inputs are and which pairs of their places made it.

    similarity: the number that is explained. matrix: its share of every pair, [places of a, places of b]; an input of
    several dimensions is laid out flat. accounts: (account of a, account of b) -> units, where ``inputs`` stands for
    the places together: what a bias of one made with the places of the other, and two biases with each other. The
    matrix and the accounts add up to the similarity.
    """

    similarity: float
    matrix: Tensor
    accounts: Mapping[tuple[str, str], float]

    @property
    def residual(self) -> float:
        """similarity - matrix - accounts: rounding, when all is well."""
        return self.similarity - float(self.matrix.double().sum()) - math.fsum(self.accounts.values())

    def table(self) -> Table:
        """Where the similarity came from, by account, the largest first."""
        rows: list[tuple[Any, ...]] = [(INPUTS, INPUTS, float(self.matrix.double().sum()))]
        rows += sorted(((a, b, units) for (a, b), units in self.accounts.items() if units), key=lambda r: -abs(r[2]))
        rows.append(("residual (rounding)", "", self.residual))
        rows.append(("= similarity", "", self.similarity))
        return Table(("account of a", "account of b", "units"), rows, title="similarity")

    def __str__(self) -> str:
        return str(self.table())


def pairs(
    dlb: DLBacktrace,
    a: Any,
    b: Any,
    *,
    kind: str = "cosine",
    mode: Any = "default",
    input: str | None = None,
    **options: Any,
) -> Pairs:
    """Explains the similarity of the embeddings of two inputs by pairs of their places (tokens, say).

    dlb: a model whose explained output is an embedding [1, D]. a, b: one sample each, a tensor, a tuple of positional
    or a dict of keyword arguments; their sizes may differ. kind: "cosine" (the embeddings' lengths are constants) or
    "dot". mode and further keyword arguments: as in `explain`. input: whose places (default: the first explained
    input; others are accounts ``input:<name>``). Units: those of the similarity.

    It costs one forward pass and D seeds for each of the two, which go through the model several at once. Raises
    ValueError for an output that is no embedding of one sample, `ConservationError` when the parts do not add up.
    """
    choose("kind", kind, KINDS)
    one, two = (_Side(dlb, given, mode, input, options) for given in (a, b))
    if one.embedding.shape != two.embedding.shape:
        raise ValueError(f"embeddings of {len(one.embedding)} and {len(two.embedding)} numbers have no product")
    length = 1.0 if kind == "dot" else float(one.embedding.norm() * two.embedding.norm())
    if not length:
        raise ValueError("an embedding of zeros has no cosine: choose kind='dot'")
    scale = 1 / length
    accounts = {
        (row, column): float(one.sums[row] @ two.sums[column]) * scale
        for row in one.sums
        for column in two.sums
        if (row, column) != (INPUTS, INPUTS)
    }
    found = Pairs(
        similarity=float(one.embedding @ two.embedding) * scale,
        matrix=one.places.T @ two.places * scale,
        accounts=accounts,
    )
    size = float(one.embedding.abs() @ two.embedding.abs()) * scale + float(one.reach @ two.reach) * scale
    if dlb.check != "off" and not abs(found.residual) <= max(one.tolerance, two.tolerance) * size:
        raise ConservationError(f"the pairs do not add up to the similarity: {found!s}")
    return found


class _Side:
    """One of the two inputs: its embedding, and for each coordinate what every place and account made of it."""

    def __init__(self, dlb: DLBacktrace, given: Any, mode: Any, name: str | None, options: Mapping[str, Any]) -> None:
        explained = self._explained(dlb, given, mode, options)
        inputs, ledgers = explained.inputs, explained.ledger
        name = next(iter(inputs)) if name is None else name
        if name not in inputs:
            raise ValueError(f"input={name!r}: the explained inputs are {', '.join(map(repr, inputs))}")
        self.embedding = explained.output[0].to(torch.float64)
        self.places = inputs[name].flatten(1).to(torch.float64)
        self.reach = self.places.abs().sum(1)
        self.sums = {INPUTS: self.places.sum(1)}
        for other in inputs:
            if other != name:
                self.sums[f"input:{other}"] = self._column([ledger.inputs.get(other, 0.0) for ledger in ledgers])
        for account in dict.fromkeys(account for ledger in ledgers for account in ledger.accounts):
            self.sums[account] = self._column([ledger.accounts.get(account, 0.0) for ledger in ledgers])
        self.tolerance = max(TOLERANCE[inputs[name].dtype], *(ledger.tolerance for ledger in ledgers))

    @staticmethod
    def _explained(dlb: DLBacktrace, given: Any, mode: Any, options: Mapping[str, Any]) -> Explanation:
        call = given if isinstance(given, (tuple, Mapping)) else (given,)
        return dlb.explain(call, mode=mode, targets=_coordinates, seed="logit", **options)

    def _column(self, numbers: list[float]) -> Tensor:
        return torch.tensor(numbers, dtype=torch.float64, device=self.places.device)


def _coordinates(output: Tensor) -> range:
    """Every coordinate of an embedding as a target."""
    if output.dim() != 2 or output.shape[0] != 1:
        raise ValueError(
            f"the explained output {list(output.shape)} is no embedding [1, D] of one sample: choose output=, or give "
            "the model its pooling, and explain one pair at a time"
        )
    return range(output.shape[1])
