"""Packs: found through entry points, loaded one by one, a broken one reported and left out."""

from __future__ import annotations

import dataclasses
import logging
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from functools import lru_cache
from importlib import metadata
from typing import Any

import pluggy

from dlb_core.errors import PackError
from dlb_core.kernel.composites import Composite
from dlb_core.kernel.kinds import Row
from dlb_core.kernel.modes import Mode
from dlb_core.kernel.registry import Lend, Pack, Registry, clashes

log = logging.getLogger("dlb")

API = 1
GROUP = "dlb.packs"
PROJECT = "dlb"
HOME = "dlb-core"  # the distribution whose packs are the reference: a rival of theirs is the one that fails

hookspec = pluggy.HookspecMarker(PROJECT)
hookimpl = pluggy.HookimplMarker(PROJECT)


class Hooks:
    """What a pack may bring; each hook returns a list."""

    @hookspec
    def dlb_rules(self) -> list[Row]:  # type: ignore[empty-body]
        """Rows for ops."""

    @hookspec
    def dlb_layer_rules(self) -> list[Row]:  # type: ignore[empty-body]
        """Rows for module classes, made by `layer_rule`."""

    @hookspec
    def dlb_modes(self) -> list[Mode | Composite]:  # type: ignore[empty-body]
        """Modes."""

    @hookspec
    def dlb_passes(self) -> list[Any]:  # type: ignore[empty-body]
        """Graph passes."""

    @hookspec
    def dlb_tracing(self) -> list[Lend]:  # type: ignore[empty-body]
        """What stands in while torch.export traces a model: functions of the model that give a context manager. What
        it changes it puts back; what it cannot take it refuses with a `TraceError`.
        """


HOOKS = tuple(name for name in vars(Hooks) if name.startswith("dlb_"))


@dataclasses.dataclass
class _Found:
    """One entry point on its way into the registry."""

    pack: Pack
    home: bool = False
    rows: list[Row] = dataclasses.field(default_factory=list)
    modes: list[Mode | Composite] = dataclasses.field(default_factory=list)
    passes: list[Any] = dataclasses.field(default_factory=list)
    lends: list[Lend] = dataclasses.field(default_factory=list)

    def fail(self, reason: str) -> None:
        self.pack = dataclasses.replace(self.pack, status="failed", reason=reason)
        self.rows, self.modes, self.passes, self.lends = [], [], [], []


def selection(names: Iterable[str], switch: str) -> set[str]:
    """The packs that `DLB_PACKS` leaves on: ``none``, names to load, or names to leave out as ``-name``."""
    known = set(names)
    wanted = [part.strip() for part in switch.split(",") if part.strip()]
    if wanted == ["none"]:
        return set()
    if unknown := sorted({part.lstrip("-") for part in wanted} - known - {"none"}):
        raise PackError(f"DLB_PACKS names {', '.join(unknown)}: no such pack; there are: {', '.join(sorted(known))}")
    only = {part for part in wanted if not part.startswith("-")}
    return (only or known) - {part[1:] for part in wanted if part.startswith("-")}


def _load(entry: metadata.EntryPoint) -> _Found:
    dist = entry.dist
    version = dist.version if dist else "?"
    origin = f"{dist.name if dist else '?'} ({entry.value})"
    found = _Found(Pack(entry.name, version, origin, "loaded"), home=bool(dist and dist.name == HOME))
    try:
        module = entry.load()
        _collect(found, module)
    except (Exception, SystemExit) as error:  # noqa: BLE001 - a third party's code: whatever it raises, the others go on
        found.fail(f"{type(error).__name__}: {error}")
    return found


