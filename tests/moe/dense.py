"""The forms that routed experts are held to: every expert for every token, and transformers' loop over experts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "every_expert"


def every_expert(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """All experts of a module at work on all tokens; what was not selected weighs zero."""
    tokens, experts = hidden_states.shape[0], self.num_experts
    weights = top_k_weights.new_zeros(tokens, experts).scatter(1, top_k_index, top_k_weights)
    first = "gate_up_proj" if self.has_gate else "up_proj"
    made = []
    for expert in range(experts):
        inner = _linear(self, first, expert, hidden_states)
        inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
        out = _linear(self, "down_proj", expert, inner)
        made.append(self.post_expert_norm(out) if self.has_post_expert_norm else out)
    return (torch.stack(made, 1) * weights.unsqueeze(-1)).sum(1).to(hidden_states.dtype)


def _linear(experts: Any, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    return F.linear(x, weight.mT if experts.is_transposed else weight, bias)


@contextlib.contextmanager
def densely(model: Any) -> Iterator[nn.Module]:
    """Within, the model computes all of its experts; the implementation is known to transformers no longer."""
    before = dict(ALL_EXPERTS_FUNCTIONS._global_mapping)
    ALL_EXPERTS_FUNCTIONS.register(NAME, every_expert)
    try:
        with implementation(model, NAME):
            yield model
    finally:
        ALL_EXPERTS_FUNCTIONS._global_mapping.clear()
        ALL_EXPERTS_FUNCTIONS._global_mapping.update(before)


@contextlib.contextmanager
def implementation(model: Any, name: str) -> Iterator[nn.Module]:
    """Within, the model's experts run as a registered implementation says."""
    before = settings(model)
    model.set_experts_implementation(name)
    try:
        yield model
    finally:
        for module, kept in before.items():
            module.config._experts_implementation_internal = kept


def settings(model: nn.Module) -> dict[Any, Any]:
    """The implementation that every module with a config asks for."""
    return {m: m.config._experts_implementation for m in model.modules() if hasattr(m, "config")}
