"""Every model of the matrix holds what every explanation must hold; an unsupported one fails, with its reason."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict

import pytest

from dlb_core import TraceError, UnsupportedOpError

from .check import measure
from .entry import Entry


def test_every_invariant_holds(
    entry: Entry, request: pytest.FixtureRequest, record_property: Callable[[str, object], None]
) -> None:
    if entry.unsupported:
        with pytest.raises((TraceError, UnsupportedOpError)):
            measure(entry)
        record_property("measured", {"model": entry.name, "family": entry.family, "unsupported": entry.unsupported})
        return
    found = measure(entry)
    record_property("measured", asdict(found))
    assert not found.failures, "\n".join(found.failures)
