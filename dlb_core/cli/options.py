"""Values of the command line that have a grammar of their own: --option, --mode and --target."""

from __future__ import annotations

import argparse
import ast
import json
from pathlib import Path
from typing import Any

from dlb_core.choices import AUTO
from dlb_core.cli.failure import UsageError
from dlb_core.kernel.composites import Composite
from dlb_core.kernel.packs import registry

WORDS = {"none": None, "null": None, "true": True, "false": False}


def settled_mode(args: argparse.Namespace) -> tuple[str | Composite, dict[str, Any]]:
    """The mode and its options, `bias` among them; refused here, before a large model is loaded and traced in vain."""
    mode, options = chosen_mode(args.mode), mode_options(args)
    if args.bias is not None:
        options["bias"] = args.bias
    if mode != AUTO:  # which goes by the model
        registry().bind(mode, **options)
    return mode, options


def mode_options(args: argparse.Namespace) -> dict[str, Any]:
    """``--option key=value ...`` as a dictionary: numbers, true, false, none, else text. Raises `UsageError`."""
    options: dict[str, Any] = {}
    for text in args.options:
        key, sign, value = text.partition("=")
        if not sign or not key.isidentifier():
            raise UsageError(f"--option {text}: give KEY=VALUE, e.g. eps=1e-4; `dlb modes` lists the keys")
        if key in options or (key == "bias" and args.bias):
            raise UsageError(f"--option {text}: {key} is given twice")
        options[key] = _value(value)
    return options


def chosen_mode(word: str, option: str = "--mode") -> str | Composite:
    """``--mode epsilon``, or ``--mode mine.json``: a composite as data. Raises `UsageError`."""
    if not word.endswith(".json"):
        return word
    try:
        return Composite.from_dict(json.loads(Path(word).read_text("utf-8")))
    except OSError as error:
        raise UsageError(f"{option} {word}: {error.strerror or error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"{option} {word} is no JSON: {error}") from None


def target(texts: list[str] | None) -> int | tuple[int, ...] | list[Any] | None:
    """``--target 3`` is a class, ``--target 4,3`` a position and a class; several are one per sample."""
    if texts is None:
        return None
    parts = [_index(text) for text in texts]
    return parts[0] if len(parts) == 1 else parts


def class_list(file: str | None) -> Any:
    """``--classes FILE``: names in their order, a line each or a JSON list, or a JSON object number -> name."""
    if file is None:
        return None
    try:
        text = Path(file).read_text("utf-8")
        if not file.endswith(".json"):
            return tuple(text.splitlines())
        found = json.loads(text)
        return {int(number): str(name) for number, name in found.items()} if isinstance(found, dict) else _texts(found)
    except OSError as error:
        raise UsageError(f"--classes {file}: {error.strerror or error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise UsageError(f"--classes {file} cannot be read: {error}") from None
    except (TypeError, ValueError):
        raise UsageError(f"--classes {file}: give a list of names, or an object from number to name") from None


def _texts(found: Any) -> tuple[str, ...]:
    if not isinstance(found, list):
        raise TypeError
    return tuple(map(str, found))


def _index(text: str) -> int | tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--target {text}: give a class (3) or a position and a class (4,3)") from None
    return numbers[0] if len(numbers) == 1 else numbers


def _value(text: str) -> Any:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        value = ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
    return value if isinstance(value, (int, float)) else text
