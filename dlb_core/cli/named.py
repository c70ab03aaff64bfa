"""`dlb explain --model`: a model by its name, a text or an image, the words or pixels that decided."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from dlb_core.cli.failure import UsageError
from dlb_core.cli.folder import check_folder
from dlb_core.cli.named_data import of_classes, of_text, written
from dlb_core.cli.named_page import print_classes, print_text
from dlb_core.cli.options import settled_mode
from dlb_core.cli.page import Files
from dlb_core.cli.report import CONTENT, NAME, Report
from dlb_core.cli.screen import print_json, screen
from dlb_core.cli.ways import NEW_TOKENS
from dlb_core.errors import ModelLoadError
from dlb_core.findings import Strong, strongest
from dlb_core.pipeline import DLBacktracePipeline, PipelineResult
from dlb_core.pipeline.registry import IMAGE, TEXT, WRITE
from dlb_core.progress import stages
from dlb_core.targets import Request

CONTENTS = {
    "result.json": "what was said, as data",
    "words.html": "words coloured by relevance",
    "explanation.json": "ledger, target, mode, options",
    "generation.json": "ledgers, mode, options",
    NAME: CONTENT,
    "tensors.safetensors": "relevance, output of the model",
}


def explain_named(args: argparse.Namespace) -> int:
    """Runs the command; everything that can be refused is refused before the model is loaded."""
    mode, options = settled_mode(args)
    Request(seed=args.seed, multiplier=args.multiplier)
    if args.top < 1:
        raise UsageError(f"--top {args.top}: must be at least 1")
    folder = Path(args.out)
    report = Report.parse(args, folder)
    check_folder(folder)
    pipeline = DLBacktracePipeline.create_simple(args.name, args.device)
    units = {"seed": args.seed, "multiplier": args.multiplier}
    with contextlib.ExitStack() as stack:
        stage = stack.enter_context(stages())
        stage(f"loading {args.name}")
        stack.enter_context(contextlib.redirect_stdout(sys.stderr))
        stack.enter_context(_quiet())
        what = "writing and explaining" if args.generate else "explaining"
        asked = report.runs(what, mode, options)
        runs = [(said, _run(pipeline, args, {**units, "mode": one}, its)) for said, one, its in asked]
        results = []
        for said, run in runs:
            stage(said)
            results.append(run())
        result, *others = results
        stage(f"writing {folder}")
        about = (
            {"tokenizer": pipeline.load(WRITE).tokenizer}
            if args.generate
            else {"beside": [r["explanation"] for r in others]}
        )
        files = _write(result, folder, report, about)
    tokens = written(result, pipeline.load(WRITE).tokenizer) if args.generate else []
    strong = _strongest(result, args.top)
    if args.json:
        document = of_text(result, tokens) if args.generate else of_classes(result, strong)
        print_json({**document, "files": [{"path": path, "what": what} for path, what in files]})
    elif args.generate:
        print_text(screen(), result, tokens, args.top, files)
    else:
        print_classes(screen(), result, args.top, strong, files)
    return 0


def _run(
    pipeline: DLBacktracePipeline, args: argparse.Namespace, units: Mapping[str, Any], options: Mapping[str, Any]
) -> Callable[[], PipelineResult]:
    """What is left to do when the model is there. Raises `UsageError` for a name that leads nowhere."""
    task = WRITE if args.generate else TEXT if args.text is not None else IMAGE
    try:
        pipeline.load(task)
    except FileNotFoundError as error:
        raise UsageError(f"--model {error}") from None
    except ModelLoadError as error:  # what to do, in the words of the command
        raise UsageError(str(error).replace("model_name=", "--model ")) from error
    if args.generate:
        bias = {} if args.bias is None else {"bias": args.bias}
        asked = {**units, **bias, "mode_options": {n: v for n, v in options.items() if n != "bias"}}
        length = NEW_TOKENS if args.max_new_tokens is None else args.max_new_tokens
        return partial(pipeline.run_text_generation, args.text, max_new_tokens=length, return_scores=True, **asked)
    label = _label(args.targets)
    if args.text is not None:
        return partial(pipeline.run_text_classification, args.text, label, **units, **options)
    return partial(pipeline.run_image_classification, args.image, label, **units, **options)


def _label(targets: list[str] | None) -> str | int | None:
    """``--target positive`` or ``--target 1``."""
    if targets is None:
        return None
    if len(targets) > 1:
        raise UsageError("--target is given twice, and there is one text or image")
    return int(targets[0]) if targets[0].isdecimal() else targets[0]


def _strongest(result: PipelineResult, top: int) -> list[Strong]:
    """The strongest pixels of an image; of a text its words say more."""
    if "pixels" not in result:
        return []
    (name,) = result["relevance"].inputs
    return strongest(result["explanation"], {name: result["pixels"]}, top)


def _write(result: PipelineResult, folder: Path, report: Report, about: Mapping[str, Any]) -> Files:
    """Saves into `folder`, all of it or nothing; path and content of each file. about: what the report takes."""
    with report.files(folder) as (work, page):
        result.save(work, pictures=True)
        if report.wanted:
            result["explanation"].to_html(page, **about)
        names = sorted(path.relative_to(work) for path in work.rglob("*") if path.is_file())
    names.sort(key=lambda name: len(name.parts))
    files = [(str(folder / name), CONTENTS.get(name.name, "heat map")) for name in names]
    return [*files, (str(report.file), CONTENT)] if report.file is not None else files


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """transformers says nothing about loading: what matters of it is an error of ours."""
    try:
        import transformers
    except ImportError:  # the pipeline says what to do, if this model needs it
        yield
        return
    logging: Any = transformers.utils.logging
    shown, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if shown:
            logging.enable_progress_bar()
