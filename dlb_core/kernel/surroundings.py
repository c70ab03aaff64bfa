"""What surrounds a tracer: which models it takes, silence while it works, and how a failure is told."""

from __future__ import annotations

import contextlib
import logging
import traceback
import warnings
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.utils import _pytree as pytree

from dlb_core.errors import TraceError
from dlb_core.kernel.program import Parameter

_CONTAINERS = (dict, OrderedDict, list, set)
_TALKERS = ("torch._subclasses.fake_tensor", "torch.fx.experimental.symbolic_shapes", "torch.export")


def check_module(model: Any) -> None:
    """Raises `TraceError` for what is no module, or is in training mode."""
    if not isinstance(model, nn.Module):
        raise TraceError(f"expected an nn.Module or an ExportedProgram, got {type(model).__name__}")
    training = next((name for name, module in model.named_modules() if module.training), None)
    if training is not None:
        where = f"its submodule {training!r}" if training else "the model"
        raise TraceError(f"{where} is in training mode, so its output is not what it predicts: call model.eval() first")


@contextlib.contextmanager
def tracing() -> Iterator[None]:
    """No gradients, no warnings of torch about itself, the random numbers and settings of the caller untouched.

    The fused attention path is off, because it would change padded rows.
    """
    fastpath = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    talkers = [logger for name in _TALKERS if not (logger := logging.getLogger(name)).disabled]
    for logger in talkers:
        logger.disabled = True  # it tells of tries that failed; ours tells once, in a TraceError
    try:
        with torch.no_grad(), torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fastpath)
        for logger in talkers:
            logger.disabled = False


@contextlib.contextmanager
def without_cache(model: nn.Module) -> Iterator[None]:
    """Decoder models return their key-value cache unless told not to; it is no part of an explanation.

    An encoder-decoder's parts have configs of their own, and each of them is asked.
    """
    found: list[Any] = [getattr(module, "config", None) for module in model.modules()]
    configs = {id(config): config for config in found if getattr(config, "use_cache", None)}
    before = {key: config.use_cache for key, config in configs.items()}
    for config in configs.values():
        config.use_cache = False
    try:
        yield
    finally:
        for key, config in configs.items():
            config.use_cache = before[key]


@contextlib.contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Afterwards the modules hold what they held, attributes that are dicts, lists or sets included."""
    before: list[tuple[Any, Any]] = []
    for module in model.modules():
        own = vars(module)
        before.append((own, dict(own)))
        before += [(value, value.copy()) for value in own.values() if type(value) in _CONTAINERS]
    try:
        yield
    finally:
        for container, content in before:
            if not _same(container, content):
                container.clear()
                container.extend(content) if isinstance(container, list) else container.update(content)


def _same(container: Any, content: Any) -> bool:
    """The same objects in the same places; nothing of the user's is compared by value."""
    if len(container) != len(content):
        return False
    if isinstance(container, dict):
        return all(a is b and x is y for (a, x), (b, y) in zip(container.items(), content.items(), strict=True))
    return all(a is b for a, b in zip(container, content, strict=True))


class Saved:
    """A tensor of the model as it was before something wrote to it."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor = tensor
        self._before = tensor.clone()
        self._version = None if tensor.is_inference() else tensor._version

    def put_back(self) -> None:
        """The old values, under the old version: who looks at it since sees no change."""
        self.tensor.copy_(self._before)
        if self._version is not None:
            torch._C._autograd._unsafe_set_version_counter((self.tensor,), (self._version,))


def own_failure(model: nn.Module, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> TraceError | None:
    """Runs the model as it is, to tell its own failures on these inputs from those of a tracer."""
    args, kwargs = pytree.tree_map_only(Tensor, lambda t: t.detach().clone(), (args, dict(kwargs)))
    saved = [Saved(buffer) for buffer in model.buffers()]
    try:
        with as_found(model), without_cache(model):
            model(*args, **kwargs)
    except Exception as error:  # noqa: BLE001 - the user's code may raise anything, and we report it
        told = f"{type(error).__name__}: {error}{_in_module(model, error)}{place(error)}"
        return TraceError(f"the model itself fails on this input, before any tracing: {told}")
    finally:
        for one in saved:
            one.put_back()
    return None


def _in_module(model: nn.Module, error: BaseException) -> str:
    """The innermost module of the model that was running."""
    paths = {id(module): path for path, module in model.named_modules()}
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    inside = [paths[id(one)] for one in frames if id(one) in paths]
    return f"\n  in module {inside[-1]!r}" if inside and inside[-1] else ""


def first_line(error: BaseException | None) -> str:
    """The first line of an error's text that says something."""
    return next((line for line in str(error).splitlines() if line.strip()), "")[:500]


def place(error: BaseException | None) -> str:
    """The last line of the user's own code in a traceback."""
    frames = traceback.extract_tb(error.__traceback__) if error else []
    mine = [
        f for f in frames if not any(part in f.filename for part in ("/torch/", "/dlb_core/", "site-packages/pluggy"))
    ]
    return f"\n  at {mine[-1].filename}:{mine[-1].lineno}: {mine[-1].line}" if mine else ""


def output_names(spec: pytree.TreeSpec) -> tuple[str, ...]:
    """A name for every leaf of the outputs: its path (``logits``, ``0.boxes``)."""
    numbered = pytree.tree_unflatten(list(range(spec.num_leaves)), spec)
    paths = pytree.tree_flatten_with_path(numbered)[0]
    return tuple(".".join(str(getattr(k, "key", getattr(k, "idx", k))) for k in path) for path, _ in paths)


def move_to(device: torch.device, graph: fx.Graph, parameters: Mapping[str, Parameter]) -> None:
    """The program on another device: its own copies of the tensors, and every device that was written down."""
    for parameter in parameters.values():
        parameter.tensor = parameter.tensor.to(device)
    for node in graph.nodes:
        node.args = fx.node.map_aggregate(node.args, lambda a: device if isinstance(a, torch.device) else a)
        node.kwargs = fx.node.map_aggregate(node.kwargs, lambda a: device if isinstance(a, torch.device) else a)
