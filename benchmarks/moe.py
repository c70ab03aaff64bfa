"""Time and memory of an explained mixture of experts as ratios to a plain gradient of the model as it ships, on CPU.

The model has the shape of OLMoE: 16 layers of 64 experts, 8 of them for each of 128 tokens. Its gradient runs under the
implementation of experts that transformers chooses by itself; the rest is as in `bench.py`.
"""

from __future__ import annotations

import argparse
import functools
import platform
import warnings

import torch
from bench import MODES, explainer, gradient, medians, peak_memory
from models import olmoe_256x16

from dlb_core import DLBacktrace


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    options = parser.parse_args()
    torch.manual_seed(0)
    warnings.simplefilter("ignore")
    model, inputs = olmoe_256x16()
    model.eval()
    dlb = DLBacktrace(model, inputs)
    contenders = {"fb": gradient(model, inputs), **{m: explainer(dlb, inputs, m) for m in MODES}}
    times = medians(contenders, options.rounds)
    explains = {m: functools.partial(dlb.explain, *inputs, mode=m) for m in MODES}
    memory = {c: peak_memory(run) for c, run in {"fb": contenders["fb"], **explains}.items()}
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}"
    print(f"torch {torch.__version__}, {machine}, medians of {options.rounds} rounds")
    print(f"experts of fb: {model.config._experts_implementation}\n")
    print("| | time | ratio | memory | ratio |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, seconds in times.items():
        time, size = f"{1e3 * seconds:.0f} ms | {seconds / times['fb']:.2f}", f"{memory[name]:.0f} MiB"
        print(f"| `{name}` | {time} | {size} | {memory[name] / memory['fb']:.2f} |")


if __name__ == "__main__":
    main()
