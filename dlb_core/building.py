"""From a model and an example to an engine: the settings that a caller gives once, and what they make."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.export import ExportedProgram

from dlb_core.choices import CHECKS, TRACERS, choose
from dlb_core.engine import Engine
from dlb_core.kernel.fakes import fakes_of
from dlb_core.kernel.kinds import Row
from dlb_core.kernel.packs import registry as load
from dlb_core.kernel.prepare import prepare
from dlb_core.kernel.tracers import trace
from dlb_core.outputs import choose_output, what_it_says
from dlb_core.wrapped import unwrapped_parts


@dataclass(frozen=True)
class Settings:
    """The arguments of `DLBacktrace` beside the model and its example; see there. Raises ValueError."""

    device: str | torch.device = "auto"
    dynamic_shapes: Any = "auto"
    tracer: str = "auto"
    output: str | int | None = None
    explain_inputs: Iterable[str] | None = None
    fold: bool = True
    check: str = "raise"
    relevance_dtype: torch.dtype | None = None

    def __post_init__(self) -> None:
        choose("tracer", self.tracer, TRACERS)
        choose("check", self.check, CHECKS)
        if self.tracer == "tape" and self.dynamic_shapes != "auto":
            raise ValueError('dynamic_shapes= is for export: with tracer="tape" every call may have other shapes')
        if self.relevance_dtype is not None and not self.relevance_dtype.is_floating_point:
            raise ValueError(f"relevance_dtype={self.relevance_dtype}: must be a floating dtype")

    @property
    def of_any_inputs(self) -> dict[str, Any]:
        """Those that do not belong to one set of inputs and outputs."""
        return {name: getattr(self, name) for name in ("device", "tracer", "fold", "check", "relevance_dtype")}

    def build(
        self,
        model: nn.Module | ExportedProgram,
        args: tuple[Any, ...],
        kwargs: Mapping[str, Any],
        *,
        tracer: str,
        layers: Sequence[Row],
    ) -> Engine:
        """Traces the model for a call and prepares it. layers: rules for module classes, of this caller alone."""
        registry = load().extended(layers) if layers else load()
        lent: dict[str, Any] = {"fakes": fakes_of(registry), "lends": registry.lends}
        device = None if self.device == "auto" else torch.device(self.device)
        with unwrapped_parts(model):
            program = trace(model, args, kwargs, tracer, dynamic_shapes=self.dynamic_shapes, device=device, **lent)
        layout = prepare(program, registry, switches={"fold": self.fold}, explain_inputs=self.explain_inputs)
        index = choose_output(program, self.output)
        dtype = self.relevance_dtype or _relevance_dtype(program.outputs[index])
        return Engine(registry, layout, index, dtype, what_it_says(model), self.check)


def _relevance_dtype(node: fx.Node) -> torch.dtype:
    dtype: torch.dtype = node.meta["val"].dtype
    return torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
