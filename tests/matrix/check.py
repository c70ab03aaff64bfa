"""What every explanation of every model must hold, and the numbers that the document shows."""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from dlb_core import DLBacktrace, Ledger, Relevance
from dlb_core.kernel.packs import registry

from .entry import Entry, Size

PER_NODE = {torch.float32: 1e-5, torch.float64: 1e-9}
FORWARD = 1e-5
ALONE = 1e-9  # "equal to alone" is a float64 statement
STEPPED = ("alpha-beta",)  # the mode in which a contribution of rounding's size may have a side to itself
UNITS = 100.0


@dataclass
class Measured:
    """One line of the document, and everything that did not hold."""

    model: str
    family: str
    tracer: str = ""
    nodes: int = 0
    ops: int = 0
    seconds: float = 0.0
    forward: float = 0.0  # largest difference, relative to the largest output
    shares: dict[str, float] = field(default_factory=dict)  # mode -> per cent of the seed that reaches the inputs
    gains: dict[str, float] = field(default_factory=dict)  # mode -> sum |R| at the inputs over the seed
    residual: float = 0.0  # the largest of any node in any mode, relative to the sum of |R| there
    failures: list[str] = field(default_factory=list)

    def expect(self, holds: bool, what: str) -> None:
        """Notes what does not hold, and goes on: one run tells all."""
        if not holds:
            self.failures.append(what)


def measure(entry: Entry) -> Measured:
    """Traces the model, runs it and explains it in the modes of its turn; raises what tracing raises."""
    found = Measured(entry.name, entry.family)
    model = entry.model()
    start = time.perf_counter()
    dlb = trace(entry, model, torch.float32)
    found.seconds = time.perf_counter() - start
    view = dlb.graph("default")
    ops = [data["op"] for _, data in view.nodes(data=True) if data["op"] != "input"]
    found.tracer, found.nodes, found.ops = dlb.tracer, len(ops), len(set(ops))
    found.expect(found.tracer == entry.tracer, f"traced by {found.tracer}, not by {entry.tracer}")
    exact = entry.model(torch.float64)
    check_forward(entry, model, exact, dlb, found)
    for mode in modes_of(entry):
        check_books(entry, dlb, mode, found)
    if entry.calls[0].batch > 1:
        check_samples_alone(entry, trace(entry, exact, torch.float64), found)
    return found


def modes_of(entry: Entry) -> list[str]:
    """`default`, `epsilon` and three others, which follow on each other from model to model."""
    others = sorted(set(registry().modes) - {"default", "epsilon"})
    start = zlib.crc32(entry.name.encode())
    return ["default", "epsilon", *(others[(start + 4 * i) % len(others)] for i in range(3))]


def trace(entry: Entry, model: nn.Module, dtype: torch.dtype) -> DLBacktrace:
    dynamic: Any = "auto" if entry.dynamic is None else entry.dynamic
    return DLBacktrace(model, entry.example(dtype=dtype), output=entry.output, dynamic_shapes=dynamic)