def _collect(found: _Found, module: Any) -> None:
    api = getattr(module, "DLB_API", None)
    if api != API:
        raise PackError(
            f"DLB_API is {api!r}; this version of dlb speaks {API}: set DLB_API = {API} in the pack's module"
        )
    manager = pluggy.PluginManager(PROJECT)
    manager.add_hookspecs(Hooks)
    manager.register(module)
    misspelled = [n for n in vars(module) if n.startswith("dlb_") and callable(getattr(module, n)) and n not in HOOKS]
    marked = [n for n, f in vars(module).items() if getattr(f, f"{PROJECT}_impl", None) and n not in HOOKS]
    if bad := sorted({*misspelled, *marked}):
        raise PackError(f"unknown hook {', '.join(bad)}; the hooks are: {', '.join(HOOKS)}")
    unmarked = [n for n in HOOKS if callable(f := getattr(module, n, None)) and not hasattr(f, f"{PROJECT}_impl")]
    if unmarked:
        raise PackError(
            f"{', '.join(unmarked)} is not marked as a hook: decorate it with @hookimpl from dlb_core.rules"
        )
    name = found.pack.name
    for rows in (*manager.hook.dlb_rules(), *manager.hook.dlb_layer_rules()):
        for row in rows:
            if not isinstance(row, Row):
                raise PackError(f"dlb_rules returned {row!r}, which is no row; build rows with dlb_core.rules")
            found.rows.append(dataclasses.replace(row, pack=name))
    for modes in manager.hook.dlb_modes():
        for mode in modes:
            if not isinstance(mode, (Mode, Composite)):
                raise PackError(f"dlb_modes returned {mode!r}, which is no Mode or Composite of dlb_core.rules")
            found.modes.append(dataclasses.replace(mode, pack=name))
    for passes in manager.hook.dlb_passes():
        for graph_pass in passes:
            if missing := [n for n in ("name", "order", "phase", "switch", "run") if not hasattr(graph_pass, n)]:
                raise PackError(f"dlb_passes returned {graph_pass!r}, which lacks {', '.join(missing)}")
            found.passes.append(graph_pass)
    for lends in manager.hook.dlb_tracing():
        for lend in lends:
            if not callable(lend):
                raise PackError(f"dlb_tracing returned {lend!r}, which is no function of a model")
            found.lends.append(lend)


def load_registry(entries: Iterable[metadata.EntryPoint], *, switch: str = "", strict: bool = False) -> Registry:
    """A registry from entry points; `strict=True` raises `PackError` at the first broken pack."""
    entries = sorted(entries, key=lambda e: e.name)
    on = selection([e.name for e in entries], switch)
    founds = [
        _load(e) if e.name in on else _Found(Pack(e.name, e.dist.version if e.dist else "?", e.value, "off"))
        for e in entries
    ]
    for found in founds:
        if sum(other.pack.name == found.pack.name for other in founds) > 1 and not found.home:
            found.fail(f"several packs are called {found.pack.name!r}: rename the entry point of all but one")
    names = {e.name for e in entries}
    for found in founds:
        if lost := sorted({str(row.replaces) for row in found.rows if row.replaces not in (None, *names)}):
            found.fail(
                f"says replaces={', '.join(map(repr, lost))}: no such pack; there are: {', '.join(sorted(names))}"
            )
    complaints = clashes({f.pack.name: f.rows for f in founds if f.pack.status == "loaded"})
    taken: dict[str, list[_Found]] = {}
    for found in founds:
        for mode in found.modes:
            taken.setdefault(mode.name, []).append(found)
    for name, rivals in taken.items():
        for found in rivals if len(rivals) > 1 else ():
            complaints.setdefault(found.pack.name, []).append(f"mode {name!r} is brought by several packs")
    registry = Registry()
    for found in sorted(founds, key=lambda f: (not f.home, f.pack.name)):
        if found.pack.name in complaints and not found.home:
            found.fail("; ".join(complaints[found.pack.name]))
        if found.pack.status == "failed":
            log.warning("pack %s left out: %s", found.pack.name, found.pack.reason)
            if strict:
                raise PackError(f"pack {found.pack.name}: {found.pack.reason}")
        counts: dict[str, Any] = {"n_rows": len(found.rows), "n_modes": len(found.modes), "n_passes": len(found.passes)}
        registry.packs.append(dataclasses.replace(found.pack, **counts))
        registry.add_rows(found.rows)
        registry.modes |= {mode.name: mode for mode in found.modes}
        registry.passes += found.passes
        registry.lends += found.lends
    registry.passes.sort(key=lambda p: p.order)
    return registry


_instead: ContextVar[Registry | None] = ContextVar("dlb_registry", default=None)


@contextmanager
def using(registry: Registry) -> Iterator[Registry]:
    """In this block and this context (thread, task) the environment's registry is another one."""
    token = _instead.set(registry)
    try:
        yield registry
    finally:
        _instead.reset(token)


def registry(*, strict: bool = False) -> Registry:
    """The registry of this environment, built at the first use and kept for each value of `DLB_PACKS`."""
    return _instead.get() or _registry(os.environ.get("DLB_PACKS", ""), strict)


@lru_cache(maxsize=8)
def _registry(switch: str, strict: bool) -> Registry:
    return load_registry(metadata.entry_points(group=GROUP), switch=switch, strict=strict)
