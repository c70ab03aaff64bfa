"""While a model is exported its experts run as `expert_linear`; afterwards everything is as it was."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

from torch import Tensor, nn

from dlb_ops_moe.op import expert_linear

Lend = Callable[[nn.Module], AbstractContextManager[None]]
NAME = "dlb_moe"


@contextlib.contextmanager
def lend_experts(model: nn.Module) -> Iterator[None]:
    """The experts of transformers' experts interface run as `expert_linear` within."""
    home = sys.modules.get("transformers.integrations.moe")
    modules = {path: m for path, m in model.named_modules() if hasattr(m, "_is_expert_parallel")}
    if home is None or not modules:
        yield
        return
    functions: Any = home.ALL_EXPERTS_FUNCTIONS
    configs = {id(m.config): m.config for m in modules.values()}
    before = {key: config._experts_implementation_internal for key, config in configs.items()}
    functions.register(NAME, _forward)
    try:
        for config in configs.values():
            config._experts_implementation_internal = NAME
        yield
    finally:
        for key, config in configs.items():
            config._experts_implementation_internal = before[key]
        del functions._global_mapping[NAME]


def _forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    up, bias = (
        (self.gate_up_proj, getattr(self, "gate_up_proj_bias", None))
        if self.has_gate
        else (self.up_proj, getattr(self, "up_proj_bias", None))
    )
    x = hidden_states.unsqueeze(1).expand(-1, top_k_index.shape[1], -1)
    inner = expert_linear(x, top_k_index, up, bias if self.has_bias else None, self.is_transposed)
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    bias = self.down_proj_bias if self.has_bias else None
    out = expert_linear(inner, top_k_index, self.down_proj, bias, self.is_transposed)
    if self.has_post_expert_norm:
        out = self.post_expert_norm(out)
    made: Tensor = (out * top_k_weights.unsqueeze(-1)).sum(1).to(hidden_states.dtype)
    return made
