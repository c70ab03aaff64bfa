"""What is worth telling of an explanation, as plain data: the prediction, the ledger, the strongest inputs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from dlb_core.experts import ExpertLayer
from dlb_core.explanation import Explanation
from dlb_core.kernel.ledger import Ledger
from dlb_core.ledger_lines import ledger_lines
from dlb_core.targets import Contrast

CLASSES = 5  # shown per sample
EXPERTS = 3  # shown per layer
VALUES = 8  # an output of at most so many numbers is shown whole
VALUE_TASKS = ("regression", "bbox-regression", "binary-classification")


@dataclass(frozen=True)
class Strong:
    """One element of an input: where it is, its value, its relevance, and its share of the seed in per cent."""

    input: str
    index: tuple[int, ...]
    value: float | int | bool | None
    relevance: float
    share: float | None


@dataclass(frozen=True)
class Routed:
    """A layer of experts: units that entered it, and its strongest experts with their units."""

    layer: str
    experts: int
    entered: float
    strongest: tuple[tuple[int, float], ...]


def prediction(output: Tensor, task: str, classes: Sequence[str] = ()) -> dict[str, Any]:
    """The output in a few numbers; of [B, C] the top classes of each sample with probabilities, and their names."""
    output = output.detach().cpu().double()
    summary: dict[str, Any] = {"shape": list(output.shape)}
    if output.dim() == 2 and output.shape[1] > 1 and task not in VALUE_TASKS:
        probabilities = output if _are_probabilities(output) else output.softmax(1)
        top = probabilities.topk(min(CLASSES, output.shape[1]), dim=1)
        summary["classes"] = [
            [
                {
                    "class": c,
                    **({"label": classes[c]} if c < len(classes) else {}),
                    "probability": p,
                    "output": float(sample[c]),
                }
                for c, p in zip(best.tolist(), values.tolist(), strict=True)
            ]
            for sample, best, values in zip(output, top.indices, top.values, strict=True)
        ]
    elif output.numel() <= VALUES:
        summary["values"] = output.tolist()
    else:
        summary |= {"min": float(output.min()), "mean": float(output.mean()), "max": float(output.max())}
    return summary


def explained(explanation: Explanation, sample: int = 0, target: int = 0) -> Any:
    """The target of one sample, of `targets=[...]` the one of that number."""
    chosen = explanation.target
    if explanation.relevance.several and isinstance(chosen, list):
        chosen = chosen[target]
    return chosen[sample] if isinstance(chosen, list) and sample < len(chosen) else chosen


def target_text(target: Any, classes: Callable[[int], str] = str) -> str:
    """A target in words. classes: from a class to its name."""
    if target is None:
        return "the whole output"
    if isinstance(target, Tensor):
        return f"weights {list(target.shape)}"
    if isinstance(target, Mapping):
        return "; ".join(f"{name}: {target_text(each, classes)}" for name, each in target.items())
    if isinstance(target, Contrast):
        others = "the rest" if target.others is None else " + ".join(map(classes, target.others))
        return f"{' + '.join(map(classes, target.chosen))} against {others}"
    if isinstance(target, tuple) and target:
        return ", ".join((*map(str, target[:-1]), target_text(target[-1], classes)))
    return classes(target) if isinstance(target, int) and not isinstance(target, bool) else str(target)


def ledgers(explanation: Explanation) -> dict[str, Ledger]:
    """The books by what they are called; a contrastive explanation has two."""
    if explanation.relevance.total is None:
        return {"ledger": explanation.ledger}
    return {"ledger for the target": explanation.positive.ledger, "ledger against it": explanation.negative.ledger}


def summed(books: Sequence[Ledger]) -> Ledger:
    """The books of several seeds together."""
    return Ledger(
        seed=math.fsum(b.seed for b in books),
        inputs=_added(b.inputs for b in books),
        accounts=_added(b.accounts for b in books),
        scale=math.fsum(b.scale for b in books),
        input_scale=math.fsum(b.input_scale for b in books),
        seed_scale=math.fsum(b.seed_scale for b in books),
        tolerance=max(b.tolerance for b in books),
    )


def strongest(explanation: Explanation, values: Mapping[str, Tensor], top: int) -> list[Strong]:
    """The `top` elements of all inputs with the largest |relevance|; those without relevance are left out."""
    seed = next(iter(ledgers(explanation).values())).seed
    found: list[Strong] = []
    for name, relevance in explanation.inputs.items():
        flat = relevance.detach().cpu().flatten()
        value = values[name].detach().cpu().flatten() if name in values else None
        for position in flat.abs().topk(min(top, flat.numel())).indices.tolist():
            amount = float(flat[position])
            index = tuple(int(i) for i in torch.unravel_index(torch.tensor(position), relevance.shape))
            share = 100 * amount / seed if seed else None
            found.append(Strong(name, index, None if value is None else value[position].item(), amount, share))
    return sorted((s for s in found if s.relevance), key=lambda s: -abs(s.relevance))[:top]


def routed(explanation: Explanation) -> list[Routed]:
    """The layers of experts in the order of the model; none in modes at several points, which may choose others."""
    found: list[Routed] = []
    for name, layer in _layers(explanation).items():
        units = layer.relevance.detach().cpu().double()
        top = units.abs().argsort(descending=True, stable=True)[:EXPERTS].tolist()
        found.append(Routed(name, len(units), layer.entered, tuple((e, float(units[e])) for e in top)))
    return found


def as_document(explanation: Explanation, predicted: Mapping[str, Any], strong: list[Strong]) -> dict[str, Any]:
    """The findings for `--json`: a target per sample; the ledger whole, with shares that sum to 100.00."""
    books = {name: as_data(ledger) for name, ledger in ledgers(explanation).items()}
    return {
        "mode": explanation.mode,
        "options": dict(explanation.options),
        "prediction": dict(predicted),
        "target": _per_sample(explanation),
        **books,
        "experts": {name: _expert_data(layer) for name, layer in _layers(explanation).items()},
        "strongest": as_records(strong),
    }


def as_records(strong: Sequence[Strong]) -> list[dict[str, Any]]:
    """The strongest elements for `--json`."""
    return [
        {"input": s.input, "index": list(s.index), "value": s.value, "relevance": s.relevance, "share": s.share}
        for s in strong
    ]


def _layers(explanation: Explanation) -> dict[str, ExpertLayer]:
    return explanation.experts if explanation.relevance.routed else {}


def _expert_data(layer: ExpertLayer) -> dict[str, Any]:
    return {
        "entered": layer.entered,
        "accounts": dict(layer.accounts),
        "relevance": layer.relevance.tolist(),
        "load": layer.load.tolist(),
    }


def as_data(ledger: Ledger) -> dict[str, Any]:
    """A ledger for `--json`, whole."""
    lines = ledger_lines(ledger, most=None)
    return {
        "seed": ledger.seed,
        "inputs": dict(ledger.inputs),
        "accounts": dict(ledger.accounts),
        "residual": ledger.residual,
        "gain": ledger.gain,
        "shares": [{"account": line.account, "units": line.units, "share": line.share} for line in lines],
    }


def _are_probabilities(output: Tensor) -> bool:
    return bool((output >= 0).all()) and bool(((output.sum(1) - 1).abs() < 1e-4).all())


def _per_sample(explanation: Explanation) -> list[Any]:
    """One target per sample, so that [4, 3] can only mean two samples and [[4, 3]] a position and a class."""
    if isinstance(explanation.target, list):
        return explanation.target
    return [explanation.target] * (explanation.output.shape[0] if explanation.output.dim() else 1)


def _added(books: Iterable[Mapping[str, float]]) -> dict[str, float]:
    parts: defaultdict[str, list[float]] = defaultdict(list)
    for book in books:
        for name, units in book.items():
            parts[name].append(units)
    return {name: math.fsum(units) for name, units in parts.items()}
