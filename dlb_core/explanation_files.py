"""An explanation as files: what its JSON head says, which tensors go beside it, and back."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, fields
from typing import TYPE_CHECKING, Any

from torch import Tensor

from dlb_core.captions import captions_in, captions_out
from dlb_core.experts import from_saved, to_save
from dlb_core.kernel.ledger import Ledger, NodeEntry
from dlb_core.relevance import Relevance
from dlb_core.targets import Contrast, Query

if TYPE_CHECKING:
    from dlb_core.explanation import Explanation


def written(explanation: Explanation) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The head and the tensors of its files."""
    relevance = explanation.relevance
    flat: dict[str, Tensor] = {"output": explanation.output}
    flat |= {f"given/{name}": tensor for name, tensor in explanation.given.items()}
    captions, pictures = captions_out(explanation.captions)
    flat |= pictures
    entries: dict[str, int | None] = {}
    maps: dict[str, Mapping[str, Any]] = {"relevance": relevance, "total": relevance.total or {}}
    for kind, each in maps.items():
        for name, value in each.items():
            parts = value if isinstance(value, (tuple, list)) else None
            entries[name] = None if parts is None else len(parts)
            for i, part in enumerate(parts if parts is not None else (value,)):
                flat[f"{kind}/{name}" if parts is None else f"{kind}/{name}/{i}"] = part
    experts: dict[str, Any] = {}
    for kind, one in (("relevance", relevance), ("total", relevance.total)):
        if one is not None and one.routed:
            experts[kind], more = to_save(one.experts, f"experts/{kind}")
            flat |= more
    target, targets = _encode(relevance.target, flat)
    head = {
        "mode": relevance.mode,
        "options": {k: v for k, v in explanation.options.items() if isinstance(v, (str, int, float, bool, type(None)))},
        "target": target,
        "target_tensors": targets,
        "several": relevance.several,
        "inputs": list(relevance.inputs),
        "given": list(explanation.given),
        "captions": captions,
        "entries": entries,
        "experts": experts if relevance.routed else None,
        "ledgers": [ledger_out(ledger) for ledger in relevance.ledgers],
        "total_ledgers": [ledger_out(ledger) for ledger in relevance.total.ledgers] if relevance.total else None,
    }
    return head, flat


def _encode(target: Any, flat: dict[str, Tensor]) -> tuple[Any, int]:
    """A target as JSON; tensors inside go to the tensor file, tuples keep being tuples."""
    count = 0

    def walk(value: Any) -> Any:
        nonlocal count
        if isinstance(value, Tensor):
            flat[f"target/{count}"] = value
            count += 1
            return {"tensor": count - 1}
        if isinstance(value, tuple):
            return {"tuple": [walk(v) for v in value]}
        if isinstance(value, list):
            return [walk(v) for v in value]
        if isinstance(value, slice):
            return {"slice": [value.start, value.stop, value.step]}
        if isinstance(value, Mapping):
            return {"outputs": [[name, walk(one)] for name, one in value.items()]}
        if isinstance(value, (Contrast, Query)):
            return {type(value).__name__: {f.name: walk(getattr(value, f.name)) for f in fields(value)}}
        return value

    return walk(target), count


def _decode(value: Any, tensors: Mapping[str, Tensor]) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return tensors[f"target/{value['tensor']}"]
        if "slice" in value:
            return slice(*value["slice"])
        if "outputs" in value:
            return {name: _decode(v, tensors) for name, v in value["outputs"]}
        for named in (Contrast, Query):
            if named.__name__ in value:
                return named(**{name: _decode(v, tensors) for name, v in value[named.__name__].items()})
        return tuple(_decode(v, tensors) for v in value["tuple"])
    if isinstance(value, list):
        return [_decode(v, tensors) for v in value]
    return value


def ledger_out(ledger: Ledger) -> dict[str, Any]:
    """A ledger as JSON."""
    data = asdict(ledger)
    data["tolerance"] = None if math.isinf(ledger.tolerance) else ledger.tolerance
    return data


def ledger_in(data: dict[str, Any]) -> Ledger:
    """A ledger from JSON; what was saved before there were shapes has none."""
    by_node = data.pop("by_node").items()
    plain = {name: {**entry, "modules": tuple(entry["modules"])} for name, entry in by_node}
    nodes = {name: NodeEntry(**{**entry, "shape": _tuples(entry.get("shape", ()))}) for name, entry in plain.items()}
    tolerance = data.pop("tolerance")
    return Ledger(**data, by_node=nodes, tolerance=math.inf if tolerance is None else tolerance)


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def read(head: dict[str, Any], tensors: Mapping[str, Tensor]) -> dict[str, Any]:
    """The parts of an explanation from the head and the tensors of its files."""
    target = _decode(head["target"], tensors)

    def named(folder: str, ledgers: Any, total: Relevance | None = None) -> Relevance:
        found: dict[str, Any] = {}
        for name, count in head["entries"].items():
            path = f"{folder}/{name}"
            found[name] = tensors[path] if count is None else tuple(tensors[f"{path}/{i}"] for i in range(count))
        books = tuple(ledger_in(entry) for entry in ledgers)
        layers = head.get("experts", {})
        routed = (
            None
            if layers is None
            else from_saved(layers.get(folder, []), f"experts/{folder}", tensors, books, head["several"])
        )
        return Relevance(
            found,
            books,
            experts=routed,
            inputs=tuple(head["inputs"]),
            target=target,
            mode=head["mode"],
            several=head["several"],
            total=total,
            why_not=lambda name: "not in the saved explanation",
        )

    whole = head.get("total_ledgers")
    output = tensors["output"]
    assert isinstance(output, Tensor)
    return {
        "relevance": named("relevance", head["ledgers"], None if whole is None else named("total", whole)),
        "output": output,
        "options": head["options"],
        "given": {name: tensors[f"given/{name}"] for name in head.get("given", ())},
        "captions": captions_in(head.get("captions", {}), tensors),
    }
