"""Packs for tests: a module and its metadata on the path, found the way an installed one is."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from textwrap import dedent

import pytest

from dlb_core.kernel import packs
from dlb_core.kernel.registry import Pack, Registry

HEAD = """
from dlb_core.rules import *
from dlb_core.rules import hookimpl
DLB_API = 1
"""
RULES = """
@hookimpl
def dlb_rules(): return RULES
"""


class Site:
    """A folder on `sys.path` that packs are put into; nothing of them is left when the test is over."""

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.modules: list[str] = []
        patch.syspath_prepend(str(folder))
        patch.delenv("DLB_PACKS", raising=False)
        packs._registry.cache_clear()

    def add(self, name: str, body: str, *, module: str | None = None, whole: bool = False) -> None:
        """A pack of that name: the common head, then `body` (`whole`: the body is all of the module)."""
        module = module or f"fake_pack_{name}"
        source = dedent(body) if whole else HEAD + dedent(body)
        (self.folder / f"{module}.py").write_text(source)
        info = self.folder / f"{module}-1.5.dist-info"
        info.mkdir()
        (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {module.replace('_', '-')}\nVersion: 1.5\n")
        (info / "entry_points.txt").write_text(f"[{packs.GROUP}]\n{name} = {module}\n")
        self.modules.append(module)
        packs._registry.cache_clear()

    def add_rules(self, name: str, rules: str) -> None:
        """A pack whose rows are the given list."""
        self.add(name, f"RULES = {dedent(rules).strip()}\n{RULES}")

    def registry(self, *, strict: bool = False) -> Registry:
        return packs.registry(strict=strict)

    def pack(self, name: str) -> Pack:
        """What became of the pack of that name."""
        found = [pack for pack in self.registry().packs if pack.name == name]
        assert len(found) == 1, [pack.name for pack in self.registry().packs]
        return found[0]

    def leave(self) -> None:
        for module in self.modules:
            sys.modules.pop(module, None)
        packs._registry.cache_clear()


@contextmanager
def site(folder: Path, patch: pytest.MonkeyPatch) -> Iterator[Site]:
    """A `Site` for one test."""
    made = Site(folder, patch)
    try:
        yield made
    finally:
        made.leave()
