"""`--all-models` runs the whole matrix (it is an option of all tests), `--document PATH` writes what was measured."""

from __future__ import annotations

from pathlib import Path

import pytest

from .document import write

LINES = pytest.StashKey[list[dict[str, object]]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("models")
    group.addoption("--document", type=Path, default=None, help="where the table of models is written")


class Collector:
    """Reads the measurements off the reports, which arrive from every worker process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lines: list[dict[str, object]] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when == "call":
            self.lines += [value for key, value in report.user_properties if key == "measured"]

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self) -> None:
        write(self.path, self.lines)


def pytest_configure(config: pytest.Config) -> None:
    path = config.getoption("--document", None)
    if path is not None and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Collector(path))


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "entry" not in metafunc.fixturenames:
        return
    from .models import ENTRIES

    every = metafunc.config.getoption("--all-models", False)
    chosen = [entry for entry in ENTRIES.values() if every or entry.fast]
    metafunc.parametrize("entry", chosen, ids=[entry.name for entry in chosen])
