"""Time and memory of dlb as ratios to a plain forward + backward-to-inputs of the same model, on CPU.

All contenders of a model run interleaved in one process with the same threads; a ratio is of medians. The gradient
is taken with the parameters frozen, which is the cheapest that autograd can do. Memory is the peak of torch's CPU
allocator over what was allocated before the call; ours is that of `explain(keep="inputs")`.
"""

from __future__ import annotations

import argparse
import functools
import json
import platform
import statistics
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from models import MODELS
from torch import Tensor, nn
from torch.profiler import ProfilerActivity, profile

from dlb_core import DLBacktrace

MODES = ("epsilon", "default")


def gradient(model: nn.Module, inputs: tuple[Tensor, ...]) -> Callable[[], Any]:
    """Forward + backward to the inputs; for token ids to their embeddings."""
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    floating = inputs[0].is_floating_point()

    def run() -> Tensor:
        if floating:
            x = inputs[0].detach().requires_grad_()
            output = model(x, *inputs[1:])
        else:
            x = model.get_input_embeddings()(inputs[0]).detach().requires_grad_()  # type: ignore[operator]
            output = model(inputs_embeds=x, attention_mask=inputs[1])
        logits = output if isinstance(output, Tensor) else output.logits
        chosen = logits.flatten(1).amax(1) if logits.dim() < 3 else logits[:, -1].amax(1)
        return torch.autograd.grad(chosen.sum(), x)[0]

    return run


def explainer(dlb: DLBacktrace, inputs: tuple[Tensor, ...], mode: str) -> Callable[[], Any]:
    def run() -> Any:
        dlb.predict(*inputs)
        return dlb.evaluation(mode)

    return run


def medians(
    contenders: dict[str, Callable[[], Any]], rounds: int, clock: Callable[[], float] = time.perf_counter
) -> dict[str, float]:
    """Seconds per contender; the rounds are interleaved so that a slow moment hits all of them."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for run in contenders.values():
        run()
    for _ in range(rounds):
        for name, run in contenders.items():
            start = clock()
            run()
            times[name].append(clock() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def plain_trace(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    """`torch.export` and its decompositions alone, with the dynamic shapes that dlb asks for."""
    from dlb_core.kernel.surroundings import without_cache

    dims = {
        i: ({0: torch.export.Dim.AUTO} | ({} if t.is_floating_point() else {1: torch.export.Dim.AUTO}))
        for i, t in enumerate(inputs)
    }
    with torch.no_grad(), without_cache(model):
        exported = torch.export.export(model, inputs, dynamic_shapes=tuple(dims.values()), strict=False)
        exported.run_decompositions({})


def trace_ratio(model: nn.Module, inputs: tuple[Tensor, ...], rounds: int) -> tuple[float, float]:
    def ours() -> None:
        DLBacktrace(model, inputs).plan("epsilon")

    times = medians({"export": lambda: plain_trace(model, inputs), "dlb": ours}, rounds)
    return times["export"], times["dlb"]


def peak_memory(run: Callable[[], Any]) -> float:
    """MiB that the call adds at its peak to what torch's CPU allocator had handed out before it."""
    run()  # what is made once and kept (packed weights, plans) is no part of a call
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        run()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "trace.json"
        profiled.export_chrome_trace(str(path))
        events = json.loads(path.read_text())["traceEvents"]
    memory = sorted(
        (e["ts"], e["args"]["Total Allocated"], e["args"]["Bytes"]) for e in events if e["name"] == "[memory]"
    )
    before = memory[0][1] - memory[0][2]
    return (max(total for _, total, _ in memory) - before) / 2**20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.manual_seed(0)
    warnings.simplefilter("ignore")  # torch's own, from the plain export
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}"
    print(f"torch {torch.__version__}, {machine}, medians of {options.rounds} rounds\n")
    print("| model | fb | epsilon | default | export | trace | fb memory | epsilon memory | default memory |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name, make in MODELS.items():
        if options.only not in name:
            continue
        model, inputs = make()
        model.eval()
        dlb = DLBacktrace(model, inputs)
        contenders = {"fb": gradient(model, inputs), **{m: explainer(dlb, inputs, m) for m in MODES}}
        times = medians(contenders, options.rounds)
        export, trace = trace_ratio(model, inputs, max(3, options.rounds // 5))
        explains = {m: functools.partial(dlb.explain, *inputs, mode=m) for m in MODES}
        memory = {c: peak_memory(run) for c, run in {"gradient": contenders["fb"], **explains}.items()}
        ratios = [f"{times[m] / times['fb']:.2f} ({1e3 * times[m]:.0f} ms)" for m in MODES]
        sizes = [f"{memory[m] / memory['gradient']:.2f} ({memory[m]:.0f} MiB)" for m in MODES]
        cells = [
            name,
            f"{1e3 * times['fb']:.0f} ms",
            *ratios,
            f"{export:.2f} s",
            f"{trace / export:.2f} ({trace:.2f} s)",
        ]
        print("| " + " | ".join([*cells, f"{memory['gradient']:.0f} MiB", *sizes]) + " |", flush=True)


if __name__ == "__main__":
    main()
