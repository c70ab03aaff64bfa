"""Models in a wrapping: what runs them elsewhere or faster is taken off, so that names are those of the model inside.

What is computed stays the same. A wrapping that changes the computation (adapters that write prompts) stays on, and one
that keeps the weights from us is refused.
"""

from __future__ import annotations

import contextlib
import inspect
import sys
from collections.abc import Iterator
from typing import Any

from torch import nn
from torch.jit import ScriptModule
from torch.nn.parallel import DistributedDataParallel

from dlb_core.errors import TraceError

_KERNELS = ("torch.ao.nn.quantized", "torch.ao.nn.intrinsic.quantized")  # their weights are packed for a kernel


def unwrap(model: Any) -> Any:
    """The model inside `torch.compile`, `DataParallel`, `DistributedDataParallel` and PEFT's adapters in the layers.

    What is no module is returned as it is. Raises `TraceError` for what hides the model's code or its weights, and says
    what to do.
    """
    while (inner := _inside(model)) is not None:
        model = inner
    if isinstance(model, nn.Module):
        _refuse(model)
    return model


@contextlib.contextmanager
def unwrapped_parts(model: Any) -> Iterator[None]:
    """Within, the parts of a model stand without their wrapping and run their own code; after, all is as it was."""
    changed: list[tuple[dict[str, Any], str, Any]] = []
    for module in list(model.modules()) if isinstance(model, nn.Module) else ():
        if isinstance(module, ScriptModule):
            continue
        children: dict[str, Any] = module._modules
        for name, child in children.items():
            inner = child
            while (next_ := _inside(inner)) is not None:
                inner = next_
            if inner is not child:
                changed.append((children, name, child))
                children[name] = inner
        if module.__dict__.get("_compiled_call_impl") is not None:  # module.compile(): compiled where it stands
            changed.append((module.__dict__, "_compiled_call_impl", module._compiled_call_impl))
            module.__dict__["_compiled_call_impl"] = None
    try:
        yield
    finally:
        for owner, name, value in reversed(changed):
            owner[name] = value


def _inside(model: Any) -> nn.Module | None:
    """The module under the outermost wrapping; None where there is none."""
    if isinstance(model, (nn.DataParallel, DistributedDataParallel)):
        inner: nn.Module = model.module
        return inner
    if _is(model, "torch._dynamo.eval_frame", "OptimizedModule"):
        compiled: nn.Module = model._orig_mod
        return compiled
    if _is(model, "peft", "PeftModel") and not model.active_peft_config.is_prompt_learning:
        adapted: nn.Module = model.get_base_model()  # the adapters stand in its layers
        return adapted
    return None


def _is(model: Any, module: str, name: str) -> bool:
    """Is it of this class, asked without importing what may not be there?"""
    loaded = sys.modules.get(module)
    return loaded is not None and isinstance(model, getattr(loaded, name, ()))


def _refuse(model: nn.Module) -> None:
    try:
        inspect.signature(model.forward)
    except ValueError:
        raise TraceError(
            f"a {type(model).__name__} has no Python code left to trace: explain the nn.Module that it was made from"
        ) from None
    for path, module in model.named_modules():
        where = f"its submodule {path!r}" if path else "the model"
        if type(module).__module__.startswith(_KERNELS):
            raise TraceError(
                f"{where} is quantised ({type(module).__module__}): it rounds what flows through it and packs its "
                "weights, so no rule can read them. Explain the model as it was before quantisation, or one whose "
                "weights alone are quantised (torchao's weight-only)"
            )
        hook: Any = module.__dict__.get("_hf_hook")
        if any(getattr(h, "offload", False) for h in (hook, *getattr(hook, "hooks", ()))):
            raise TraceError(
                f"the weights of {where} are offloaded and only there while it runs: load the model whole, on one "
                "device (device_map=None, or {'': 'cpu'})"
            )
    sharded = next(
        (name for name, p in model.named_parameters() if _is(p, "torch.distributed.tensor", "DTensor")), None
    )
    if sharded is not None:
        raise TraceError(
            f"parameter {sharded!r} is sharded over several processes: gather the full state dict and load it into a "
            "model of one process"
        )
