"""The two ways to say what is explained: code and files (MODEL, --input), or a name and a text or image (--model)."""

from __future__ import annotations

import argparse
from typing import Any

from dlb_core.cli.failure import UsageError

NEW_TOKENS = 20
HINT = "see: dlb explain --help"

#: the options that belong to one way alone, by their attribute
OF_CODE = {
    "model": "MODEL",
    "inputs": "--input",
    "trust": "--trust",
    "tracer": "--tracer",
    "output": "--output",
    "channels": "--channels",
    "resize": "--resize",
    "mean": "--mean",
    "std": "--std",
    "classes": "--classes",
    "task": "--task",
    "plan": "--plan",
}
OF_NAME = {
    "text": "--text",
    "image": "--image",
    "generate": "--generate",
    "max_new_tokens": "--max-new-tokens",
}
UNSAID: tuple[Any, ...] = (None, False, [], "auto")


def check_way(args: argparse.Namespace) -> None:
    """Raises `UsageError` for a mixture of the two ways, or half of one."""
    if args.name is None:
        if args.model is None:
            raise UsageError("the following arguments are required: MODEL (or --model NAME)", HINT)
        _refuse(args, OF_NAME, "goes with --model NAME, not with MODEL")
        return
    _refuse(args, OF_CODE, "does not go with --model NAME")
    if args.generate:
        if args.text is None:
            raise UsageError("--generate writes on after a prompt: give it with --text", HINT)
        _refuse(args, {"image": "--image", "targets": "--target", "beside": "--beside"}, "does not go with --generate")
        if args.max_new_tokens is not None and args.max_new_tokens < 1:
            raise UsageError(f"--max-new-tokens {args.max_new_tokens}: must be at least 1")
        return
    _refuse(args, {"max_new_tokens": "--max-new-tokens"}, "goes with --generate")
    if (args.text is None) == (args.image is None):
        raise UsageError("--model NAME explains what it says of one thing: give --text TEXT or --image FILE", HINT)


def _refuse(args: argparse.Namespace, options: dict[str, str], why: str) -> None:
    said = [option for name, option in options.items() if getattr(args, name) not in UNSAID]
    if said:
        raise UsageError(f"{said[0]} {why}", HINT)
