"""Where a running model is, and what its tensors are called."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn

ROOT = "L__self__"  # what torch.export calls the model


class Landmarks:
    """The module stack while a model runs, in the form of `nn_module_stack`, and its tensors by name.

    Hooks on the modules keep the stack; `watching` puts them on and takes them off.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors = _named_tensors(model)
        self._paths: dict[nn.Module, list[str]] = {}
        for path, module in model.named_modules(remove_duplicate=False):
            self._paths.setdefault(module, []).append(path)
        self._calls: dict[str, int] = {}
        self._open: list[tuple[nn.Module, str, tuple[str, str]]] = []

    @property
    def stack(self) -> dict[str, tuple[str, str]]:
        """The modules around the op that runs now: key -> (path, class), outermost first."""
        return {key: where for _, key, where in self._open}

    @contextlib.contextmanager
    def watching(self) -> Iterator[None]:
        """Hooks on every module, while the model runs."""
        handles: list[Any] = []
        try:
            for module in self._paths:
                if isinstance(module, torch.jit.ScriptModule):
                    continue  # it takes no hooks: its ops stand under the module around it
                handles.append(module.register_forward_pre_hook(self._enter, prepend=True))
                handles.append(module.register_forward_hook(self._leave, always_call=True))
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self._path(module)
        count = self._calls[path] = self._calls.get(path, -1) + 1
        key = f"{ROOT}__{path}" if path else ROOT
        cls = type(module)
        where = (path, f"{cls.__module__}.{cls.__qualname__}")
        self._open.append((module, f"{key}@{count}" if count else key, where))

    def _leave(self, module: nn.Module, args: Any, output: Any) -> None:
        while self._open and self._open.pop()[0] is not module:
            pass  # a module that raised, and whose caller went on, is left with it

    def _path(self, module: nn.Module) -> str:
        """Of several paths to a shared module, the one through the module that is calling it."""
        paths = self._paths[module]
        around = self._open[-1][2][0] if self._open else ""
        held = (path for path in paths if path.rpartition(".")[0] == around)
        inside = (path for path in paths if path.startswith(f"{around}."))
        return next(held, next(inside, paths[0]))


def _named_tensors(model: nn.Module) -> dict[int, tuple[str, str]]:
    """id of a tensor -> (kind, name); one with several names goes by the last, as torch.export has it."""
    found: dict[int, tuple[str, str]] = {}
    for prefix, module in model.named_modules(remove_duplicate=False):
        for name, value in vars(module).items():
            if isinstance(value, Tensor):
                found[id(value)] = ("constant", f"{prefix}.{name}" if prefix else name)
    found |= {id(t): ("buffer", name) for name, t in model.named_buffers(remove_duplicate=False)}
    found |= {id(t): ("parameter", name) for name, t in model.named_parameters(remove_duplicate=False)}
    return found
