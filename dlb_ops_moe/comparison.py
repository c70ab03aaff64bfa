"""Two profiles compared: do the same experts carry the same groups?"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import Tensor

from dlb_core.comparison import rank_correlation
from dlb_core.table import Table
from dlb_ops_moe.groups import Label, in_order

if TYPE_CHECKING:
    from dlb_ops_moe.profile import ExpertProfile


@dataclass(frozen=True)
class LayerComparison:
    """One layer in two profiles, group by group.

    distance: total variation of the shares of |R|, [groups]: 0 for the same shares, 1 where no expert carries anything
    in both. rank_correlation: Spearman's between the two orders of the experts, [groups], NaN where all are equal.
    """

    distance: Tensor
    rank_correlation: Tensor


@dataclass(frozen=True)
class ProfileComparison:
    """Two profiles by layer, over the groups that both have; `only`: the groups that one of them alone has."""

    groups: tuple[Label, ...]
    layers: Mapping[str, LayerComparison]
    only: tuple[tuple[Label, ...], tuple[Label, ...]]

    def table(self) -> Table:
        """Layer, means over the groups, and the group that differs most."""
        rows = []
        for name, found in self.layers.items():
            known = found.rank_correlation[~found.rank_correlation.isnan()]
            worst = int(found.distance.argmax())
            mean = float(known.mean()) if known.numel() else float("nan")
            rows.append(
                (name, float(found.distance.mean()), mean, str(self.groups[worst]), float(found.distance[worst]))
            )
        columns = ("layer", "distance", "rank correlation", "differs most", "its distance")
        return Table(columns, rows, title=f"experts' shares of |relevance| (means over {len(self.groups)} groups)")

    def __str__(self) -> str:
        return str(self.table())


def compare(one: ExpertProfile, other: ExpertProfile) -> ProfileComparison:
    """How alike two profiles are. Raises ValueError for other layers or numbers of experts, or no group in common."""
    if sorted(one.layers) != sorted(other.layers):
        raise ValueError(f"one has the expert layers {list(one.layers)} and one {list(other.layers)}")
    groups = in_order({*one.groups} & {*other.groups})
    if not groups:
        raise ValueError(f"no group in both: one has {list(one.groups)} and one {list(other.groups)}")
    found: dict[str, LayerComparison] = {}
    for name in one.layers:
        counts = one.totals(name).experts, other.totals(name).experts
        if counts[0] != counts[1]:
            raise ValueError(f"layer {name!r} has {counts[0]} experts in one and {counts[1]} in the other")
        a, b = (p.share(name)[[p.groups.index(group) for group in groups]] for p in (one, other))
        # a group without relevance has no shares: beside one that has, nothing is in common
        distance = (a - b).abs().sum(-1) / (a.sum(-1) + b.sum(-1)).clamp_min(1)
        found[name] = LayerComparison(distance, rank_correlation(a, b))
    only = tuple(in_order({*p.groups} - {*groups}) for p in (one, other))
    return ProfileComparison(groups, found, (only[0], only[1]))
