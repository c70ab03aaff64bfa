"""What can be typed: the argument parser, and nothing that needs torch."""

from __future__ import annotations

import argparse
import logging
from typing import Any, NoReturn

from dlb_core import __version__
from dlb_core.choices import BIAS_POLICIES, SEEDS, TASKS, TRACERS
from dlb_core.cli.failure import UsageError
from dlb_core.cli.ways import NEW_TOKENS, check_way

EXPLAIN_EXAMPLES = """\
examples:
  dlb explain model.py:load --input photo.png --resize 224x224 --out build/photo
  dlb explain my_package.models:bert --input ids.npy --input mask.npy --mode epsilon --target 1
  dlb explain bert.py:load --input input_ids=ids.npy --input attention_mask=mask.npy --json
  dlb explain model.py:load --input photo.png --classes names.txt --report --beside epsilon --beside gamma
  dlb explain model.pt2 --trust --input x.npy --plan
  dlb explain --model bert-base --text "This product is amazing!" --target positive
  dlb explain --model ./my-vit --image photo.png
  dlb explain --model ./my-llama --generate --text "Once upon a time" --max-new-tokens 20

exit codes: 0 done, 1 failed, 2 bad usage or input, 130 interrupted; what fails writes nothing
"""


class _Parser(argparse.ArgumentParser):
    """Raises instead of printing its usage, so that every bad command line ends in the same one message."""

    def error(self, message: str) -> NoReturn:
        raise UsageError(message, hint=f"see: {self.prog} --help")


