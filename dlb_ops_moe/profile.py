"""`ExpertProfile`: which experts carry which classes or kinds of tokens, added up over a data set."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlb_core.saved import Format
from dlb_core.table import Table
from dlb_ops_moe.groups import By, Label, in_order, labelled
from dlb_ops_moe.totals import ExpertTotals, added, aligned, shared, totals_of

if TYPE_CHECKING:
    from dlb_core.experts import ExpertLayer
    from dlb_core.explanation import Explanation
    from dlb_core.relevance import Relevance
    from dlb_ops_moe.comparison import ProfileComparison

FILES = Format("dlb-expert-profile", 1, "profile.json", "expert profile")
OF = ("relevance", "signed", "load", "probability")
WIDE = 16  # experts that a table shows as columns of their own


class ExpertProfile:
    """Relevance, load and router probability by layer, group and expert, over as many explanations as are added.

    layers: the expert layers to look at, by name (default: all that the first explanation has). Groups are labels, str
    or int, in the order 0 < 1 < ... < "a" < "b". Two profiles of one model and mode add up with ``+``, in any order.
    """

    def __init__(self, layers: Iterable[str] | None = None) -> None:
        self._wanted = None if layers is None else tuple(layers)
        self._groups: tuple[Label, ...] = ()
        self._totals: dict[str, ExpertTotals] = {}
        self._mode: str | None = None

    def add(self, explained: Explanation | Relevance, groups: Any, *, by: By | None = None) -> None:
        """Adds what one explanation found.

        groups: a label for each sample (a list or a tensor [B]), or for each token ([B][T]); None leaves a sample or
        token out (padding). by: from what stands in `groups` to the label, as a mapping or a function: token id -> kind
        of token, say; None leaves it out. Raises ValueError, and adds nothing, for groups that do not fit the samples
        or tokens, for layers, experts or a mode other than before, and for several targets at once.
        """
        layers = self._chosen(explained)
        told = labelled(groups, by)
        new = ExpertProfile(self._wanted)
        new._mode = explained.mode
        new._groups = told.labels
        new._totals = {name: totals_of(name, layer, told) for name, layer in layers.items()}
        self._take(self + new)

    @property
    def layers(self) -> tuple[str, ...]:
        """The names of the expert layers."""
        return tuple(self._totals)

    @property
    def groups(self) -> tuple[Label, ...]:
        """The labels, in the order of the rows of every tensor."""
        return self._groups

    @property
    def mode(self) -> str | None:
        """The mode of the explanations; None before the first."""
        return self._mode

    def totals(self, layer: str) -> ExpertTotals:
        """What was added up for a layer, a row for each of `groups`. Raises KeyError for a name that is not there."""
        if layer not in self._totals:
            raise KeyError(f"{layer!r}: the expert layers of this profile are {list(self._totals)}")
        return self._totals[layer]

    def share(self, layer: str, of: str = "relevance") -> Tensor:
        """How each group's total lies over the experts, [groups, experts] float64; a row without any is zeros.

        of: "relevance" (|R| summed over tokens), "signed" (R, as a share of the same |R|), "load" (how often chosen) or
        "probability" (the router's).
        """
        return shared(*self._parts(layer, of))

    def top(self, layer: str, group: Label, n: int = 3, of: str = "relevance") -> list[tuple[int, float]]:
        """The `n` experts with the largest shares of a group: expert, share. Raises KeyError for an unknown group."""
        if group not in self._groups:
            raise KeyError(f"{group!r}: the groups of this profile are {list(self._groups)}")
        row = self.share(layer, of)[self._groups.index(group)]
        order = row.abs().argsort(descending=True, stable=True)[:n]
        return [(int(expert), float(row[expert])) for expert in order]

    def table(self, layer: str, of: str = "relevance", experts: int = WIDE) -> Table:
        """Groups and experts in per cent, to a tenth; the last row, `(all)`, is all groups together.

        experts: how many have a column of their own, those with the most; the others share one.
        """
        amount, size = self._parts(layer, of)
        whole = torch.cat([amount, amount.sum(0, keepdim=True)])
        percent = 100 * shared(whole, torch.cat([size, size.sum(0, keepdim=True)]))
        order = size.sum(0).argsort(descending=True, stable=True)[:experts].sort().values
        rest = percent.shape[1] > len(order)
        cells = percent[:, order]
        if rest:
            cells = torch.cat([cells, (percent.sum(1) - cells.sum(1)).unsqueeze(1)], dim=1)
        tokens = self.totals(layer).tokens.tolist()
        rows = [
            (label, count, *(round(value, 1) + 0.0 for value in row))
            for label, count, row in zip((*self._groups, "(all)"), (*tokens, sum(tokens)), cells.tolist(), strict=True)
        ]
        columns = ("group", "tokens", *(str(int(expert)) for expert in order), *(["others"] if rest else []))
        mode = f" (mode {self._mode})" if of in ("relevance", "signed") else ""
        return Table(columns, rows, title=f"{layer}: per cent of {_TITLES[of]} by expert{mode}")

    def compare(self, other: ExpertProfile) -> ProfileComparison:
        """How alike two profiles are, by layer and group; modes and data may differ, layers and experts must not."""
        from dlb_ops_moe.comparison import compare

        return compare(self, other)

    def __add__(self, other: ExpertProfile) -> ExpertProfile:
        """Both together, as if one had seen the data of both. Raises ValueError where they cannot be added."""
        if not isinstance(other, ExpertProfile):
            return NotImplemented
        made = ExpertProfile(self._wanted if self._wanted is not None else other._wanted)
        if self._mode is None or other._mode is None:
            made._take(other if self._mode is None else self)
            return made
        if self._mode != other._mode:
            raise ValueError(f"one has relevance of mode {self._mode!r} and one of {other._mode!r}: profile each alone")
        if sorted(self._totals) != sorted(other._totals):
            raise ValueError(f"one has the expert layers {list(self._totals)} and one {list(other._totals)}")
        made._mode = self._mode
        made._groups = in_order({*self._groups, *other._groups})
        rows = [[made._groups.index(label) for label in each] for each in (self._groups, other._groups)]
        for name, mine in self._totals.items():
            pair = (mine, other._totals[name])
            made._totals[name] = added(
                name, *(aligned(t, r, len(made._groups)) for t, r in zip(pair, rows, strict=True))
            )
        return made

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Writes ``profile.json`` and ``tensors.safetensors`` into a new folder, all of it or nothing.

        An earlier profile in that folder is replaced; a folder with other things in it is refused
        (`FileExistsError`). Returns the folder.
        """
        tensors = {
            f"{name}/{kind}": tensor
            for name, totals in self._totals.items()
            for kind, tensor in totals.tensors().items()
        }
        head = {"mode": self._mode, "groups": list(self._groups), "layers": list(self._totals)}
        return FILES.save(folder, head, tensors)

    @classmethod
    def load(cls, folder: str | os.PathLike[str]) -> ExpertProfile:
        """Reads a saved profile; nothing in the files is executed. Raises `ExplanationFileError`."""
        head, tensors = FILES.load(folder)
        made = cls()
        try:
            mode, names = head["mode"], head["layers"]
            made._groups = in_order(head["groups"])
            made._mode = mode
            made._totals = {name: ExpertTotals.of(tensors, f"{name}/", len(made._groups)) for name in names}
            told = [type(mode), *made._groups], sum(len(totals.tensors()) for totals in made._totals.values())
            if told != ([str if names else type(None), *head["groups"]], len(tensors)):
                raise ValueError("mode, groups, layers and tensors do not belong together")
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise FILES.incomplete(folder, error) from None
        return made

    def __repr__(self) -> str:
        return f"ExpertProfile(mode={self._mode!r}, layers={list(self._totals)}, groups={list(self._groups)})"

    def _take(self, other: ExpertProfile) -> None:
        self._mode, self._groups, self._totals = other._mode, other._groups, dict(other._totals)

    def _chosen(self, explained: Explanation | Relevance) -> dict[str, ExpertLayer]:
        relevance: Any = getattr(explained, "relevance", explained)
        found: dict[str, ExpertLayer] = relevance.experts
        if not found:
            raise ValueError("this explanation has no expert layers: relevance came to none that dlb recognised")
        if self._wanted is None:
            return dict(found)
        if missing := [name for name in self._wanted if name not in found]:
            raise ValueError(f"there is no expert layer {missing[0]!r}: choose from {list(found)}")
        return {name: found[name] for name in self._wanted}

    def _parts(self, layer: str, of: str) -> tuple[Tensor, Tensor]:
        """What a group has of each expert, and by what size it is shared out."""
        totals = self.totals(layer)
        if of not in OF:
            raise ValueError(f"of={of!r}: choose from {', '.join(OF)}")
        if of == "signed":
            return totals.relevance, totals.magnitude
        named = {"relevance": totals.magnitude, "load": totals.load.double(), "probability": totals.probability}
        return named[of], named[of]


_TITLES = {
    "relevance": "|relevance|",
    "signed": "|relevance|, with its sign,",
    "load": "the load",
    "probability": "the router's probability",
}