def call(entry: Entry, size: Size, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """Inputs of another size than traced."""
    return entry.example(size.batch, entry.length + size.more if entry.length else None, dtype)


def explained_output(entry: Entry, output: Any) -> Tensor:
    """The output that the entry chooses: by name, by place, or the first floating one."""
    if isinstance(entry.output, str):
        chosen = output[entry.output]
    else:
        leaves = [leaf for leaf in pytree.tree_leaves(output) if isinstance(leaf, Tensor)]
        floating = [leaf for leaf in leaves if leaf.is_floating_point()]
        chosen = floating[0] if entry.output is None else leaves[entry.output]
    assert isinstance(chosen, Tensor)
    return chosen


def check_forward(entry: Entry, model: nn.Module, exact: nn.Module, dlb: DLBacktrace, found: Measured) -> None:
    """The traced program computes what the model computes, for every size.

    Where the model's own rounding is coarser than the tolerance (few units left of large ones), that is the measure.
    """
    for size in (Size(2, 0), *entry.calls):
        inputs = call(entry, size)
        with torch.no_grad():
            expected = explained_output(entry, model(**inputs))
        got = dlb.predict(inputs)["output"].output
        if got.shape != expected.shape:
            found.expect(False, f"forward {size}: shape {list(got.shape)}, not {list(expected.shape)}")
            continue
        apart = relative(got, expected)
        found.forward = max(found.forward, apart)
        if apart > FORWARD:
            with torch.no_grad():
                truth = explained_output(entry, exact(**call(entry, size, torch.float64)))
            rounding = relative(expected.double(), truth)
            found.expect(apart <= 4 * rounding, f"forward {size}: {apart:.1e} apart (rounding: {rounding:.1e})")


def relative(one: Tensor, other: Tensor) -> float:
    """The largest difference over the largest value."""
    largest = max(float(one.abs().max()), float(other.abs().max()))
    return float((one - other).abs().max()) / largest if largest else 0.0


def check_books(entry: Entry, dlb: DLBacktrace, mode: str, found: Measured) -> None:
    """Every node's books close, and seed = inputs + accounts; `default` puts all on the inputs and named constants."""
    size = entry.calls[0]
    dlb.predict(call(entry, size))
    whole = dlb.evaluation(mode, UNITS, target=entry.target, **options(mode))
    if whole.total is None:
        check_map(entry, whole, mode, UNITS * size.batch, found)
        return
    for side in ("positive", "negative"):
        one = getattr(whole, side)
        units = UNITS * size.batch if side == "positive" else one.ledger.seed  # nothing where there is no other class
        check_map(entry, one, f"{mode} {side}", units, found)
        for name, tensor in leaves(one):
            found.expect(bool((tensor >= -1e-5 * tensor.abs().max()).all()), f"{mode} {side}: {name} is negative")


def options(mode: str) -> dict[str, Any]:
    """What a mode needs that has no default for it."""
    return dict(registry().mode(mode).example)


def check_map(entry: Entry, relevance: Relevance, mode: str, seed: float, found: Measured) -> None:
    """One map and its ledger."""
    ledger = relevance.ledger
    found.shares[mode] = 100 * math.fsum(ledger.inputs.values()) / seed if seed else 0.0
    found.gains[mode] = ledger.gain
    found.expect(abs(ledger.seed - seed) <= 1e-4 * abs(seed), f"{mode}: the seed is {ledger.seed}, not {seed}")
    for node in ledger.by_node.values():
        apart = abs(node.residual) / node.scale if node.scale else 0.0
        found.residual = max(found.residual, apart)
        found.expect(apart <= PER_NODE[torch.float32], f"{mode}: {node.name} ({node.op}) loses {apart:.1e}")
    ends = math.fsum(ledger.inputs.values()) + math.fsum(ledger.accounts.values())
    allowed = PER_NODE[torch.float32] * ledger.scale * math.sqrt(len(ledger.by_node))
    found.expect(abs(ends - ledger.seed) <= allowed, f"{mode}: the ends are {ledger.seed - ends:.1e} apart")
    for name, tensor in leaves(relevance):
        found.expect(bool(torch.isfinite(tensor).all()), f"{mode}: {name} is not finite")
    if mode == "default":
        check_default(entry, relevance, ledger, found)


def check_default(entry: Entry, relevance: Relevance, ledger: Ledger, found: Measured) -> None:
    """Nothing negative; what does not reach the inputs stands in the constants that the entry names."""
    kept = {name for name, units in ledger.accounts.items() if abs(units) > 1e-4 * ledger.seed}
    found.expect(kept == set(entry.kept), f"default: keeps {sorted(kept)}, not {sorted(entry.kept)}")
    explained = set(ledger.inputs)
    found.expect(explained == set(entry.explained), f"default: explains {sorted(explained)}")
    for name, tensor in leaves(relevance):
        found.expect(bool((tensor >= 0).all()), f"default: {name} has negative relevance")


def check_samples_alone(entry: Entry, dlb: DLBacktrace, found: Measured) -> None:
    """In float64: a sample of a batch gets what it gets alone; in `default` and in the last of the model's modes.

    Where a mode has steps (the empty sides of alpha-beta), or the model computes in float32 all the same (a router),
    the last bits count, and a batch of another size may have others: there the sample is compared with itself beside
    itself, so that nothing can come from another sample.
    """
    size = entry.calls[0]
    inputs = call(entry, size, torch.float64)

    def explained(mode: str, *samples: int) -> dict[str, Tensor]:
        chosen = {name: torch.cat([value[i : i + 1] for i in samples]) for name, value in inputs.items()}
        return dlb.explain(chosen, mode=mode, target=entry.target, **options(mode)).inputs

    for i, mode in enumerate(("default", modes_of(entry)[-1])):
        sample = i % size.batch
        together = explained(mode, *range(size.batch))
        here = {name: value[sample : sample + 1] for name, value in together.items()}
        apart = {name: relative(value, here[name]) for name, value in explained(mode, sample).items()}
        if max(apart.values()) > ALONE and (entry.coarse or mode in STEPPED):
            beside = explained(mode, *[sample] * size.batch)
            apart = {name: relative(value[sample : sample + 1], here[name]) for name, value in beside.items()}
        for name, distance in apart.items():
            found.expect(distance <= ALONE, f"{mode}: {name} of sample {sample} alone is {distance:.1e} apart")


def leaves(relevance: Relevance) -> Iterator[tuple[str, Tensor]]:
    """Name and tensor of every entry that has places (an expert that nobody chose has none); a tuple gives several."""
    for name, value in relevance.items():
        for tensor in value if isinstance(value, tuple) else (value,):
            if tensor is not None and tensor.numel():
                yield name, tensor
