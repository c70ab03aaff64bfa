"""What explaining every generated token costs, over as many plain gradients of the whole sequence; CPU.

A LLaMA-shaped model (width 512, 8 layers, vocabulary 8,000) goes on from a prompt of 64 tokens for 50 tokens. The
gradient is forward and backward to the embeddings with frozen parameters, once for each token. Rounds are interleaved.
"""

from __future__ import annotations

import argparse
import platform
import time
from collections.abc import Callable
from typing import Any

import torch
from bench import medians, peak_memory
from models import llama_512x8

from dlb_core import DLBacktrace
from dlb_core.generation import DLBAutoSampler

PROMPT, NEW = 64, 50
MODES = ("epsilon", "default", "attnlrp")


def gradients(model: Any, ids: torch.Tensor, tokens: int) -> Callable[[], Any]:
    """As many forward and backward passes over the whole sequence, each from the output that chose a token."""
    model.requires_grad_(False)

    def run() -> None:
        for n in range(tokens):
            x = model.get_input_embeddings()(ids).detach().requires_grad_()
            logits = model(inputs_embeds=x, use_cache=False).logits
            torch.autograd.grad(logits[0, PROMPT - 1 + n, ids[0, PROMPT + n]], x)

    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--few", type=int, default=5, help="gradients timed per round; fifty take so many times longer")
    options = parser.parse_args()
    torch.manual_seed(0)
    model, _ = llama_512x8()
    model.eval()
    ids = torch.randint(3, 8000, (1, PROMPT + NEW))
    sampler = DLBAutoSampler(DLBacktrace(model, {"input_ids": ids}))

    def explained(mode: str, chunk: int | None = None) -> Callable[[], Any]:
        return lambda: sampler.explain(ids, PROMPT, mode=mode, chunk=chunk)

    contenders = {"fb": gradients(model, ids, options.few), **{mode: explained(mode) for mode in MODES}}
    times = medians(contenders, options.rounds, time.process_time)
    whole = times["fb"] * NEW / options.few
    machine = f"{torch.get_num_threads()} threads, {platform.machine()}"
    print(f"torch {torch.__version__}, {machine}, CPU seconds, medians of {options.rounds} rounds\n")
    print(f"| {NEW} tokens after {PROMPT} | seconds | ratio |\n| --- | ---: | ---: |")
    print(f"| {NEW} gradients | {whole:.2f} | 1 |")
    for mode in MODES:
        print(f"| `{mode}` | {times[mode]:.2f} | {times[mode] / whole:.2f} |")
    print("\n| at once | peak MiB |\n| --- | ---: |")
    print(f"| one gradient | {peak_memory(gradients(model, ids, 1)):.0f} |")
    for chunk in (1, 4, 16, None):
        print(f"| `chunk={chunk}` | {peak_memory(explained('epsilon', chunk)):.0f} |")


if __name__ == "__main__":
    main()
