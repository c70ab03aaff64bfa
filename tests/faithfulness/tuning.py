"""How the recommended mode was chosen: `python -m faithfulness.tuning CNN ViT ...` ranks candidates.

On samples that the networks were trained on, of networks with other seeds than the reported one; for MiniLM, which has
one set of weights, on the sentences that are not reported.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

import torch
import torchvision_stub

from dlb_core.rules import Composite, Part, part

from .curves import Area, Curves
from .methods import Method, along, mode
from .problems import PROBLEMS

SEEDS = (1, 2)
SAMPLES = 120
MAPS = ("linear", "bilinear", "attention", "normalise")
GATED = ("softmax", "attention", "bilinear", "product")


def candidates() -> Iterator[Method]:
    """Gamma of different sizes: everywhere, by depth, by kind, with other rules beside it, from a baseline."""
    for size in (0.03, 0.05, 0.1, 0.15, 0.25, 0.5):
        yield mode("gamma", f"gamma {size}", gamma=size)
    for size in (0.05, 0.1, 0.25):
        gamma, less = {"gamma": size}, part("gamma", gamma=size / 4)
        yield mode("gamma", f"gamma {size}, biases redistributed", bias="redistribute", **gamma)
        for label, parts in (
            (
                "at first, a quarter of it later",
                (part("gamma", depth=(0, 0.5), **gamma), less),
            ),
            (
                "later, a quarter of it at first",
                (part("gamma", depth=(0.5, 1), **gamma), less),
            ),
            ("but epsilon in the first layer", (part("epsilon", first=True), part("gamma", **gamma))),
            ("but epsilon in the last layer", (part("epsilon", depth=(1, 1)), part("gamma", **gamma))),
            ("but epsilon for sums", (part("gamma", kind=MAPS, **gamma), part("epsilon"))),
            ("but magnitudes for sums", (part("gamma", kind=MAPS, **gamma), part("default"))),
            ("but attnlrp in attention", (part("attnlrp", kind=GATED), part("gamma", **gamma))),
        ):
            yield _composite(f"gamma {size}, {label}", parts)
    for size in (0.0, 0.02, 0.05, 0.1, 0.25):
        yield along("gamma", {"gamma": size}, 1)


def _composite(label: str, parts: tuple[Part, ...]) -> Method:
    return mode(Composite("candidate", parts), label)


def main() -> None:
    """Prints ABPC on each seed and over both, candidate by candidate."""
    parser = argparse.ArgumentParser(prog="faithfulness.tuning")
    parser.add_argument("models", nargs="+", choices=PROBLEMS)
    torchvision_stub.register()
    for name in parser.parse_args().models:
        problems = [PROBLEMS[name](seed).part(slice(0, SAMPLES)) for seed in (SEEDS[:1] if name == "MiniLM" else SEEDS)]
        curves = [Curves(problem) for problem in problems]
        for method in candidates():
            values = [each.areas(method.relevance(each.problem)) for each in curves]
            area = Area.of(torch.cat(values))
            each = "  ".join(f"{part.mean():7.3f}" for part in values)
            print(f"{name:14} {method.name:48} {each}  {area.mean:7.3f} ± {area.margin:.3f}", flush=True)


if __name__ == "__main__":
    main()
