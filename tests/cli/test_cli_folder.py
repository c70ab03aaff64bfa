"""The result folder: whole or not there, and never in place of somebody else's files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from dlb_core import Explanation
from dlb_core.kernel.settle import TOLERANCE

EXPLAIN = ("explain", "model.py:load", "--input", "grey.png", "--out", "a/b/result")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def fail_half_way(self, folder):
    Path(folder).mkdir(exist_ok=True)
    (Path(folder) / "explanation.json").write_text("{")
    raise OSError(28, "No space left on device", "explanation.json")


def fail_to_paint(*args, **kwargs):
    raise RuntimeError("no paint")


def interrupt(*args, **kwargs):
    raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("where", "how", "code", "said"),
    [
        ("dlb_core.explanation.Explanation.save", fail_half_way, 1, "explanation.json: No space left on device"),
        ("dlb_core.viz.heatmap.heatmap", fail_to_paint, 1, "RuntimeError: no paint"),
        ("dlb_core.viz.heatmap.heatmap", interrupt, 130, "interrupted"),
        ("dlb_core.backtrace.DLBacktrace.explain", interrupt, 130, "interrupted"),
        ("pathlib.Path.rename", interrupt, 130, "interrupted"),
    ],
)
def test_nothing_partial_is_left(dlb, place, monkeypatch, where, how, code, said):
    before = place.entries()
    with monkeypatch.context() as patch:
        patch.setattr(where, how)
        answer = dlb(*EXPLAIN)
    assert answer.code == code
    assert said in answer.err
    assert answer.out == ""
    assert place.entries() == before

    assert dlb(*EXPLAIN).code == 0
    result = place.path / "a/b/result"
    good = snapshot(result)
    with monkeypatch.context() as patch:
        patch.setattr(where, how)
        assert dlb(*EXPLAIN, "--target", "3").code == code
    assert snapshot(result) == good
    assert [p.name for p in result.parent.iterdir()] == ["result"]


def test_relevance_that_is_lost_leaves_nothing(dlb, place, monkeypatch):
    monkeypatch.setitem(TOLERANCE, torch.float32, -1.0)
    before = place.entries()
    answer = dlb(*EXPLAIN)
    assert answer.code == 1
    assert "relevance is not conserved at node" in answer.err
    assert place.entries() == before


@pytest.mark.parametrize(
    "content",
    [
        {"notes.txt": "mine"},
        {"explanation.json": json.dumps({"format": "something else"})},
        {"explanation.json": json.dumps({"format": "dlb-explanation"}), "notes.txt": "mine"},
        {"heatmap-x.png": "mine"},
    ],
    ids=lambda content: "+".join(content),
)
def test_a_folder_of_somebody_else_stays(dlb, place, monkeypatch, content):
    (place.path / "theirs").mkdir()
    for name, text in content.items():
        (place.path / "theirs" / name).write_text(text)
    monkeypatch.setattr("dlb_core.cli.explain.load_model", lambda *a, **k: pytest.fail("too late"))
    before = snapshot(place.path / "theirs")
    answer = dlb("explain", "model.py:load", "--input", "grey.png", "--out", "theirs")
    assert answer.code == 2
    assert "choose another folder" in answer.err
    assert snapshot(place.path / "theirs") == before


def test_an_empty_folder_and_a_link_to_one_are_used(dlb, place):
    (place.path / "real").mkdir()
    (place.path / "link").symlink_to("real")
    assert dlb("explain", "model.py:load", "--input", "grey.png", "--out", "link").code == 0
    assert (place.path / "link").is_symlink()
    assert Explanation.load("real").mode == "default"


def test_ctrl_c_ends_with_130(place):
    (place.path / "slow.py").write_text(
        "import pathlib, time\n\ndef load():\n    pathlib.Path('ready').touch()\n    time.sleep(60)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "dlb_core.cli", "explain", "slow.py:load", "--input", "grey.png"],
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell's background jobs ignore it
    )
    deadline = time.monotonic() + 60
    while not os.path.exists("ready") and time.monotonic() < deadline:
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert err == "dlb: interrupted\n"
    assert not (place.path / "dlb-explanation").exists()
