"""Explanations that say given numbers about experts, and profiles of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.experts import ExpertLayer, Ways
from dlb_ops_moe import ExpertProfile

EXPERTS = {"layers.0.experts": 4, "layers.1.experts": 3}


def expert_layer(by_token: Tensor, selected: Tensor, probability: Tensor) -> ExpertLayer:
    """A layer that says these numbers."""
    return ExpertLayer("", by_token, probability * selected, selected, probability, Ways("", (), (), ()), ())


@dataclass
class Explained:
    """What a profile reads of an explanation."""

    experts: Mapping[str, ExpertLayer]
    mode: str = "epsilon"


def explained(samples: int, tokens: int, seed: int, **changes: Any) -> Explained:
    """Random relevance of random choices, in tensors as a float32 model has them."""
    random = torch.Generator().manual_seed(seed)
    layers: dict[str, ExpertLayer] = {}
    for name, experts in changes.pop("experts", EXPERTS).items():
        probability = torch.rand(samples, tokens, experts, generator=random).softmax(-1)
        selected = torch.zeros_like(probability).scatter(-1, probability.topk(2).indices, 1).bool()
        r = torch.randn(samples, tokens, experts, generator=random) * selected
        layers[name] = expert_layer(r, selected, probability)
    return Explained(layers, **changes)


def same(one: ExpertProfile, other: ExpertProfile) -> None:
    assert (one.mode, one.groups, sorted(one.layers)) == (other.mode, other.groups, sorted(other.layers))
    for name in one.layers:
        theirs = other.totals(name).tensors()
        for kind, tensor in one.totals(name).tensors().items():
            torch.testing.assert_close(tensor, theirs[kind], rtol=1e-12, atol=1e-12, msg=lambda m, k=kind: f"{k}: {m}")


def profile_of(data: Sequence[tuple[Explained, Any]]) -> ExpertProfile:
    profile = ExpertProfile()
    for one, groups in data:
        profile.add(one, groups)
    return profile
