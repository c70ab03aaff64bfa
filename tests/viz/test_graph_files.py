"""Drawings as files: by `dot`, by pygraphviz, or as source with word of how to go on; all of a file or nothing."""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import pytest

from dlb_core import DrawingError
from dlb_core.folder import new_file
from dlb_core.viz.graph import render
from dlb_core.viz.graph.drawing import Drawing
from viz.graphs import evaluated

SOURCE = "digraph {\n\ta -> b\n}\n"
drawn = pytest.mark.skipif(importlib.util.find_spec("pygraphviz") is None, reason="pygraphviz is not installed")


@pytest.fixture
def nothing_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither `dot` nor pygraphviz."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setitem(sys.modules, "pygraphviz", None)


def program(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A `dot` on PATH that does what the script says."""
    dot = folder / "bin" / "dot"
    dot.parent.mkdir()
    dot.write_text(f"#!/bin/sh\n{script}\n")
    dot.chmod(0o755)
    monkeypatch.setenv("PATH", str(dot.parent))


@drawn
@pytest.mark.parametrize(("suffix", "start"), [(".png", b"\x89PNG"), (".svg", b"<?xml"), (".PDF", b"%PDF")])
def test_pygraphviz_draws_where_dot_is_missing(
    suffix: str, start: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.chdir(tmp_path)
    written = Drawing(SOURCE).save(f"graph{suffix}")
    assert written.read_bytes().startswith(start)
    assert [path.name for path in tmp_path.iterdir()] == [f"graph{suffix}"]


@drawn
def test_what_lies_in_the_folder_is_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pygraphviz.py").write_text("raise SystemExit('the wrong one')")
    assert render._renderers("svg", [])[-1][0] == "pygraphviz"
    assert Drawing(SOURCE).save("graph.svg").stat().st_size


def test_dot_on_path_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, 'read line; echo "$1 $2 $line"', monkeypatch)
    assert Drawing(SOURCE).save(tmp_path / "graph.svg").read_text() == "-Tsvg  digraph {\n"
    assert Drawing(SOURCE).save(tmp_path / "graph.png").read_text() == "-Tpng -Gdpi=144 digraph {\n"


@drawn
@pytest.mark.parametrize("script", ["echo no such plugin >&2; exit 1", "exit 0"])
def test_a_dot_that_fails_is_replaced(script: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, script, monkeypatch)
    assert Drawing(SOURCE).save(tmp_path / "graph.svg").read_bytes().startswith(b"<?xml")


def test_a_dot_that_hangs_is_given_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "exec /bin/sleep 60", monkeypatch)
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    monkeypatch.setattr(render, "SECONDS", 0.2)
    start = time.monotonic()
    with pytest.raises(DrawingError, match="dot was given up after 0 s"):
        Drawing(SOURCE).save(tmp_path / "graph.svg")
    assert time.monotonic() - start < 30
    assert (tmp_path / "graph.dot").read_text() == SOURCE


def test_what_dot_said_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program(tmp_path, "echo first >&2; echo no such plugin >&2; exit 1", monkeypatch)
    monkeypatch.setitem(sys.modules, "pygraphviz", None)
    with pytest.raises(DrawingError, match=r"graph\.svg was not drawn: dot failed \(no such plugin\)"):
        Drawing(SOURCE).save(tmp_path / "graph.svg")


@pytest.mark.usefixtures("nothing_draws")
def test_with_neither_the_source_is_written_and_the_error_says_how(tmp_path: Path) -> None:
    (tmp_path / "graph.svg").write_text("an older one")
    with pytest.raises(RuntimeError, match="neither Graphviz") as raised:
        evaluated().visualize(tmp_path / "graph.svg")
    told = str(raised.value)
    assert str(tmp_path / "graph.dot") in told
    assert "dot -Tsvg graph.dot -o graph.svg" in told
    assert 'pip install "dlb-core[dot]"' in told
    assert (tmp_path / "graph.dot").read_text() == evaluated().visualize().dot
    assert (tmp_path / "graph.svg").read_text() == "an older one"
    with pytest.raises(DrawingError, match="neither"):
        Drawing(SOURCE)._repr_svg_()


@pytest.mark.usefixtures("nothing_draws")
@pytest.mark.parametrize("suffix", [".dot", ".gv"])
def test_source_needs_nothing(suffix: str, tmp_path: Path) -> None:
    drawing = evaluated().visualize_dlbacktrace(path=tmp_path / f"graph{suffix}")
    assert (tmp_path / f"graph{suffix}").read_text() == drawing.dot
    assert len([*tmp_path.iterdir()]) == 1


def test_an_ending_that_nothing_draws_is_refused_before_any_work(tmp_path: Path) -> None:
    for name in ("graph.jpg", "graph"):
        with pytest.raises(ValueError, match=r"ends in one of \.png, \.svg, \.pdf, \.dot, \.gv"):
            Drawing(SOURCE).save(tmp_path / name)
        with pytest.raises(ValueError, match="ends in one of"):
            evaluated().visualize_dlbacktrace(path=tmp_path / name)
    assert not [*tmp_path.iterdir()]


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "graph.dot"
    path.write_text("old")

    def broken() -> None:
        with new_file(path) as work:
            work.write_text("half")
            raise OSError("full")

    with pytest.raises(OSError, match="full"):
        broken()
    assert path.read_text() == "old"
    with pytest.raises(FileNotFoundError):
        Drawing(SOURCE).save(tmp_path / "missing" / "graph.dot")
    link = tmp_path / "link.dot"
    link.symlink_to(path)
    Drawing(SOURCE).save(link)
    assert link.is_symlink()
    assert path.read_text() == SOURCE
    assert {entry.name for entry in tmp_path.iterdir()} == {"graph.dot", "link.dot"}
