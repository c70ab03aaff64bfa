"""`ExpertProfile` on disk: what is saved is loaded, and nothing foreign or damaged is taken for it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from dlb_core import ExplanationFileError, saved
from dlb_ops_moe import ExpertProfile

from .profiles import EXPERTS, explained, profile_of, same

HEAD, TENSORS = "profile.json", "tensors.safetensors"


@pytest.fixture
def profile() -> ExpertProfile:
    return profile_of([(explained(3, 2, 5), ["a", 4, "b"])])


def test_what_is_saved_is_loaded(profile: ExpertProfile, tmp_path: Path) -> None:
    folder = profile.save(tmp_path / "deep" / "it")
    assert sorted(entry.name for entry in folder.iterdir()) == [HEAD, TENSORS]
    loaded = ExpertProfile.load(folder)
    same(profile, loaded)
    assert loaded.layers == profile.layers
    assert str(loaded.table("layers.0.experts")) == str(profile.table("layers.0.experts"))
    more = (explained(1, 2, 6), ["c"])
    loaded.add(*more)
    profile.add(*more)
    same(profile, loaded)
    profile.save(folder)
    same(profile, ExpertProfile.load(folder))


def test_a_profile_of_nothing_is_saved_and_adds_nothing(profile: ExpertProfile, tmp_path: Path) -> None:
    nothing = ExpertProfile.load(ExpertProfile().save(tmp_path / "it"))
    assert (nothing.layers, nothing.groups, nothing.mode) == ((), (), None)
    same(
        sum([profile, profile_of([(explained(1, 2, 6), ["c"])])], nothing),
        profile_of([(explained(3, 2, 5), ["a", 4, "b"]), (explained(1, 2, 6), ["c"])]),
    )


def test_a_data_set_of_which_all_is_left_out(profile: ExpertProfile, tmp_path: Path) -> None:
    empty = ExpertProfile.load(profile_of([(explained(1, 2, 6), [[None, None]])]).save(tmp_path / "it"))
    assert (empty.groups, empty.layers, empty.mode) == ((), tuple(EXPERTS), "epsilon")
    assert [row[:2] for row in empty.table("layers.0.experts")] == [("(all)", 0)]
    same(empty + profile, profile)
    with pytest.raises(ValueError, match="no group in both"):
        empty.compare(profile)


def test_a_foreign_folder_is_never_replaced(profile: ExpertProfile, tmp_path: Path) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs" / "thesis.txt").write_text("years")
    with pytest.raises(FileExistsError, match="no expert profile of ours: choose another folder"):
        profile.save(tmp_path / "theirs")
    assert [entry.name for entry in (tmp_path / "theirs").iterdir()] == ["thesis.txt"]


def test_a_failure_while_saving_leaves_the_earlier_profile(
    profile: ExpertProfile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    profile.save(tmp_path / "it")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(saved.Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        (profile + profile).save(tmp_path / "it")
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == ["it"]
    same(profile, ExpertProfile.load(tmp_path / "it"))


def test_a_damaged_or_foreign_folder_is_refused_with_its_reason(profile: ExpertProfile, tmp_path: Path) -> None:
    def refused(says: str) -> None:
        with pytest.raises(ExplanationFileError, match=says):
            ExpertProfile.load(folder)
        profile.save(folder)

    folder = profile.save(tmp_path / "it")
    head, tensors = folder / HEAD, folder / TENSORS
    tensors.write_bytes(tensors.read_bytes()[:-8])
    refused("not what was saved .*save the expert profile again")
    tensors.unlink()
    refused("tensors.safetensors is missing")
    head.write_text(head.read_text()[:80])
    with pytest.raises(ExplanationFileError, match=r"profile.json cannot be read"):
        ExpertProfile.load(folder)
    for entry in (head, tensors):
        entry.unlink()
    profile.save(folder)
    for change, says in {
        "version": "format version 99; this dlb reads 1",
        "format": "is not a dlb expert profile",
    }.items():
        head.write_text(json.dumps({**json.loads(head.read_text()), change: 99}))
        with pytest.raises(ExplanationFileError, match=says):
            ExpertProfile.load(folder)
        for entry in (head, tensors):
            entry.unlink()
        profile.save(folder)


WRONG: list[Any] = [None, [], {}, 1, "x", [1], ["a", 1], [1, "a", "a"], {"a": 1}, [[1]], [None]]


@pytest.mark.parametrize("field", ["mode", "groups", "layers", "sha256"])
def test_a_head_with_a_wrong_field_is_refused(field: str, profile: ExpertProfile, tmp_path: Path) -> None:
    folder = profile.save(tmp_path / "it")
    head = json.loads((folder / HEAD).read_text())
    for value in WRONG:
        (folder / HEAD).write_text(json.dumps({**head, field: value}))
        if field == "mode" and value == "x":
            assert ExpertProfile.load(folder).mode == "x"  # a name like any other
            continue
        with pytest.raises(ExplanationFileError):
            ExpertProfile.load(folder)
    (folder / HEAD).write_text(json.dumps({name: value for name, value in head.items() if name != field}))
    with pytest.raises(ExplanationFileError):
        ExpertProfile.load(folder)
