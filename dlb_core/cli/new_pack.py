"""`dlb new-pack`: a folder with a complete pack to start from."""

from __future__ import annotations

import argparse
import keyword
import re
import sys
from pathlib import Path

from dlb_core.cli.failure import UsageError
from dlb_core.cli.screen import heading, print_json, screen
from dlb_core.cli.skeleton import FILES

NAME = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?")
TAKEN = frozenset({"dlb", "dlb_core", "dlb_ops_builtin", "builtin", "torch", "tests"}) | sys.stdlib_module_names


def new_pack(args: argparse.Namespace) -> int:
    """Writes the skeleton and says what to do next."""
    distribution, package = names(args.name)
    folder = Path(args.out if args.out is not None else distribution)
    if folder.exists():
        raise UsageError(f"{folder} exists already: choose another name, or another folder with --out")
    written = []
    for path, content in FILES.items():
        target = folder / path.replace("PACKAGE", package)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content.replace("DISTRIBUTION", distribution).replace("PACKAGE", package), encoding="utf-8")
        written.append(str(target))
    steps = [f"cd {folder}", "pip install -e '.[test]'", "pytest", f"dlb check {package}", "dlb plugins"]
    if args.json:
        print_json({"pack": package, "files": written, "next": steps})
        return 0
    console = screen()
    console.print(heading(f"wrote {len(written)} files", f"the pack {package} in {folder}"))
    for line in (*(f"  {path}" for path in written), "", "next:", *(f"  {step}" for step in steps)):
        console.print(line)
    return 0


def names(name: str) -> tuple[str, str]:
    """The distribution's name, normalised, and the package's; a name that can be neither is a `UsageError`."""
    if not NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} is no name for a distribution: use letters, digits and single -, _ or . between them",
            hint="for example: dlb new-pack my-ops",
        )
    distribution = re.sub(r"[-_.]+", "-", name).lower()
    package = distribution.replace("-", "_")
    if not package.isidentifier() or keyword.iskeyword(package):
        raise UsageError(f"{name!r} gives the package {package!r}, which Python cannot import: begin with a letter")
    if package in TAKEN:
        raise UsageError(f"{name!r} gives the package {package!r}, which exists: choose another name")
    return distribution, package
