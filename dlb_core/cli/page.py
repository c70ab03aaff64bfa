"""The page that `dlb explain` prints: prediction, ledger, experts where there are any, strongest inputs, files."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from dlb_core.cli.books import units_text
from dlb_core.cli.screen import heading, show, table
from dlb_core.explanation import Explanation
from dlb_core.findings import EXPERTS, Routed, Strong, ledgers, routed, target_text
from dlb_core.kernel.ledger import Ledger
from dlb_core.ledger_lines import ledger_lines
from dlb_core.plain import plain
from dlb_core.table import aligned

SAMPLES = 8  # of a batch, shown on the page; --json has all
LAYERS = 12  # of experts, shown on the page; --json has all
BAR_WIDTH = 24

Files = list[tuple[str, str]]  # path and content of what was written


def print_page(
    console: Console,
    title: str,
    explanation: Explanation,
    predicted: Mapping[str, Any],
    strong: Sequence[Strong],
    files: Files,
    notes: Sequence[str],
) -> None:
    """Everything, in the order a reader asks for it."""
    print_title(console, title, explanation.mode, explanation.options)
    _print_prediction(console, predicted, explanation.target, explanation.captions.of_class)
    for what, ledger in ledgers(explanation).items():
        print_ledger(console, what, ledger)
    print_experts(console, routed(explanation))
    print_strongest(console, strong)
    print_files(console, files)
    for note in notes:
        console.print(heading("note", note))


def print_title(console: Console, title: str, mode: str, options: Mapping[str, Any]) -> None:
    """What was explained, and how."""
    told = ", ".join(f"{k}={'none' if v is None else v}" for k, v in options.items())
    console.print(heading(title, f"mode {mode}" + (f" ({told})" if told else "")))
    console.print()


def print_files(console: Console, files: Files) -> None:
    """What was written."""
    show(console, heading("written"), table(("file", "what"), files))


def _print_prediction(console: Console, predicted: Mapping[str, Any], target: Any, name: Callable[[int], str]) -> None:
    shape = f"output {predicted['shape']}"
    if "classes" not in predicted:
        values = predicted.get("values")
        text = (
            str(_rounded(values))
            if values is not None
            else "  ".join(f"{key} {predicted[key]:.4g}" for key in ("min", "mean", "max"))
        )
        console.print(heading("prediction", shape))
        console.print(Text(text))
        console.print(Text(f"explained: {_target_text(target, name)}\n"))
        return
    samples = predicted["classes"]
    several = len(samples) > 1
    shown = [classes[: 1 if len(samples) > 3 else None] for classes in samples[:SAMPLES]]
    outputs = iter(aligned([entry["output"] for classes in shown for entry in classes]))
    named = ["class", *(["label"] if any("label" in entry for classes in shown for entry in classes) else [])]
    rows: list[list[Any]] = []
    for index, classes in enumerate(shown):
        sample = [index] if several else []
        chosen = _of_sample(target, index)
        for entry in classes:
            mark = Text("explained", "bold") if entry["class"] == chosen else ""
            length = bar(entry["probability"], mark)
            rows.append(
                [
                    *sample,
                    *[entry.get(column, "") for column in named],
                    f"{100 * entry['probability']:.2f} %",
                    next(outputs),
                    length,
                ]
            )
        if chosen not in [entry["class"] for entry in classes]:
            rows.append([*sample, *[""] * len(named), "", "", Text(f"explained: {_target_text(chosen, name)}", "bold")])
    columns = [*(["sample"] if several else []), *named, "probability", "output", ""]
    rest = f", first {SAMPLES} of {len(samples)} samples" if len(samples) > SAMPLES else ""
    show(
        console,
        heading("prediction", shape + rest),
        table(columns, rows, right=("sample", "class", "probability", "output")),
    )


def print_ledger(console: Console, what: str, ledger: Ledger) -> None:
    """Where the seed went; the shares add up to 100.00 %."""
    lines = ledger_lines(ledger)
    units = units_text(lines, ledger.seed)
    rows = [[line.account, text, line.share_text] for line, text in zip(lines, units, strict=False)]
    rows.append(["= seed", units[-1], "100.00 %" if ledger.sums else "-"])
    detail = f"where the seed of {ledger.seed:.6g} units went"
    if ledger.gain > 1.005:  # contributions of both signs: the sum alone would hide their size
        detail += f"; sum of |relevance| at the inputs is {ledger.gain:.3g} x the seed's"
    show(
        console,
        heading(what, detail),
        table(("account", "units", "share"), rows, right=("units", "share"), total=True),
    )


def print_experts(console: Console, layers: Sequence[Routed]) -> None:
    """The strongest experts of each layer; nothing where there are none."""
    if not layers:
        return
    shown = layers[:LAYERS]
    units = aligned([layer.entered for layer in shown], digits=5)
    rows = []
    for layer, entered in zip(shown, units, strict=True):
        cells = [f"{e}: {100 * r / layer.entered:.2f} %" if layer.entered else f"{e}: -" for e, r in layer.strongest]
        rows.append([layer.layer, layer.experts, entered, *cells, *[""] * (EXPERTS - len(cells))])
    rest = f"first {LAYERS} of {len(layers)} layers, " if len(layers) > LAYERS else ""
    ranks = ["strongest", *[""] * (EXPERTS - 1)]
    show(
        console,
        heading("experts", f"{rest}each expert's share of the units that entered its layer"),
        table(("layer", "experts", "entered", *ranks), rows, right=("experts", "entered", "strongest", "")),
    )


def print_strongest(console: Console, strong: Sequence[Strong]) -> None:
    """The elements of the inputs with the most units."""
    several = len({s.input for s in strong}) > 1
    relevance = aligned([s.relevance for s in strong], sign="+")
    values = aligned([s.value for s in strong if s.value is not None])
    rows = [
        [
            *([s.input] if several else []),
            f"[{', '.join(map(str, s.index))}]",
            "" if s.value is None else values.pop(0),
            units,
            "-" if s.share is None else f"{s.share:.2f} %",
        ]
        for s, units in zip(strong, relevance, strict=True)
    ]
    columns = [*(["input"] if several else []), "index", "value", "relevance", "share"]
    detail = f"of {strong[0].input}" if strong and not several else "" if strong else "no input received any relevance"
    show(
        console,
        heading("strongest inputs", detail),
        table(columns, rows, right=("value", "relevance", "share")) if rows else None,
    )


def bar(probability: float, mark: Text | str) -> Text:
    """A probability as a length, and what there is to say beside it."""
    filled = round(BAR_WIDTH * probability)
    return Text.assemble(("#" * filled, "blue"), " " if filled and mark else "", mark)


def _of_sample(target: Any, index: int) -> Any:
    """The target of one sample; one that was given for all is not a list."""
    return target[index] if isinstance(target, list) and index < len(target) else target


def _target_text(target: Any, name: Callable[[int], str]) -> str:
    if not isinstance(target, list):
        return plain(target_text(target, name))
    rest = f" and {len(target) - SAMPLES} more" if len(target) > SAMPLES else ""
    return plain(", ".join(target_text(each, name) for each in target[:SAMPLES]) + rest)


def _rounded(values: Any) -> Any:
    return [_rounded(v) for v in values] if isinstance(values, list) else float(f"{values:.5g}")
