"""Every rule of a pack, with the cases that it brings as ``DLB_CASES``."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from typing import Any

from dlb_core.errors import PackError
from dlb_core.kernel.packs import GROUP, load_registry
from dlb_core.kernel.registry import Registry
from dlb_core.testing.case import Case
from dlb_core.testing.check import examine
from dlb_core.testing.report import Report


@dataclass(frozen=True)
class PackUnderTest:
    """A pack with the registry in which its rules are checked."""

    name: str
    registry: Registry
    cases: tuple[Case, ...]

    def reports(self, text: str = "") -> Iterator[Report]:
        """A report on each of its rows whose op contains `text`; one row per kind is compiled as well."""
        compiled: set[str] = set()
        for op in sorted(self.registry.rows):
            for row in self.registry.rows[op]:
                if row.pack != self.name or text.lower() not in op.lower():
                    continue
                shared = row.kind in compiled and row.kind != "rule"
                report = examine(
                    row, cases=self.cases, registry=self.registry, leave_out=("compile",) if shared else ()
                )
                if "compile" in report.passed:
                    compiled.add(row.kind)
                yield report


def find_pack(name: str) -> PackUnderTest:
    """An installed pack by its name, or a module that need not be installed, beside the packs that are.

    The module's ``DLB_CASES`` is a list of `Case`, or a function that returns one, for ops whose arguments cannot be
    guessed and for layers. Raises LookupError where there is no such pack, `PackError` where it is broken or off.
    """
    entries = sorted(metadata.entry_points(group=GROUP), key=lambda entry: entry.name)
    entry = next((e for e in entries if name in (e.name, e.value)), None)
    if entry is None:
        entry = metadata.EntryPoint(name, name, GROUP)
        entries.append(entry)
        if not _exists(name):
            known = ", ".join(e.name for e in entries[:-1]) or "none"
            raise LookupError(f"no pack and no module is called {name!r}; the installed packs are: {known}")
    registry = load_registry(entries, switch=os.environ.get("DLB_PACKS", ""))
    pack = next(p for p in registry.packs if p.name == entry.name)
    if pack.status != "loaded":
        why = pack.reason or "it is switched off by DLB_PACKS"
        raise PackError(f"pack {pack.name} is {pack.status}: {why}")
    return PackUnderTest(pack.name, registry, _cases(entry))


def _exists(module: str) -> bool:
    """Can the module be found? What is wrong inside of it is for the loader to say."""
    from importlib.util import find_spec

    try:
        return find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _cases(entry: metadata.EntryPoint) -> tuple[Case, ...]:
    brought: Any = getattr(entry.load(), "DLB_CASES", ())
    cases = list(brought() if callable(brought) else brought)
    if wrong := [case for case in cases if not isinstance(case, Case)]:
        raise PackError(f"DLB_CASES of pack {entry.name} holds {wrong[0]!r}, which is no Case of dlb_core.testing")
    return tuple(cases)
