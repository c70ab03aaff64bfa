"""The kit's harness on the built-in pack alone, in its modes with both bias policies."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache
from importlib import metadata
from typing import Any

import torch
from torch import Tensor

from dlb_core.kernel.packs import load_registry
from dlb_core.kernel.registry import Registry
from dlb_core.testing import Bound, Outcome, assert_conserved, call_op
from dlb_core.testing import bind as bind_in
from dlb_core.testing import bind_op as bind_op_in
from dlb_core.testing.bound import parts
from dlb_core.testing.oracle import EPS

__all__ = [
    "ALL_MODES",
    "ALL_MODE_NAMES",
    "EPS",
    "MODES",
    "MODE_NAMES",
    "TAU",
    "Bound",
    "ModeName",
    "Outcome",
    "assert_conserved",
    "bind",
    "bind_op",
    "call_op",
    "pack",
    "parts",
]

TAU = {torch.float64: 1e-150, torch.float32: 1e-18}
MODES = [("default", "redistribute"), ("default", "absorb"), ("epsilon", "absorb"), ("epsilon", "redistribute")]
MODE_NAMES = ["-".join(m) for m in MODES]
#: the modes whose formulas the oracle knows; attnlrp and cp-lrp share epsilon's
FORMULATED = ("gamma", "alpha-beta", "z-plus", "contrastive", "w-square", "flat", "z-box")
ALL_MODES = [*MODES, *((name, bias) for name in FORMULATED for bias in ("absorb", "redistribute"))]
ALL_MODE_NAMES = ["-".join(m) for m in ALL_MODES]
ModeName = tuple[str, str | None]  # a mode and its policy for biases, None where it has none


@lru_cache(maxsize=1)
def pack() -> Registry:
    """The built-in pack alone."""
    return load_registry(metadata.entry_points(group="dlb.packs"), switch="builtin", strict=True)


def bind(
    function: Callable[..., Any],
    tensors: Mapping[str, Tensor],
    active: Iterable[str],
    mode: ModeName = MODES[0],
    **more: Any,
) -> Bound:
    """`dlb_core.testing.bind` with the built-in pack."""
    return bind_in(function, tensors, active, mode, registry=pack(), **more)


def bind_op(
    op: Any, arguments: Mapping[str, Any], active: Iterable[str], mode: ModeName = MODES[0], **more: Any
) -> Bound:
    """`dlb_core.testing.bind_op` with the built-in pack."""
    return bind_op_in(op, arguments, active, mode, registry=pack(), **more)
