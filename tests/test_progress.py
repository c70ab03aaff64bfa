"""A bar on a terminal, nothing anywhere else."""

from __future__ import annotations

import io

import pytest

from dlb_core.progress import progress


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    with progress(4, "explaining tokens") as told:
        assert told is not None
        told(1)
        told(3)
    assert "explaining tokens" in screen.getvalue()
    assert "100%" in screen.getvalue()


def test_a_pipe_sees_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    pipe = io.StringIO()
    monkeypatch.setattr("sys.stderr", pipe)
    with progress(4, "explaining tokens") as told:
        assert told is None
    assert pipe.getvalue() == ""
