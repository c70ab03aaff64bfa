"""`dlb explain --report`: where the page goes, what stands beside, and that it is there whole or not at all."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import pytest

from dlb_core import Explanation
from dlb_core.cli.options import class_list
from dlb_core.cli.report import Report

EXPLAIN = ("explain", "model.py:load", "--input", "grey.png")
REPORT = "dlb-explanation/report.html"


def test_in_the_result_folder(dlb, place):
    answer = dlb(*EXPLAIN, "--report")
    assert answer.code == 0, answer.err
    assert REPORT in answer.out
    page = (place.path / REPORT).read_text("utf-8")
    assert page.lstrip().lower().startswith("<!doctype html")
    assert "model.py:load" in page
    told = dlb(*EXPLAIN, "--report", "--json").json  # the folder with its report is replaced
    assert told["files"][-1]["path"] == REPORT
    assert dlb(*EXPLAIN).code == 0
    assert not (place.path / REPORT).exists()


def test_in_a_file_outside(dlb, place):
    (place.path / "pages").mkdir()
    (place.path / "pages/it.html").write_text("an earlier one")
    told = dlb(*EXPLAIN, "--report", "pages/it.html", "--json").json
    assert told["files"][-1]["path"] == "pages/it.html"
    assert "an earlier one" not in (place.path / "pages/it.html").read_text("utf-8")
    assert not (place.path / REPORT).exists()
    assert [p.name for p in (place.path / "pages").iterdir()] == ["it.html"]


def test_its_name_in_the_folder_may_be_said():
    asked = argparse.Namespace(report="a/report.html", beside=[], plan=False)
    assert Report.parse(asked, Path("a")).place(Path("a")) == Path("a/report.html")


def test_modes_beside_each_other(dlb, place, monkeypatch):
    given: dict[str, Any] = {}

    def to_html(self: Explanation, path: Path, *, beside: Any = ()) -> None:
        given["modes"] = [self.mode, *(other.mode for other in beside)]
        given["targets"] = [self.target, *(other.target for other in beside)]
        path.write_text("page")

    monkeypatch.setattr(Explanation, "to_html", to_html)
    parts = [{"mode": "gamma", "tag": "convolution"}, {"mode": "epsilon"}]
    (place.path / "mine.json").write_text(json.dumps({"name": "mine", "parts": parts}))
    how = ("--mode", "epsilon", "--option", "eps=1e-3", "--target", "2", "--report")
    answer = dlb(*EXPLAIN, *how, "--beside", "contrastive", "--beside", "mine.json", "-v")
    assert answer.code == 0, answer.err
    assert given == {"modes": ["epsilon", "contrastive", "mine"], "targets": [2] * 3}
    assert "dlb: info: explaining in mode mine [3/3]" in answer.err
    assert Explanation.load("dlb-explanation").options["eps"] == 1e-3


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (("--beside", "epsilon"), "give --report, too"),
        (("--report", "--beside", "magic"), "unknown mode 'magic'"),
        (("--report", "--beside", "nowhere.json"), "--beside nowhere.json: No such file"),
        (("--report", "--plan"), "--plan stops before"),
        (("--report", "grey.png"), "ends in .html"),
        (("--report", "nowhere/it.html"), "there is no folder nowhere"),
        (("--report", "dlb-explanation/sub/it.html"), "lies in the result folder"),
        (("--report", "folder.html"), "is a folder"),
        (("--classes", "nowhere.txt"), "--classes nowhere.txt: No such file"),
        (("--classes", "broken.json"), "cannot be read"),
        (("--classes", "number.json"), "give a list of names"),
    ],
    ids=lambda value: None if isinstance(value, str) else " ".join(value),
)
def test_what_cannot_be_done_is_said_before_the_model_runs(dlb, place, monkeypatch, argv, said):
    (place.path / "folder.html").mkdir()
    (place.path / "broken.json").write_text("{")
    (place.path / "number.json").write_text("3")
    monkeypatch.setattr("dlb_core.cli.explain.load_model", lambda *a, **k: pytest.fail("too late"))
    before = place.entries()
    answer = dlb(*EXPLAIN, *argv)
    assert (answer.code, answer.out) == (2, "")
    assert said in answer.err
    assert place.entries() == before


def no_space(*args: Any, **kwargs: Any) -> None:
    raise OSError(28, "No space left on device", "report.html")


def interrupt(*args: Any, **kwargs: Any) -> None:
    raise KeyboardInterrupt


WRITES, MOVES = "dlb_core.explanation.Explanation.to_html", "pathlib.Path.rename"


def test_all_of_it_or_nothing(dlb, place, monkeypatch):
    def fails(where: str, how: Any, *more: str) -> int:
        with monkeypatch.context() as patch:
            patch.setattr(where, how)
            return dlb(*EXPLAIN, "--report", *more).code

    before = place.entries()
    assert fails(WRITES, no_space) == 1
    assert fails(MOVES, interrupt, "it.html") == 130
    assert place.entries() == before
    assert dlb(*EXPLAIN, "--report", "it.html").code == 0
    good, before = (place.path / "it.html").read_bytes(), place.entries()
    assert fails(WRITES, interrupt, "it.html", "--target", "3") == 130
    assert fails(MOVES, interrupt, "it.html", "--target", "3") == 130
    assert ((place.path / "it.html").read_bytes(), place.entries()) == (good, before)


NAMES = [f"digit {i}" for i in range(9)] + ["<b>nine\x1b[31m"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("names.txt", "\n".join(NAMES) + "\n"),
        ("list.json", json.dumps(NAMES)),
        ("map.json", json.dumps(dict(enumerate(NAMES)))),
    ],
)
def test_files_of_classes(tmp_path, name, text):
    (tmp_path / name).write_text(text)
    found = class_list(str(tmp_path / name))
    assert [*(found.values() if isinstance(found, dict) else found)] == NAMES


def test_classes_have_names(dlb, place):
    (place.path / "map.json").write_text(json.dumps(dict(enumerate(NAMES))))
    answer = dlb(*EXPLAIN, "--classes", "map.json", "--target", "9")
    assert answer.code == 0, answer.err
    assert "\x1b" not in answer.out
    assert "<b>nine\\x1b[31m" in answer.out
    assert Explanation.load("dlb-explanation").captions.classes == tuple(NAMES)
    told = dlb(*EXPLAIN, "--classes", "map.json", "--json").json
    assert all(entry["label"] == NAMES[entry["class"]] for entry in told["prediction"]["classes"][0])
    assert dlb("explain", "model.py:colour", "--input", "photo.png", "--classes", "map.json").code == 2  # of 3 classes


def test_an_image_is_shown_as_it_is_in_its_file(dlb, place):
    how = ("--resize", "6x9", "--mean", "0.5,0.4,0.3", "--std", "0.25")
    assert dlb("explain", "model.py:colour", "--input", "photo.png", *how).code == 0
    saved = Explanation.load("dlb-explanation")
    picture = saved.captions.images["input"]
    assert picture.shape == (1, 3, 6, 9)
    assert 0 <= float(picture.min()) < float(picture.max()) <= 1
    assert float(saved.given["input"].min()) < 0
