"""A registry of chosen packs for the length of a test."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib import metadata
from types import ModuleType

from dlb_core.kernel import packs
from dlb_core.kernel.kinds import Row
from dlb_core.kernel.registry import Registry


@contextmanager
def isolated_registry(*chosen: str | ModuleType, rows: Iterable[Row] = ()) -> Iterator[Registry]:
    """Everything in this block sees only these packs and rows; what was there before comes back after it.

    chosen: names of installed packs (``"builtin"`` brings the modes), or pack modules, installed or not. rows: more
    rows; one for an op that a pack has as well replaces it. Raises `PackError` where a pack is broken, unknown or
    clashes. As a pytest fixture::

        @pytest.fixture
        def registry():
            with isolated_registry("builtin", my_pack) as registry:
                yield registry
    """
    with packs.using(only(*chosen).extended(rows)) as registry:
        yield registry


def only(*chosen: str | ModuleType) -> Registry:
    """A registry of these packs alone; raises `PackError` where one is broken, unknown or clashes."""
    installed = {entry.name: entry for entry in metadata.entry_points(group=packs.GROUP)}
    names = {each if isinstance(each, str) else each.__name__ for each in chosen}
    for each in chosen:
        if isinstance(each, ModuleType):
            installed[each.__name__] = metadata.EntryPoint(each.__name__, each.__name__, packs.GROUP)
    return packs.load_registry(installed.values(), switch=",".join(sorted(names)) or "none", strict=True)
