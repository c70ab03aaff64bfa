"""While a model is exported its experts run as `expert_linear`; afterwards everything is as it was.

It works on modules of transformers' experts interface (`use_experts_implementation`): they look their forward up by the
name that their config has, so one more name is all that it takes.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor, nn

from dlb_core.errors import TraceError
from dlb_ops_moe.op import expert_linear

Lend = Callable[[nn.Module], AbstractContextManager[None]]
NAME = "dlb_moe"
MARK = "_is_expert_parallel"  # every module of the interface has it
SETTING = "_experts_implementation_internal"
FLAGS = {"has_gate", "has_bias", "has_post_expert_norm", "is_transposed", "is_concatenated"}
WHOLE = (torch.float64, torch.float32, torch.bfloat16, torch.float16)  # others are quantised
_alone = threading.RLock()  # two threads that lend to one model would each put back what the other one set


@contextlib.contextmanager
def lend_experts(model: nn.Module) -> Iterator[None]:
    """The experts of transformers' experts interface run as `expert_linear` within.

    Raises `TraceError` for experts that `expert_linear` would not compute as the model does.
    """
    home: Any = sys.modules.get("transformers.integrations.moe")  # not imported: no module can be of its interface
    experts = {path: m for path, m in model.named_modules() if _is_of_interface(m)}
    if home is None or not experts:
        yield
        return
    functions: Any = home.ALL_EXPERTS_FUNCTIONS
    for path, module in experts.items():
        if problem := _problem(module, functions):
            raise TraceError(
                f"the experts at {path!r} ({type(module).__name__}) {problem}\n"
                'What to try: tracer="tape" records what they do as it is, without the op of dlb-ops-moe.'
            )
    configs = {id(module.config): module.config for module in experts.values()}
    with _alone, _lent(functions, [*configs.values()]):
        yield


@contextlib.contextmanager
def _lent(functions: Any, configs: list[Any]) -> Iterator[None]:
    found = functions.get(NAME)
    before = [getattr(config, SETTING) for config in configs]
    functions[NAME] = _forward
    try:
        for config in configs:
            setattr(config, SETTING, NAME)
        yield
    finally:
        for config, setting in zip(configs, before, strict=True):
            setattr(config, SETTING, setting)
        del functions[NAME]
        if functions.get(NAME) is not found:  # an implementation of that name that was there before
            functions[NAME] = found


def _is_of_interface(module: nn.Module) -> bool:
    return hasattr(module, MARK) and hasattr(getattr(module, "config", None), SETTING)


def _problem(module: Any, functions: Any) -> str | None:
    """Why `_forward` is not what this module computes; None where it is."""
    unknown = sorted(n for n in vars(module) if n.startswith(("has_", "is_")) and n not in FLAGS)
    if unknown:
        return f"have the flag {unknown[0]}={getattr(module, unknown[0])!r}, which dlb-ops-moe does not know"
    if missing := sorted(name for name in FLAGS if not hasattr(module, name)):
        return f"have no flag {missing[0]}, which dlb-ops-moe goes by"
    if getattr(module, MARK):
        return f"are spread over devices ({MARK}=True): the ids of other devices' experts have no weights here"
    own = inspect.getclosurevars(inspect.unwrap(type(module).forward, stop=_is_wrapper)).nonlocals
    if own.get("experts_interface", functions) is not functions:
        return "look their forward up in an experts interface of their own, as quantised ones do"
    up = "gate_up_proj" if module.has_gate else "up_proj"
    shapes = {}
    for name in (up, "down_proj"):
        weight = getattr(module, name, None)
        if not isinstance(weight, Tensor) or weight.dim() != 3:
            return f"have no weight {name} [experts, ., .] (has_gate={module.has_gate})"
        if weight.dtype not in WHOLE:
            return f"have a weight {name} of {weight.dtype}: quantised experts are not supported"
        if module.has_bias and not isinstance(getattr(module, f"{name}_bias", None), Tensor):
            return f"have no {name}_bias (has_bias=True)"
        shapes[name] = weight.shape[0]
    shapes["num_experts"] = getattr(module, "num_experts", shapes[up])
    if len({*shapes.values()}) > 1:
        return f"do not agree on how many they are: {', '.join(f'{name} {n}' for name, n in shapes.items())}"
    if module.has_post_expert_norm and not callable(getattr(module, "post_expert_norm", None)):
        return "have no post_expert_norm (has_post_expert_norm=True)"
    return None


def _is_wrapper(function: Any) -> bool:
    """Is this the forward that looks the experts' own one up?"""
    return "experts_interface" in getattr(getattr(function, "__code__", None), "co_freevars", ())


def _forward(self: Any, hidden_states: Tensor, top_k_index: Tensor, top_k_weights: Tensor) -> Tensor:
    """up -> gate or activation -> down -> weighted sum over each token's experts, all but the maps in ATen."""
    name = "gate_up_proj" if self.has_gate else "up_proj"
    x = hidden_states.unsqueeze(-2).expand(*top_k_index.shape, hidden_states.shape[-1])
    inner = _linear(self, name, x, top_k_index)
    inner = self._apply_gate(inner) if self.has_gate else self.act_fn(inner)
    out = _linear(self, "down_proj", inner, top_k_index)
    if self.has_post_expert_norm:
        out = self.post_expert_norm(out)
    weighted: Tensor = out * top_k_weights.unsqueeze(-1)
    return weighted.sum(-2).to(hidden_states.dtype)


def _linear(self: Any, name: str, x: Tensor, index: Tensor) -> Tensor:
    bias = getattr(self, f"{name}_bias") if self.has_bias else None
    y: Tensor = expert_linear(x, index, getattr(self, name), bias, self.is_transposed)
    return y
