"""`docs/models.md`: the table of the matrix, written from what a run measured."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

HEAD = """# Models

<!-- written by `make models`; do not edit -->

Every model below is traced and explained by the tests, as real classes in small sizes with random weights, biases and
norms. For each of them holds: the traced forward equals the model's, at other batch sizes and lengths than traced where
it has them. In `default`, `epsilon` and three more modes, others from model to model, the books close at every node and
end to end (of each map of `contrastive`, of which nothing is negative). In two of these one sample of a batch gets what
it gets alone (in float64, to 1e-9; not asked of the whole detectors, which take one image; alpha-beta on Mamba2 is held
to the sample beside itself, since there the last bits of a batch of another size decide which side of a sum is empty,
and so are mixtures of experts where their routers, which compute in float32 whatever the model's dtype, give other last
bits).
In `default`, besides: nothing is negative, and all units arrive at the inputs and at the constants that stand alone as
values (a class token).

Equal forward means 1e-5 of the largest output. Where the model's own float32 rounding is coarser (fcn, Faster R-CNN: up
to 7e-5), it means four times the model's distance from itself in float64.

    make models

- **nodes**, **ops**: nodes of the program after the passes, and how many different ops.
- **trace**: seconds to construct `DLBacktrace` (on one busy core: an order of magnitude, no benchmark).
- **reach**: per cent of the seed at the inputs. In `epsilon` biases take their share, with signs: with random biases as
  large as the signal little may be left, and the rest may cancel.
- **gain**: sum of |R| at the inputs over the seed, in `epsilon`: how much cancels.
- **residual**: the largest loss at any node in any mode, relative to the sum of |R| there.
"""
COLUMNS = ("model", "tracer", "nodes", "ops", "trace", "reach default", "reach epsilon", "gain epsilon", "residual")
TITLES = {
    "vision": "Images",
    "detection": "Detection",
    "text": "Text",
    "experts": "Mixtures of experts",
    "multimodal": "Text with images, sound",
    "recurrent": "Recurrent",
    "tabular": "Tables, and torch's own transformer modules",
}


def write(path: Path, measured: Iterable[Mapping[str, Any]]) -> None:
    """The document, families in their order, models in that of the matrix."""
    from .models import ENTRIES

    lines = {line["model"]: line for line in measured}
    parts = [HEAD]
    for family, title in TITLES.items():
        found = [(entry, lines[name]) for name, entry in ENTRIES.items() if entry.family == family and name in lines]
        if found:
            rows = [_row(line, entry.note) for entry, line in found]
            parts.append("\n".join([f"## {title}\n", _cells(COLUMNS), _cells(["---"] * len(COLUMNS)), *rows]) + "\n")
    path.write_text("\n".join(parts))


def _row(line: Mapping[str, Any], note: str) -> str:
    name = f"{line['model']} ({note})" if note else str(line["model"])
    if reason := line.get("unsupported"):
        return _cells([name, f"not yet: {reason}", *[""] * (len(COLUMNS) - 2)])
    shares, gains = line["shares"], line["gains"]
    return _cells(
        [
            name + (" **fails**" if line["failures"] else ""),
            line["tracer"],
            line["nodes"],
            line["ops"],
            f"{line['seconds']:.1f} s",
            f"{shares['default']:.1f} %",
            f"{shares['epsilon']:.3g} %",
            f"{gains['epsilon']:.2g}",
            f"{line['residual']:.0e}",
        ]
    )


def _cells(values: Iterable[object]) -> str:
    return "| " + " | ".join(map(str, values)) + " |"
