"""Peak memory and time of `explain(keep="inputs")`, with memory="normal" and "low", against a plain gradient.

A LLaMA-shaped model; rounds are interleaved, ratios are of medians, memory is read as in `bench.py`.
"""

from __future__ import annotations

import argparse
import statistics
import time
import warnings

import torch
from bench import gradient, peak_memory
from models import llama

from dlb_core import DLBacktrace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    warnings.filterwarnings("ignore")
    torch.manual_seed(0)
    model, inputs = llama(hidden=args.hidden, layers=args.layers, tokens=args.tokens)
    dlb = DLBacktrace(model.eval(), inputs)
    runs = {
        "fb": gradient(model, inputs),
        "epsilon": lambda: dlb.explain(*inputs, mode="epsilon"),
        "epsilon, low": lambda: dlb.explain(*inputs, mode="epsilon", memory="low"),
        "default": lambda: dlb.explain(*inputs, mode="default"),
        "default, low": lambda: dlb.explain(*inputs, mode="default", memory="low"),
    }
    memory = {name: peak_memory(run) for name, run in runs.items()}
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(args.rounds):
        for name, run in runs.items():
            start = time.perf_counter()
            run()
            seconds[name].append(time.perf_counter() - start)
    middle = {name: statistics.median(each) for name, each in seconds.items()}
    print(f"hidden {args.hidden} x {args.layers}, {args.tokens} tokens, {torch.get_num_threads()} threads")
    print("| | time | ratio | memory | ratio |\n| --- | ---: | ---: | ---: | ---: |")
    for name in runs:
        ratios = middle[name] / middle["fb"], memory[name] / memory["fb"]
        print(f"| {name} | {1e3 * middle[name]:.0f} ms | {ratios[0]:.2f} | {memory[name]:.0f} MiB | {ratios[1]:.2f} |")


if __name__ == "__main__":
    main()
