"""What the report shows, as one document of plain data; `page` brings it into a browser."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from dlb_core.findings import explained, prediction, target_text
from dlb_core.viz.colour import STOPS
from dlb_core.viz.report.arrays import plain
from dlb_core.viz.report.books import Source, written_books
from dlb_core.viz.report.inputs import SIDE, Room, shown
from dlb_core.viz.view import View, ledger_of, sides, views

if TYPE_CHECKING:
    from dlb_core.captions import Captions
    from dlb_core.experts import ExpertLayer
    from dlb_core.explanation import Explanation
    from dlb_core.relevance import Relevance

SAMPLES = 16
NAMES = 4  # of the targets of single samples, in the choice among several
MOST = 3_000_000  # bytes of a page ...
SCRIPTS = 300_000  # ... of which about so many are styles and scripts
BOOKS = 1_200_000  # bytes for layers, experts and graphs of all ledgers
LEAST = 400_000  # bytes for the inputs, however large the books are


def document(explanations: Sequence[Explanation]) -> dict[str, Any]:
    """Everything that the page shows; JSON can hold it. Raises ValueError for explanations of other inputs."""
    first = explanations[0]
    for other in explanations[1:]:
        _check_same(first, other)
    relevance = first.relevance
    targets = range(len(relevance.ledgers))
    outputs = [one.output for one in explanations]
    same = all(_equal(outputs[0], output) for output in outputs)
    sources = [[_sources(one.relevance, target) for target in targets] for one in explanations]
    made, left_out = written_books([source for one in sources for target in one for source in target], BOOKS)
    books = iter(made)
    data: dict[str, Any] = {
        "kind": "explanation",
        "model": first.captions.model,
        "stops": STOPS,
        "columns": [
            {
                "mode": one.mode,
                "options": [[name, option_text(value)] for name, value in one.options.items() if value is not None],
                "targets": [_targets(one, target) for target in targets],
                "books": [[next(books) for _ in target] for target in mine],
            }
            for one, mine in zip(explanations, sources, strict=True)
        ],
        "predictions": [
            [_prediction(one, target) for target in targets] for one in (explanations[:1] if same else explanations)
        ],
        "targets": [_of_all(one, first.captions) for one in relevance.target] if relevance.several else [""],
    }
    count = _samples(first)
    room, samples = _fitting(explanations, count, max(MOST - SCRIPTS - len(json.dumps(data)), LEAST))
    for column, one in zip(data["columns"], explanations, strict=True):
        column["views"] = [
            [_shown(views(one, sample=sample, target=target), room) for sample in range(samples)] for target in targets
        ]
    data["samples"] = [f"sample {sample}" for sample in range(samples)]
    data["count"] = count
    data["notes"] = [*_notes(first, room, samples, count), *left_out]
    return data


def _check_same(first: Explanation, other: Explanation) -> None:
    """Are they of the same inputs, and of as many targets?"""
    shapes = [{name: list(units.shape) for name, units in one.inputs.items()} for one in (first, other)]
    if len(first.relevance.ledgers) != len(other.relevance.ledgers):
        counts = f"{len(first.relevance.ledgers)} and {len(other.relevance.ledgers)} targets"
        raise ValueError(f"beside=: {counts}; explain as many in each")
    if shapes[0] != shapes[1]:
        raise ValueError(f"beside=: explanations of other inputs, {shapes[0]} and {shapes[1]}")
    for name in first.given.keys() & other.given.keys():
        if not _equal(first.given[name], other.given[name]):
            raise ValueError(f"beside=: explanations of other inputs, {name!r} does not hold the same values")


def _equal(one: Tensor, other: Tensor) -> bool:
    if one.shape != other.shape:
        return False
    one, other = one.detach().cpu(), other.detach().cpu()
    if one.is_floating_point() or one.is_complex():
        return bool(torch.allclose(one, other.to(one.dtype), rtol=1e-4, atol=1e-5, equal_nan=True))
    return bool((one == other).all())


def _samples(explanation: Explanation) -> int:
    several = explanation.relevance.several
    tensors = [units[0] if several else units for units in explanation.inputs.values()]
    return min((len(units) if units.dim() else 1 for units in tensors), default=1)


def _shown(found: Sequence[View], room: Room) -> list[dict[str, Any]]:
    """The inputs of a sample; two sides of one input have the same scale of colours."""
    made = [shown(view, room) for view in found]
    for one in made:
        limits = zip(*(each["limits"] for each in made if each["name"] == one["name"]), strict=True)
        one["limits"] = [max(each) for each in limits]
    return made


def _fitting(explanations: Sequence[Explanation], count: int, most: int) -> tuple[Room, int]:
    """What to show of each sample, and how many of them: as much as the page has room for."""
    targets = len(explanations[0].relevance.ledgers)
    one = [view for explanation in explanations for view in views(explanation)] if count else []
    wanted = min(count, SAMPLES)
    rooms = [Room(channels, side) for side in (SIDE, SIDE // 2, SIDE // 4) for channels in (True, False)]
    for room in rooms:
        fit = most // max(1, targets * sum(map(room.cost, one)))
        if fit >= min(wanted, 4):
            break
    return room, min(wanted, max(fit, 1))


def _notes(explanation: Explanation, room: Room, samples: int, count: int) -> list[str]:
    """What of the explanation the page does not hold."""
    notes = []
    if samples < count:
        notes.append(f"The first {samples} of {count} samples are shown; the ledger is that of all.")
    images = [view for view in views(explanation) if view.kind == "image"] if count else []
    if not room.channels and any(len(view.units) > 1 for view in images):
        notes.append("Images are shown summed over their channels.")
    if any(max(view.units.shape[1:]) > room.side for view in images):
        notes.append(f"Images of more than {room.side} pixels a side are reduced: relevance is summed in blocks.")
    return notes


def _prediction(explanation: Explanation, target: int) -> dict[str, Any]:
    """The output: by sample the top classes, or numbers; where each target is at a position, the output there."""
    output = explanation.output
    chosen = _each_target(explanation, target)
    if output.dim() == 3 and len(chosen) == len(output) and all(map(_at_position, chosen)):
        output = torch.stack([sample[one[0]] for sample, one in zip(output, chosen, strict=True)])
    found = prediction(output, "auto")
    names = explanation.captions
    classes = [
        [{"name": names.of_class(each["class"]), **{k: plain(v) for k, v in each.items()}} for each in sample]
        for sample in found.get("classes", ())
    ]
    numbers = {key: plain(found[key]) for key in ("min", "mean", "max") if key in found}
    values = _values(found["values"]) if "values" in found else None
    return {"shape": list(explanation.output.shape), "classes": classes, "values": values, "numbers": numbers}


def _values(values: Any) -> list[list[Any]]:
    """An output of few numbers: by sample, the numbers of it."""
    rows = values if isinstance(values, list) else [values]
    return [[plain(v) for v in torch.tensor(row).flatten().tolist()] for row in rows]


def _targets(explanation: Explanation, number: int) -> list[dict[str, Any]]:
    """What was explained of each sample: its name, and its class where it is one."""
    return [
        {
            "name": target_text(one, explanation.captions.of_class),
            "class": one[1] if _at_position(one) else one if isinstance(one, int) else None,
        }
        for one in _each_target(explanation, number)[:SAMPLES]
    ]


def _each_target(explanation: Explanation, number: int) -> list[Any]:
    """The target of each sample."""
    return [explained(explanation, sample, number) for sample in range(_samples(explanation))]


def _at_position(target: Any) -> bool:
    return isinstance(target, tuple) and len(target) == 2 and all(isinstance(place, int) for place in target)


def _of_all(target: Any, captions: Captions) -> str:
    """One of several targets: the same for all samples, or one for each."""
    each = target if isinstance(target, list) else [target]
    names = [*dict.fromkeys(target_text(one, captions.of_class) for one in each)]
    return ", ".join(names[:NAMES]) + (f" and {len(names) - NAMES} more" if len(names) > NAMES else "")


def option_text(value: Any) -> str:
    """An option of a mode as it is read."""
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def _sources(relevance: Relevance, target: int) -> list[Source]:
    """The books of one target: one, or those for the target and against it."""
    number = target if relevance.several else None
    return [Source(ledger_of(map_, target), side, _experts_of(map_), number) for side, map_ in sides(relevance).items()]


def _experts_of(relevance: Relevance) -> Mapping[str, ExpertLayer]:
    return relevance.experts if relevance.routed else {}
