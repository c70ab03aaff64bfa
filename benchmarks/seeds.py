"""Eight seeds in one call against eight calls: `explain(x, targets=[...])` over 8 x `explain(x, target=...)`, on CPU.

Both run interleaved in one process with the same threads. Times are the process's CPU seconds, so that what else runs
on the machine counts little; the ratio is of medians.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from bench import MODES, medians
from models import MODELS
from torch import Tensor, nn

from dlb_core import DLBacktrace

SEEDS = 8
MEASURED = [name for name in MODELS if not name.startswith("LLaMA")]  # of a decoder a seed is a token at a position


def contenders(
    dlb: DLBacktrace, inputs: tuple[Tensor, ...], mode: str, targets: list[int]
) -> dict[str, Callable[[], Any]]:
    """One call for all targets, and a call for each."""
    return {
        "together": lambda: dlb.explain(*inputs, mode=mode, targets=targets),
        "one by one": lambda: [dlb.explain(*inputs, mode=mode, target=target) for target in targets],
    }


def classifier(name: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """The model with classes enough for as many targets."""
    model, inputs = MODELS[name]()
    if hasattr(model, "classifier"):
        model.classifier = nn.Linear(model.classifier.in_features, SEEDS)
    return model.eval(), inputs


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.rounds} rounds\n")
    print("| model | mode | 8 calls | 8 seeds in one | ratio |\n| --- | --- | ---: | ---: | ---: |")
    for name in MEASURED:
        if options.only not in name:
            continue
        model, inputs = classifier(name)
        dlb = DLBacktrace(model, inputs)
        for mode in MODES:
            times = medians(contenders(dlb, inputs, mode, list(range(SEEDS))), options.rounds, time.process_time)
            one, all_ = times["one by one"], times["together"]
            print(f"| {name} | `{mode}` | {one:.2f} s | {all_:.2f} s | {all_ / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
