"""`dlb explain`: load, run, write the result folder whole, print the page."""

from __future__ import annotations

import argparse
import re
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.export import ExportedProgram

from dlb_core.backtrace import DLBacktrace
from dlb_core.captions import class_names, fitting
from dlb_core.cli.failure import UsageError
from dlb_core.cli.folder import check_folder
from dlb_core.cli.inputs import Inputs, read_inputs
from dlb_core.cli.models import LoadedModel, code_folder, load_model, user_code
from dlb_core.cli.options import class_list, settled_mode, target
from dlb_core.cli.page import Files, print_page
from dlb_core.cli.report import CONTENT, Report
from dlb_core.cli.screen import heading, print_json, screen, show, table
from dlb_core.explanation import HEAD, TENSORS, Explanation
from dlb_core.findings import as_document, prediction, strongest
from dlb_core.progress import stages
from dlb_core.targets import Request


def explain(args: argparse.Namespace) -> int:
    """Runs the command; everything that can be refused is refused before the model runs."""
    (mode, options), wanted = settled_mode(args), target(args.targets)
    Request(task=args.task, seed=args.seed, multiplier=args.multiplier)
    if args.top < 1:
        raise UsageError(f"--top {args.top}: must be at least 1")
    folder, classes = Path(args.out), class_list(args.classes)
    report = Report.parse(args, folder)
    if not args.plan:
        check_folder(folder)
    with stages() as stage:
        with user_code(code_folder(args.model)):
            stage(f"loading {args.model}")
            loaded = load_model(args.model, trust=args.trust)
            inputs = read_inputs(args, loaded.dtype)
            device = _device(args.device, loaded.device)
            stage("tracing")
            dlb = _trace(loaded, inputs, args)
            if args.plan:
                plan = dlb.plan(mode, **options)
            else:
                units = {"task": args.task, "multiplier": args.multiplier, "seed": args.seed, "target": wanted}
                asked = partial(dlb.explain, *_positional(inputs, device), **units)
                found = []
                for said, one, its in report.runs("explaining", mode, options):
                    stage(said)
                    found.append(asked(mode=one, **its))
        if not args.plan:
            stage(f"writing {folder}")
            explanation, *beside = [_named(one, args.model, loaded, inputs, dlb.input_names, classes) for one in found]
            tensors = {name: tensor for name, (tensor, _) in inputs.labelled(dlb.input_names).items()}
            predicted = prediction(explanation.output, args.task, explanation.captions.classes)
            strong = strongest(explanation, tensors, args.top)
            files, notes = _write(explanation, beside, inputs, dlb.input_names, folder, report)
    if args.plan:
        return _show_plan(plan.table(), args)
    if args.json:
        document = as_document(explanation, predicted, strong)
        listed = [{"path": path, "what": what} for path, what in files]
        print_json({"model": args.model, **document, "files": listed, "notes": notes})
    else:
        print_page(screen(), args.model, explanation, predicted, strong, files, notes)
    return 0


def _named(
    explanation: Explanation, model: str, loaded: LoadedModel, inputs: Inputs, names: list[str], classes: Any
) -> Explanation:
    """With the names that pictures show: of the model and its classes, and images as they were in their files."""
    if classes is None:
        classes = fitting(class_names(getattr(loaded.model, "config", None)), explanation.output)
    images = {
        name: view(tensor)
        for name, (tensor, view) in inputs.labelled(names).items()
        if view is not None and name in explanation.inputs and _is_image(tensor)
    }
    return explanation.captioned(model=model, classes=classes, images=images or None)


def _trace(loaded: LoadedModel, inputs: Inputs, args: argparse.Namespace) -> DLBacktrace:
    if not inputs.tensors and not (args.plan and isinstance(loaded.model, ExportedProgram)):
        raise UsageError("there is nothing to explain: give at least one --input FILE")
    output = int(args.output) if args.output is not None and args.output.isdecimal() else args.output
    call = inputs.call(loaded.device)
    return DLBacktrace(loaded.model, call, device=args.device, tracer=args.tracer, output=output)


def _positional(inputs: Inputs, device: torch.device) -> tuple[Any, ...]:
    """One dict for named inputs: as keyword arguments they could meet names that `explain` has itself."""
    call = inputs.call(device)
    return (call,) if isinstance(call, dict) else call


def _device(asked: str, home: torch.device) -> torch.device:
    """The device of --device. Raises `UsageError` where this machine or this torch has none of that name."""
    if asked == "auto":
        return home
    try:
        return torch.empty(0, device=asked).device
    except (RuntimeError, AssertionError) as error:  # torch raises either, by kind of device
        raise UsageError(f"--device {asked} cannot be used here: {str(error).splitlines()[0]}") from None


def _write(
    explanation: Explanation,
    beside: list[Explanation],
    inputs: Inputs,
    names: list[str],
    folder: Path,
    report: Report,
) -> tuple[Files, list[str]]:
    """Saves into `folder`, all of it or nothing; path and content of each file, and what there is to note."""
    files: Files = [
        (str(folder / HEAD), "ledger, target, mode, options"),
        (str(folder / TENSORS), "relevance of the inputs, output of the model"),
    ]
    notes: list[str] = []
    with report.files(folder) as (work, page):
        explanation.save(work)
        for name, (tensor, view) in inputs.labelled(names).items():
            relevance = explanation.inputs.get(name)
            if relevance is None or not _is_image(tensor):
                continue
            try:
                from dlb_core.viz.heatmap import check_pillow, heatmap

                check_pillow()
            except ImportError as error:
                notes.append(f"no heat map of {name}: {error}")
                continue
            shown = tensor if view is None else view(tensor)
            for sample in range(len(tensor)):
                number = f"-{sample}" if len(tensor) > 1 else ""
                file = f"heatmap-{re.sub(r'[^A-Za-z0-9._-]', '_', name)}{number}.png"
                title = f"relevance, {explanation.mode}"
                heatmap(relevance[sample], shown[sample], title=title).save(work / file)
                files.append((str(folder / file), f"heat map of {name}" + (f", sample {sample}" if number else "")))
        if report.wanted:
            explanation.to_html(page, beside=beside)
            files.append((str(report.place(folder)), CONTENT))
    return files, notes


def _is_image(tensor: Tensor) -> bool:
    return tensor.is_floating_point() and tensor.dim() == 4 and tensor.shape[1] in (1, 3) and tensor.numel() > 0


def _show_plan(plan: Any, args: argparse.Namespace) -> int:
    if args.json:
        print_json({"model": args.model, "mode": plan.title.removeprefix("plan: "), "plan": plan.records()})
    else:
        rows = [[value if value != "" else "-" for value in row] for row in plan]
        show(screen(), heading(args.model, plan.title), table(plan.columns, rows))
    return 0
