"""Eight seeds in one call against eight calls: `explain(x, targets=[...])` over 8 x `explain(x, target=...)`, on CPU.

Both run interleaved in one process with the same threads; the ratio is of medians.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from bench import MODES, medians
from models import MODELS
from torch import Tensor, nn

from dlb_core import DLBacktrace

SEEDS = 8


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
    parser.add_argument("--batch", type=int, default=0, help="as many samples of the input (default: all)")
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, medians of {options.rounds} rounds\n")
    print("| model | mode | 8 calls | 8 seeds in one | ratio |\n| --- | --- | ---: | ---: | ---: |")
    for name in MODELS:
        if options.only not in name:
            continue
        model, inputs = classifier(name)
        inputs = tuple(x[: options.batch or None] for x in inputs)
        dlb = DLBacktrace(model, inputs)
        for mode in MODES:
            times = medians(contenders(dlb, inputs, mode, list(range(SEEDS))), options.rounds)
            one, all_ = times["one by one"], times["together"]
            print(f"| {name} | `{mode}` | {one:.2f} s | {all_:.2f} s | {all_ / one:.2f} |", flush=True)


if __name__ == "__main__":
    main()
