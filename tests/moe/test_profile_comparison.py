"""`ExpertProfile.compare`: two profiles, what they have in common, and what cannot be compared."""

from __future__ import annotations

import pytest
import torch
from scipy.stats import spearmanr

from dlb_ops_moe import ExpertProfile

from .profiles import EXPERTS, Explained, expert_layer, explained, profile_of


def test_two_profiles_compared() -> None:
    one = profile_of([(explained(3, 6, 1), ["a", "b", "c"])])
    other = profile_of([(explained(3, 6, 2, mode="default"), ["b", "d", "a"])])
    found = one.compare(other)
    assert found.groups == ("a", "b")
    assert found.only == (("c",), ("d",))
    for name, layer in found.layers.items():
        for i, group in enumerate(found.groups):
            a, b = (p.share(name)[p.groups.index(group)] for p in (one, other))
            assert float(layer.distance[i]) == pytest.approx(float((a - b).clamp_min(0).sum()))
            assert float(layer.rank_correlation[i]) == pytest.approx(spearmanr(a, b).statistic)
    assert [row[0] for row in found.table()] == list(EXPERTS)
    assert "means over 2 groups" in str(found)
    itself = one.compare(one)
    assert all(float(layer.distance.max()) == 0 for layer in itself.layers.values())
    assert all(layer.rank_correlation.tolist() == pytest.approx([1, 1, 1]) for layer in itself.layers.values())


def test_what_cannot_be_compared_is_refused() -> None:
    one = profile_of([(explained(2, 3, 1), ["a", "b"])])
    with pytest.raises(ValueError, match="no group in both"):
        one.compare(profile_of([(explained(2, 3, 1), [1, 2])]))
    with pytest.raises(ValueError, match="4 experts in one and 8 in the other"):
        one.compare(profile_of([(explained(2, 3, 1, experts={**EXPERTS, "layers.0.experts": 8}), ["a", "b"])]))
    with pytest.raises(ValueError, match="one has the expert layers"):
        one.compare(profile_of([(explained(2, 3, 1, experts={"moe": 4}), ["a", "b"])]))


def test_nothing_in_common_is_a_distance_of_one() -> None:
    chosen = torch.ones(1, 1, 3, dtype=torch.bool)

    def carried(*r: float) -> ExpertProfile:
        return profile_of([(Explained({"moe": expert_layer(torch.tensor([[r]]), chosen, chosen / 3)}), ["a"])])

    def distance(one: ExpertProfile, other: ExpertProfile) -> float:
        return float(one.compare(other).layers["moe"].distance)

    assert distance(carried(1, 0, 0), carried(0, 2, 2)) == 1
    assert distance(carried(1, 0, 0), carried(0, 0, 0)) == 1
    assert distance(carried(0, 0, 0), carried(0, 0, 0)) == 0
    assert distance(carried(1, 1, 0), carried(2, 0, 0)) == 0.5
