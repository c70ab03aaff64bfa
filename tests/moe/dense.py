"""The forms that routed experts are held to: every expert for every token, and transformers' loop over experts."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from types import MethodType
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

NAME = "every_expert"


@contextlib.contextmanager
def densely(model: Any) -> Iterator[nn.Module]:
    """Within, the model computes all of its experts for all tokens; what was not selected weighs zero."""
    own = [(m, method, form) for m in model.modules() for method, form in WRITTEN.get(type(m).__name__, {}).items()]
    ALL_EXPERTS_FUNCTIONS[NAME] = every_expert
    for module, method, form in own:
        setattr(module, method, MethodType(form, module))
    try:
        with implementation(model, NAME):
            yield model
    finally:
        for module, method, _ in own:
            delattr(module, method)
        del ALL_EXPERTS_FUNCTIONS[NAME]


@contextlib.contextmanager
def implementation(model: Any, name: str) -> Iterator[nn.Module]:
    """Within, the experts of transformers' interface run as a registered implementation says."""
    before = asked(model)
    for module in before:
        module.config._experts_implementation_internal = name
    try:
        yield model
    finally:
        for module, kept in before.items():
            module.config._experts_implementation_internal = kept


def asked(model: nn.Module) -> dict[Any, str]:
    """The implementation that every module of the experts interface asks for."""
    return {m: m.config._experts_implementation for m in model.modules() if hasattr(m, "_is_expert_parallel")}


def registered() -> dict[str, Any]:
    """The implementations that transformers knows."""
    return dict(ALL_EXPERTS_FUNCTIONS.items())


def every_expert(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """The experts of transformers' interface, whatever their flags say."""
    first = "gate_up_proj" if self.has_gate else "up_proj"
    made = []
    for expert in range(self.num_experts):
        inner = _linear(self, first, expert, hidden_states)
        inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
        out = _linear(self, "down_proj", expert, inner)
        made.append(self.post_expert_norm(out) if self.has_post_expert_norm else out)
    return _weighed(torch.stack(made, 1), top_k_index, top_k_weights)


def _linear(experts: Any, name: str, expert: int, x: Tensor) -> Tensor:
    weight = getattr(experts, name)[expert]
    bias = getattr(experts, f"{name}_bias")[expert] if experts.has_bias else None
    return F.linear(x, weight.mT if experts.is_transposed else weight, bias)


def _weighed(rows: Tensor, index: Tensor, weight: Tensor) -> Tensor:
    """rows [S, E, H] of all experts, the chosen ones [S, k] and their weights -> [S, H]."""
    weights = weight.new_zeros(rows.shape[:2]).scatter(1, index, weight)
    return (rows * weights.unsqueeze(-1)).sum(1).to(rows.dtype)


# JetMoE: experts in attention (queries and outputs) and in the feed-forward


def _routed(router: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    value, index = router.layer(x).float().topk(router.top_k, dim=1)
    return index, value.softmax(1).type_as(x)


def _jet_feed_forward(self: Any, layer_input: Tensor) -> Tensor:
    x = layer_input.reshape(-1, layer_input.shape[-1])
    made = []
    for up, down in zip(self.input_linear.weight, self.output_linear.weight, strict=True):
        gate, value = F.linear(x, up).chunk(2, -1)
        made.append(F.linear(self.activation(gate) * value, down))
    return _weighed(torch.stack(made, 1), *_routed(self.router, x)).reshape(layer_input.shape) + self.bias


def _jet_queries(self: Any, layer_input: Tensor) -> tuple[Tensor, None, tuple[Tensor, Tensor]]:
    """The queries of all experts, of which each place takes those that it chose."""
    x = layer_input.reshape(-1, layer_input.shape[-1])
    index, weight = _routed(self.router, x)
    made = torch.stack([F.linear(x, w) for w in self.input_linear.weight], 1)
    chosen = made.gather(1, index.unsqueeze(-1).expand(-1, -1, made.shape[-1]))
    return chosen.reshape(*layer_input.shape[:2], self.top_k, -1), None, (index, weight)


def _jet_outputs(self: Any, layer_input: Tensor, topo_info: tuple[Tensor, Tensor]) -> Tensor:
    """Each of the k places through all experts; what it did not choose weighs zero."""
    index, weight = topo_info
    batch, length, places, width = layer_input.shape
    x = layer_input.reshape(-1, places, width)
    parts = []
    for place in range(places):
        made = torch.stack([F.linear(x[:, place], w) for w in self.output_linear.weight], 1)
        weights = weight.new_zeros(made.shape[:2]).scatter(1, index[:, [place]], weight[:, [place]])
        parts.append(made * weights.unsqueeze(-1))
    return torch.cat(parts, 1).sum(1).reshape(batch, length, -1) + self.bias


# Switch: one expert for each token, unless it is full


def _switch(self: Any, hidden_states: Tensor, selected_experts: Tensor, routing_weights: Tensor) -> Tensor:
    weights = torch.where(selected_experts[:, 0] > 0, routing_weights, 0.0)
    made = torch.stack([expert(hidden_states) for expert in self.values()], 1)
    return (made * weights.unsqueeze(-1)).sum(1).to(hidden_states.dtype)


WRITTEN = {
    "JetMoeMoE": {"forward": _jet_feed_forward},
    "JetMoeMoA": {"map": _jet_queries, "reduce": _jet_outputs},
    "SwitchTransformersExperts": {"forward": _switch},
}
