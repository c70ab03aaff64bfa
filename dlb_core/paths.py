"""Modes at more than one point: along a path from a baseline (`integrated`), or over noisy inputs (`smooth`).

A wrapped mode goes wherever a mode goes: ``dlb.explain(x, mode=integrated("epsilon", steps=16))``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.kernel.composites import AnyMode
from dlb_core.kernel.differences import of_differences
from dlb_core.kernel.modes import BoundMode
from dlb_core.targets import Request
from dlb_core.walks import Point, Result, Walk

Bind = Callable[..., AnyMode]


@dataclass(frozen=True, repr=False)
class Integrated:
    """A mode along a path; see `integrated`."""

    mode: Any
    baseline: Any
    steps: int
    chunk: int | None
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        return _call("integrated", self.mode, {"steps": self.steps, **self.options})

    def bind(self, bind: Bind, options: Mapping[str, Any]) -> BoundPath:
        """This with the options of its mode settled."""
        settled = {**self.options, **options}
        if settled.get("router") is not None:
            raise ValueError("integrated: a router's weights have the share of their own change; leave router= out")
        return BoundPath(self, _plain(bind(self.mode, **settled), "integrated"))


@dataclass(frozen=True, repr=False)
class Smooth:
    """A mode over noisy inputs; see `smooth`."""

    mode: Any
    noise: float
    samples: int
    seed: int
    chunk: int | None
    options: Mapping[str, Any]

    def __repr__(self) -> str:
        return _call("smooth", self.mode, {"noise": self.noise, "samples": self.samples, **self.options})

    def bind(self, bind: Bind, options: Mapping[str, Any]) -> BoundSmooth:
        """This with the options of its mode settled."""
        settled = {**self.options, **options}
        if isinstance(self.mode, Integrated):
            return BoundSmooth(self, self.mode.bind(bind, settled))
        return BoundSmooth(self, _plain(bind(self.mode, **settled), "smooth"))


def _call(wrapper: str, mode: Any, options: Mapping[str, Any]) -> str:
    """How the wrapper was asked for, in a line."""
    return f"{wrapper}({mode!r}, {', '.join(f'{name}={value!r}' for name, value in options.items())})"


Wrapped = Integrated | Smooth


def _plain(mode: AnyMode, wrapper: str) -> AnyMode:
    if isinstance(mode, BoundMode) and mode.mode.splits is not None:
        raise ValueError(f"{wrapper} takes modes with one map; {mode.name!r} has two, so wrap {mode.mode.splits!r}")
    return mode


def integrated(
    mode: Any, baseline: Any = 0, steps: int = 16, *, chunk: int | None = None, **options: Any
) -> Integrated:
    """The mode along the straight path from a baseline to the input: relevance of what changes between its points.

    The path is cut into `steps` pieces; over each of them the change of the explained output is followed back through
    the changes of all values. Relevance and accounts add up to f(x) - f(baseline), in units of the output (or of its
    probability, with ``seed="probability"``). With "epsilon" on a ReLU network one step is DeepLIFT's rescale rule
    (Shrikumar et al. 2017), and many steps are Integrated Gradients (Sundararajan et al. 2017).

    mode: a mode. baseline: a number or a tensor that broadcasts against the input, or input name -> those. Token ids
    have their path in the embedding: 0 is the zero vector, ``{"input_ids": 103}`` the embedding of token 103 (also a
    tensor of ids). chunk: how many steps run at once (default: all; 1 runs them one by one). options: of the mode.
    Raises ValueError for steps < 1 and, when it explains, for a baseline that does not fit the inputs.
    """
    if isinstance(mode, Wrapped):
        raise ValueError(f"integrated takes a mode, not {type(mode).__name__.lower()}(...)")
    return Integrated(mode, baseline, _count("steps", steps), _chunk(chunk), options)


def smooth(
    mode: Any, noise: float = 0.1, samples: int = 16, seed: int = 0, *, chunk: int | None = None, **options: Any
) -> Smooth:
    """The mode averaged over noisy copies of the input, after SmoothGrad (Smilkov et al. 2017).

    Normal noise with a standard deviation of `noise` times the range (greatest less least) of the values of each
    sample's input; token ids get it on their embedding. The target is chosen at the input itself. Relevance and
    accounts add up to the seed: to the mean of the noisy outputs with ``seed="logit"``.

    mode: a mode or ``integrated(...)``. seed: of the noise, which is the same for all samples of a batch. chunk: how
    many copies run at once (default: all; 1 runs them one by one). options: of the mode. Raises ValueError for
    noise < 0 and samples < 1.
    """
    if isinstance(mode, Smooth):
        raise ValueError("smooth takes a mode or integrated(...), not smooth(...)")
    _check_noise(noise, seed)
    return Smooth(mode, noise, _count("samples", samples), seed, _chunk(chunk), options)


def _check_noise(noise: Any, seed: Any) -> None:
    if not isinstance(noise, (int, float)) or not 0 <= noise < float("inf"):
        raise ValueError(f"noise={noise!r}: must be a finite number, 0 or more")
    if not isinstance(seed, int):
        raise ValueError(f"seed={seed!r}: must be an int, of the noise; seed= of explain says what the units are")


def _count(what: str, value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{what}={value!r}: must be an int of at least 1")
    return value


def _chunk(value: Any) -> int | None:
    return None if value is None else _count("chunk", value)


@dataclass(frozen=True)
class BoundPath:
    """An `Integrated` whose mode has its options."""

    spec: Integrated
    mode: AnyMode

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"integrated({self.mode.name})"

    @property
    def options(self) -> Mapping[str, Any]:
        """Of the mode, and its own."""
        return {**self.mode.options, "baseline": self.spec.baseline, "steps": self.spec.steps}

    def fixes_units(self, request: Request) -> bool:
        """Are the units those of the request? They are what the output changes by, so no multiplier is taken."""
        if request.seed == "multiplier" and request.multiplier != Request.multiplier:
            raise ValueError(
                f"multiplier={request.multiplier!r}: integrated counts how the output changes; use scaler= to scale it"
            )
        return False

    @property
    def plan_mode(self) -> AnyMode:
        """The mode that its plan is bound to."""
        return of_differences(self.mode, self.spec.steps)

    def run(self, walk: Walk, point: Point) -> Result:
        """The sum over the pieces of the path from the baseline to `point`."""
        base = walk.baseline(self.spec.baseline, point)
        marks = torch.linspace(0, 1, self.spec.steps + 1, dtype=torch.float64, device=walk.device)

        def piece(start: Tensor, end: Tensor) -> Result:
            return walk.between(_along(base, point, start), _along(base, point, end))

        return walk.total(piece, (marks[:-1], marks[1:]), self.spec.chunk)


def _along(base: Point, point: Point, mark: Tensor) -> Point:
    """The point at `mark` of the way; 0 and 1 are the ends exactly."""
    return {slot: torch.lerp(base[slot], value, mark.to(value.dtype)) for slot, value in point.items()}


@dataclass(frozen=True)
class BoundSmooth:
    """A `Smooth` whose mode has its options."""

    spec: Smooth
    mode: AnyMode | BoundPath

    @property
    def name(self) -> str:
        """What it is called in results."""
        return f"smooth({self.mode.name})"

    @property
    def options(self) -> Mapping[str, Any]:
        """Of the mode, and its own."""
        return {
            **self.mode.options,
            "noise": self.spec.noise,
            "samples": self.spec.samples,
            "noise_seed": self.spec.seed,
        }

    def fixes_units(self, request: Request) -> bool:
        """Are the units those of the request, at every copy?"""
        return self.mode.fixes_units(request) if isinstance(self.mode, BoundPath) else request.seed == "multiplier"

    @property
    def plan_mode(self) -> AnyMode:
        """The mode that its plan is bound to."""
        return self.mode.plan_mode if isinstance(self.mode, BoundPath) else self.mode

    def run(self, walk: Walk, point: Point) -> Result:
        """The mean over the noisy copies of `point`."""
        random = torch.Generator().manual_seed(self.spec.seed)
        copies = {slot: _noisy(value, self.spec.noise, self.spec.samples, random) for slot, value in point.items()}
        inner = self.mode

        def one(copy: Point) -> Result:
            return inner.run(walk, copy) if isinstance(inner, BoundPath) else walk.at(copy)

        return walk.total(one, (copies,), self.spec.chunk, 1 / self.spec.samples)


def _noisy(value: Tensor, noise: float, samples: int, random: torch.Generator) -> Tensor:
    """Copies of a value with noise: [samples, *its shape]; every sample of the batch gets the same draw."""
    rest = tuple(range(1, value.dim()))
    draws = torch.randn(samples, 1, *value.shape[1:], generator=random, dtype=torch.float64).to(value)
    if not rest:
        return value.expand(samples, *value.shape)  # one number for each sample has no range
    return value + noise * (value.amax(rest, keepdim=True) - value.amin(rest, keepdim=True)) * draws


Bound = BoundPath | BoundSmooth
