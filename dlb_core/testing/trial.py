"""One rule, one case, one mode: what a property of the kit looks at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.utils import _pytree as pytree

from dlb_core.kernel.kinds import Row
from dlb_core.kernel.registry import Registry
from dlb_core.testing.bound import Bound, ModeName
from dlb_core.testing.bound import parts as real
from dlb_core.testing.case import Arguments, Case
from dlb_core.testing.layer import LayerPrograms
from dlb_core.testing.tensors import Tensors

#: rtol between two ways to compute the same relevance
RTOL = {torch.float64: 1e-7, torch.float32: 1e-3}


class BrokenProperty(Exception):
    """A property does not hold; the text says what was seen."""


class NotAsked(Exception):
    """A property has nothing to say about this rule, case or mode; the text says why."""


@dataclass
class Trial:
    """Draws the case's arguments, runs it, and remembers what it drew last for the error's text."""

    row: Row
    case: Case
    mode: ModeName
    registry: Registry
    layers: LayerPrograms
    device: str = "cpu"
    drawn: Arguments = field(default_factory=dict)

    @property
    def dtype(self) -> torch.dtype:
        """float64, unless the row is for other dtypes."""
        dtypes = self.row.dtypes
        return torch.float64 if dtypes is None or torch.float64 in dtypes else dtypes[0]

    def tensors(self, seed: int, signs: str = "mixed", layout: str = "contiguous", **more: Any) -> Tensors:
        """A maker of tensors on this trial's device."""
        return Tensors(seed, **{"dtype": self.dtype, "device": self.device, **more}, signs=signs, layout=layout)

    def arguments(self, t: Tensors) -> Arguments:
        """The case's arguments."""
        self.drawn = self.case.arguments(t)
        return self.drawn

    def bind(self, arguments: Arguments) -> Bound:
        """The case with these arguments as a program bound to the mode."""
        self.drawn = arguments
        if self.case.module is not None:
            return self.layers.bind(self.case, arguments, self.mode, self.registry)
        return self.case.bind(arguments, self.mode, registry=self.registry)

    def run(self, arguments: Arguments) -> Any:
        """The op (or the module) itself."""
        with torch.no_grad():
            if self.case.module is not None:
                return self.layers.module(self.case, arguments)(**arguments)
            return self.case.run(arguments)

    def seed(self, bound: Bound, number: int) -> Any:
        """Units of both signs on every floating or complex element of the output, nothing on others."""
        t = self.tensors(number)

        def units(o: Tensor) -> Tensor:
            dtype = bound.plan.dtype
            if o.is_complex():
                return torch.complex(t.normal(*o.shape).to(dtype), t.normal(*o.shape).to(dtype))
            return t.normal(*o.shape).to(dtype) if o.is_floating_point() else torch.zeros_like(o, dtype=dtype)

        output = bound.output
        seed = pytree.tree_map_only(Tensor, units, output)
        return list(seed) if isinstance(output, (tuple, list)) else seed

    def close(self, got: Any, expected: Any, what: str, *, scale: float = 0.0, rtol: float | None = None) -> None:
        """Raises `BrokenProperty` where two results differ by more than rounding; `scale`: what flows at most."""
        ours = [v for v in pytree.tree_leaves(got) if v is not None]
        theirs = [v for v in pytree.tree_leaves(expected) if v is not None]
        if len(ours) != len(theirs):
            raise BrokenProperty(f"{what}: {len(ours)} tensors, expected {len(theirs)}")
        for a, b in zip(ours, theirs, strict=True):
            if not isinstance(a, Tensor) or not isinstance(b, Tensor):
                continue
            if a.shape != b.shape:
                raise BrokenProperty(f"{what}: shape {list(a.shape)}, expected {list(b.shape)}")
            a, b = real(a), real(b)
            relative = rtol or self.case.tolerance or RTOL.get(a.dtype, 2e-2)
            flows = max(scale, float(b.abs().double().max()) if b.numel() else 0.0)
            gap = (a.double() - b.double()).abs()
            if not torch.allclose(a.double(), b.double(), rtol=relative, atol=1e-3 * relative * flows, equal_nan=True):
                place = tuple(torch.unravel_index(gap.nan_to_num(float("inf")).argmax(), gap.shape))
                at = [int(i) for i in place]
                raise BrokenProperty(f"{what}: at {at} {float(a[place]):.6g}, expected {float(b[place]):.6g}")


def finite(values: Any) -> bool:
    """Is every floating tensor free of NaN and infinities?"""
    tensors: Sequence[Any] = pytree.tree_leaves(values)
    floating = [v for v in tensors if isinstance(v, Tensor) and (v.is_floating_point() or v.is_complex())]
    return all(bool(torch.isfinite(v).all()) for v in floating)
