"""A bar or a line on a terminal, nothing anywhere else."""

from __future__ import annotations

import io
import logging

import pytest

from dlb_core.progress import progress, stages


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_terminal_sees_how_far_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
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


def test_a_terminal_sees_the_stage_and_what_is_done_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")
    with stages() as stage:
        stage("loading [red]x\x1b[31m")
        with progress(4, "explaining tokens") as told:
            assert told is not None
            told(3)
    shown = screen.getvalue()
    assert "loading [red]x\\x1b[31m" in shown  # what it is called does not steer the terminal
    assert "explaining tokens: 3 of 4" in shown
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l")  # the cursor is back


def test_an_interrupt_leaves_the_terminal_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    screen = Terminal()
    monkeypatch.setattr("sys.stderr", screen)
    monkeypatch.setenv("TERM", "xterm-256color")

    def work() -> None:
        with stages() as stage:
            stage("tracing")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert screen.getvalue().endswith(("\x1b[2K", "\x1b[?25h"))
    assert screen.getvalue().rindex("\x1b[?25h") > screen.getvalue().rindex("tracing")
    monkeypatch.undo()
    with progress(1, "nothing") as told:
        assert told is None  # the stage is over


def test_a_log_hears_of_stages_wherever_they_are(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("sys.stderr", io.StringIO())
    with caplog.at_level(logging.INFO, "dlb"), stages() as stage:
        stage("tracing")
    assert caplog.messages == ["tracing"]
