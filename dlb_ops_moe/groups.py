"""Labels for samples or tokens, as callers give them, as numbers."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

Label = str | int
By = Mapping[Any, Label | None] | Callable[[Any], Label | None]


@dataclass(frozen=True)
class Labelled:
    """The labels that occur, in their order, and codes [B] or [B, T]: which of them each has, -1 for none."""

    labels: tuple[Label, ...]
    codes: Tensor

    def per_token(self, layer: str, samples: int, tokens: int) -> Tensor:
        """Codes [samples, tokens]; ValueError where the groups do not fit a layer of that size."""
        shape = tuple(self.codes.shape)
        if shape[0] != samples:
            raise ValueError(f"groups: {shape[0]} for the {samples} samples of layer {layer!r}")
        if len(shape) == 1:
            return self.codes.unsqueeze(1).expand(samples, tokens)
        if shape[1] != tokens:
            raise ValueError(
                f"groups: {shape[1]} tokens in a sample, and layer {layer!r} has {tokens}: label what the layer sees, "
                "each sample as a whole, or choose layers with ExpertProfile(layers=...)"
            )
        return self.codes


def labelled(groups: Any, by: By | None) -> Labelled:
    """Groups as a caller gives them: a label for each sample, or a list of labels for each; tensors as well."""
    given, codes = _counted(groups)
    labels = given if by is None else [None if value is None else _mapped(by, value) for value in given]
    known = in_order({label for label in labels if label is not None})
    position = {label: i for i, label in enumerate(known)}
    numbers = torch.tensor([-1 if label is None else position[label] for label in labels], dtype=torch.int64)
    return Labelled(known, numbers[codes])


def in_order(labels: Iterable[Any]) -> tuple[Label, ...]:
    """Distinct labels in their one order, numbers before words; ValueError for what is no label."""
    found: set[Label] = set()
    for label in labels:
        if not isinstance(label, (str, int)) or isinstance(label, bool):
            raise ValueError(f"{label!r} is no group: a group is a str or an int, or None to leave it out (by= maps)")
        found.add(label)
    return tuple(sorted(found, key=lambda label: (isinstance(label, str), label)))


def _counted(groups: Any) -> tuple[list[Any], Tensor]:
    """The different values that stand in `groups`, and which of them stands where."""
    groups = _listed(groups)
    if isinstance(groups, (str, bytes, Mapping)) or not isinstance(groups, Iterable):
        raise ValueError(f"groups: {groups!r}; give a list with a label for each sample, or a list of labels for each")
    rows = [_listed(row) for row in groups]
    nested = [isinstance(row, list) for row in rows]
    if any(nested) and not all(nested):
        raise ValueError("groups: give a label for every sample, or a list of labels for every sample")
    if any(nested) and len({len(row) for row in rows}) > 1:
        lengths = sorted({len(row) for row in rows})
        raise ValueError(f"groups: {lengths[0]} to {lengths[-1]} labels in a sample; give None where there is no token")
    flat = [value for row in rows for value in (row if isinstance(row, list) else [row])]
    if bad := [value for value in flat if not isinstance(value, Hashable)]:
        raise ValueError(
            f"groups: {bad[0]!r} inside a sample; give a label for each sample, or one for each token of it"
        )
    position = {value: i for i, value in enumerate(dict.fromkeys(flat))}
    codes = torch.tensor([position[value] for value in flat], dtype=torch.int64)
    return list(position), codes.reshape(len(rows), -1) if any(nested) else codes


def _listed(values: Any) -> Any:
    """Tensors and arrays as lists, or as the number that they are."""
    if hasattr(values, "tolist"):
        return values.tolist()
    return list(values) if isinstance(values, (list, tuple)) else values


def _mapped(by: By, value: Any) -> Label | None:
    if not isinstance(by, Mapping):
        return by(value)
    if value not in by:
        raise ValueError(f"groups: by= says nothing of {value!r}; map it to None to leave it out, or give by=table.get")
    return by[value]
