"""Which tracer writes the program: export where it can, the tape where the model's Python decides on values."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.export import ExportedProgram

from dlb_core.errors import ExportError
from dlb_core.kernel.fakes import Fakes
from dlb_core.kernel.program import Program
from dlb_core.kernel.registry import Lend
from dlb_core.kernel.surroundings import first_line
from dlb_core.kernel.tape import trace_tape
from dlb_core.kernel.trace import Dynamic, trace_export

log = logging.getLogger("dlb")


def trace(
    model: nn.Module | ExportedProgram,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    tracer: str,
    *,
    dynamic_shapes: Dynamic = "auto",
    device: torch.device | None = None,
    fakes: Fakes | None = None,
    lends: Sequence[Lend] = (),
) -> Program:
    """A program for a call; its `tracer` says who wrote it: ``export``, for other calls too, or ``tape``, for this one.

    tracer: ``auto`` exports, and records what torch.export cannot trace. Raises `TraceError`.
    """
    if tracer != "tape":
        try:
            shapes: dict[str, Any] = {"dynamic_shapes": dynamic_shapes, "fakes": fakes, "lends": lends}
            return trace_export(model, args, kwargs, device=device, **shapes)
        except ExportError as error:
            if tracer == "export" or isinstance(model, ExportedProgram):
                raise
            program = trace_tape(model, args, kwargs, device=device)
            log.warning("%s: every call is recorded instead, which costs a forward pass more", first_line(error))
            return program
    if isinstance(model, ExportedProgram):
        raise ValueError('tracer="tape" records an nn.Module at work; an ExportedProgram was traced already')
    return trace_tape(model, args, kwargs, device=device)