def build_parser() -> argparse.ArgumentParser:
    """The parser of `dlb`; every command sets `run`, a function from the arguments to an exit code."""
    parser = _Parser(
        prog="dlb",
        description="Explain a PyTorch model by relevance propagation, with every unit of relevance accounted for.",
        allow_abbrev=False,
    )
    parser.add_argument("--version", action="version", version=f"dlb {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _add_explain(commands)
    plugins = _command(commands, "plugins", "list the packs: loaded, failed with the reason, or off", _plugins)
    plugins.set_defaults(log_level=logging.ERROR)  # the table itself says which packs failed
    ops = _command(commands, "ops", "list the ops that have a row, with its kind and where it is written", _ops)
    ops.add_argument("filter", nargs="?", default="", metavar="TEXT", help="only ops whose name contains this")
    _command(commands, "modes", "list the modes, their options and where they come from", _modes)
    check = _command(
        commands,
        "check",
        "prove the rules of a pack: sums, places, batches, zeros and more",
        _check,
        epilog="exit codes: 0 no rule broke a property, 1 one did, 2 bad usage",
    )
    check.add_argument("pack", metavar="PACK", help="an installed pack (see `dlb plugins`), or a module that is one")
    check.add_argument("filter", nargs="?", default="", metavar="TEXT", help="only ops whose name contains this")
    new_pack = _command(commands, "new-pack", "write the skeleton of a pack: rules, entry point, tests", _new_pack)
    new_pack.add_argument("name", metavar="NAME", help="of the distribution, e.g. my-ops; the package is my_ops")
    new_pack.add_argument("--out", metavar="DIR", help="where to; must not exist (default: NAME)")
    return parser


def _command(commands: Any, name: str, summary: str, run: Any, **more: Any) -> argparse.ArgumentParser:
    description = summary[0].upper() + summary[1:] + "."
    parser: argparse.ArgumentParser = commands.add_parser(
        name, help=summary, description=description, allow_abbrev=False, **more
    )
    parser.add_argument("--json", action="store_true", help="print one JSON document instead of tables")
    parser.add_argument("-v", "--verbose", action="store_true", help="say on stderr what is being done")
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.set_defaults(run=run, log_level=logging.WARNING)
    return parser


def _add_explain(commands: Any) -> None:
    parser = _command(
        commands,
        "explain",
        "explain one prediction: where every unit of relevance went",
        _explain,
        epilog=EXPLAIN_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "model",
        nargs="?",
        metavar="MODEL",
        help="module:factory or path/to/file.py:factory (a function that returns the model, or the model itself), "
        "or an exported program file.pt2",
    )
    parser.add_argument("--trust", action="store_true", help="load a .pt2 file, which can run code")
    parser.add_argument(
        "--device",
        default="auto",
        help="cpu, cuda, cuda:1, ... (default: where the model is; with --model a GPU if there is one)",
    )
    parser.add_argument(
        "--tracer", choices=TRACERS, default="auto", help="how the model is traced (default: export, else the tape)"
    )
    parser.add_argument("--output", metavar="NAME", help="which output to explain, by name or number")

    named = parser.add_argument_group("a model by its name, instead of MODEL")
    named.add_argument(
        "--model",
        dest="name",
        metavar="NAME",
        help="a folder that save_pretrained wrote, a short name (bert-base, vit, gpt2, ...) or a hub id (owner/name)",
    )
    named.add_argument(
        "--text", metavar="TEXT", help="classify it, and show which words decided; a prompt, to --generate"
    )
    named.add_argument("--image", metavar="FILE", help="classify it, and show which pixels decided")
    named.add_argument("--generate", action="store_true", help="write on after --text, and explain each token")
    named.add_argument(
        "--max-new-tokens", type=int, metavar="N", help=f"how many tokens to write (default: {NEW_TOKENS})"
    )

    data = parser.add_argument_group("inputs of MODEL")
    data.add_argument(
        "--input",
        dest="inputs",
        action="append",
        default=[],
        metavar="[NAME=]FILE",
        help=".npy, .safetensors (several tensors: their names are the input names) or an image, batch dimension "
        "included; once per input, in the order of the model's arguments or by name",
    )
    data.add_argument("--channels", choices=("L", "RGB"), help="read images as grey or colour (default: as they are)")
    data.add_argument("--resize", metavar="HxW", help="resize images, e.g. 224x224")
    data.add_argument("--mean", metavar="M[,M,M]", help="subtract from image values (0..1), per channel")
    data.add_argument("--classes", metavar="FILE", help="names of the classes: a line each, or JSON")
    data.add_argument("--std", metavar="S[,S,S]", help="then divide by this, per channel")

    how = parser.add_argument_group("what to explain, and how")
    how.add_argument(
        "--mode",
        default="default",
        help="see `dlb modes`; auto: what suits the model; FILE.json: a composite (default: %(default)s)",
    )
    how.add_argument(
        "--option", dest="options", action="append", default=[], metavar="KEY=VALUE", help="an option of the mode"
    )
    how.add_argument(
        "--target",
        dest="targets",
        action="append",
        metavar="T",
        help="a class (with --model also its label), or position,class; repeated: one per sample (default: what the "
        "task means)",
    )
    how.add_argument("--task", default="auto", metavar="TASK", help=", ".join(TASKS))
    how.add_argument(
        "--multiplier", type=float, default=100.0, metavar="UNITS", help="units at the output (default: %(default)g)"
    )
    how.add_argument("--bias", choices=BIAS_POLICIES, help="what biases do with their share (default: the mode's)")
    how.add_argument("--seed", choices=SEEDS, default="multiplier", help="units from --multiplier, or the output's own")

    result = parser.add_argument_group("result")
    result.add_argument("--out", default="dlb-explanation", metavar="DIR", help="where to (default: %(default)s)")
    result.add_argument(
        "--report",
        nargs="?",
        const="",
        metavar="FILE",
        help="write a page to look at: inputs, ledger, layers, graph; report.html in --out DIR, or FILE",
    )
    result.add_argument(
        "--beside",
        action="append",
        default=[],
        metavar="MODE",
        help="a further mode, side by side in the report; may be repeated",
    )
    result.add_argument(
        "--top", type=int, default=10, metavar="N", help="strongest inputs (or words) to show (default: 10)"
    )
    result.add_argument(
        "--plan", action="store_true", help="show which rule will run at which node, and stop before running"
    )


def _explain(args: argparse.Namespace) -> int:
    check_way(args)
    if args.name is not None:
        from dlb_core.cli.named import explain_named

        return explain_named(args)
    from dlb_core.cli.explain import explain

    return explain(args)


def _plugins(args: argparse.Namespace) -> int:
    from dlb_core.cli.listings import plugins

    return plugins(args)


def _ops(args: argparse.Namespace) -> int:
    from dlb_core.cli.listings import ops

    return ops(args)


def _modes(args: argparse.Namespace) -> int:
    from dlb_core.cli.listings import modes

    return modes(args)


def _check(args: argparse.Namespace) -> int:
    from dlb_core.cli.check import check

    return check(args)


def _new_pack(args: argparse.Namespace) -> int:
    from dlb_core.cli.new_pack import new_pack

    return new_pack(args)
