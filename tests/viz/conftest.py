"""What the tests of pictures share."""

from collections.abc import Iterator
from typing import Any

import pytest

from viz.browser import missing, started


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Chromium without a window; the test is skipped, with the reason, where there is none."""
    if why := missing():
        pytest.skip(why)
    with started() as driver:
        yield driver
