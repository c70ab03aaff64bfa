"""Explanations on disk: what is written is read again, and what is not ours is left alone."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from zoo import CASES, MLP

from dlb_core import Contrast, DLBacktrace, Explanation, ExplanationFileError, explanation

HEAD, TENSORS = "explanation.json", "tensors.safetensors"


@pytest.fixture(scope="module")
def made() -> Explanation:
    torch.manual_seed(0)
    x = torch.randn(3, 6)
    return DLBacktrace(MLP().eval(), x).explain(x, mode="epsilon", target=[0, 1, 2], keep="all", eps=1e-4)


def assert_same(one: Explanation, other: Explanation) -> None:
    assert list(one.relevance) == list(other.relevance)
    for name, value in one.relevance.items():
        parts = value if isinstance(value, tuple) else (value,)
        others = other.relevance[name] if isinstance(value, tuple) else (other.relevance[name],)
        assert all(torch.equal(a, b) for a, b in zip(parts, others, strict=True)), name
        assert len(parts) == len(others)
    assert torch.equal(one.output, other.output)
    assert one.ledger == other.ledger
    assert list(one.inputs) == list(other.inputs)
    assert (one.mode, dict(one.options)) == (other.mode, dict(other.options))


def test_what_is_saved_is_loaded(made: Explanation, tmp_path: Path) -> None:
    folder = made.save(tmp_path / "one" / "deep")
    assert folder == tmp_path / "one" / "deep"
    assert sorted(entry.name for entry in folder.iterdir()) == [HEAD, TENSORS]
    loaded = Explanation.load(folder)
    assert_same(made, loaded)
    assert loaded.target == [0, 1, 2]
    assert str(loaded.ledger.table()) == str(made.ledger.table())
    with pytest.raises(KeyError, match="not in the saved explanation"):
        loaded.relevance["fc9"]


class Splits(nn.Module):
    """A node with several outputs."""

    def forward(self, x: Tensor) -> Tensor:
        a, b = x.split(3, dim=1)
        return a * 2 + b


TARGETS: dict[str, Any] = {
    "number": 1,
    "tuple": (2,),
    "one per sample": [0, 1, 2],
    "numpy numbers": [np.int64(0), np.int64(1), np.int64(2)],
    "weights": torch.eye(3),
    "span": slice(0, 2),
    "several": {"targets": [0, (1,), [2, 1, 0], torch.eye(3)]},
    "contrast": Contrast(2, against=(0, 1)),
    "contrast per sample": [Contrast([0, 1]), Contrast(0, 2), Contrast(1)],
}


@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS)
def test_every_form_of_target_survives(target: Any, tmp_path: Path) -> None:
    x = torch.randn(3, 6)
    question = target if isinstance(target, dict) else {"target": target}
    explained = DLBacktrace(Splits().eval(), x).explain(x, keep="all", **question)
    loaded = Explanation.load(explained.save(tmp_path / "it"))
    assert_same(explained, loaded)
    assert repr(loaded.target) == repr(explained.target)  # numbers, tuples, tensors: as they were
    assert loaded.relevance.several == explained.relevance.several


@pytest.mark.parametrize("name", ["bert-sdpa", "vit-eager"])
def test_an_explanation_of_a_real_model_survives(name: str, tmp_path: Path) -> None:
    case = CASES[name]
    call = case.example(dtype=torch.bfloat16)
    explained = DLBacktrace(case.model(torch.bfloat16), call).explain(**call, keep="all")
    loaded = Explanation.load(explained.save(tmp_path / name))
    assert_same(explained, loaded)
    assert loaded.output.dtype is torch.bfloat16


def test_saving_again_replaces_an_explanation(made: Explanation, tmp_path: Path) -> None:
    x = torch.randn(3, 6)
    DLBacktrace(MLP().eval(), x).explain(x).save(tmp_path / "it")
    made.save(tmp_path / "it")
    assert_same(made, Explanation.load(tmp_path / "it"))


def test_an_empty_folder_is_used(made: Explanation, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert_same(made, Explanation.load(made.save(tmp_path / "empty")))


def foreign(folder: Path, what: str) -> dict[str, str]:
    """Things of somebody else in or at `folder`; name -> content."""
    if what == "a file":
        folder.write_text("mine")
        return {"": "mine"}
    folder.mkdir()
    files = {
        "other files": {"thesis.txt": "years"},
        "a head of another tool": {HEAD: '{"format": "theirs"}'},
        "a head that is no JSON": {HEAD: "notes"},
        "a folder": {"sub/thesis.txt": "years"},
    }[what]
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    return files


@pytest.mark.parametrize(
    "what", ["a file", "other files", "a head of another tool", "a head that is no JSON", "a folder"]
)
def test_what_is_not_ours_is_never_replaced(what: str, made: Explanation, tmp_path: Path) -> None:
    folder = tmp_path / "theirs"
    files = foreign(folder, what)
    with pytest.raises(FileExistsError, match="choose another folder"):
        made.save(folder)
    for name, content in files.items():
        assert (folder / name if name else folder).read_text() == content
    assert [entry.name for entry in tmp_path.iterdir()] == ["theirs"]


def test_notes_beside_an_explanation_outlive_the_next_save(made: Explanation, tmp_path: Path) -> None:
    folder = made.save(tmp_path / "it")
    (folder / "notes.txt").write_text("mine")
    with suppress(FileExistsError):
        made.save(folder)
    assert (folder / "notes.txt").read_text() == "mine"
    assert_same(made, Explanation.load(folder))


@pytest.mark.parametrize("before", [False, True], ids=["new", "over an earlier one"])
def test_a_failure_while_saving_leaves_nothing_partial(
    before: bool, made: Explanation, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if before:
        made.save(tmp_path / "it")

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(explanation.Path, "write_text", full)
    with pytest.raises(OSError, match="no space left"):
        made.save(tmp_path / "it")
    monkeypatch.undo()
    assert [entry.name for entry in tmp_path.iterdir()] == (["it"] if before else [])
    if before:
        assert_same(made, Explanation.load(tmp_path / "it"))


def rewrite(folder: Path, **changes: Any) -> None:
    head = json.loads((folder / HEAD).read_text())
    (folder / HEAD).write_text(json.dumps({**head, **changes}))


def damage(folder: Path, how: str) -> None:
    tensors, head = folder / TENSORS, folder / HEAD
    if how == "truncated tensors":
        tensors.write_bytes(tensors.read_bytes()[:-8])
    elif how == "changed tensors":
        tensors.write_bytes(tensors.read_bytes()[:-1] + b"\x01")
    elif how == "no tensors":
        tensors.unlink()
    elif how == "no head":
        head.unlink()
    elif how == "truncated head":
        head.write_text(head.read_text()[:100])
    elif how == "binary head":
        head.write_bytes(b"\xff\xfe\x00")
    elif how == "foreign JSON":
        head.write_text('{"name": "package"}')
    elif how == "a list":
        head.write_text("[1, 2]")
    elif how == "another version":
        rewrite(folder, version=99)
    elif how == "no folder":
        head.unlink()
        tensors.unlink()
        folder.rmdir()


DAMAGED = {
    "truncated tensors": "not what was saved .*save the explanation again",
    "changed tensors": "not what was saved",
    "no tensors": "tensors.safetensors is missing",
    "no head": "holds no explanation.json",
    "truncated head": "explanation.json cannot be read",
    "binary head": "explanation.json cannot be read",
    "foreign JSON": "is not a dlb explanation",
    "a list": "is not a dlb explanation",
    "another version": "format version 99; this dlb reads 1",
    "no folder": "holds no explanation.json",
}


@pytest.mark.parametrize(("how", "says"), DAMAGED.items(), ids=DAMAGED)
def test_a_damaged_or_foreign_folder_is_refused_with_its_reason(
    how: str, says: str, made: Explanation, tmp_path: Path
) -> None:
    folder = made.save(tmp_path / "it")
    damage(folder, how)
    with pytest.raises(ExplanationFileError, match=says):
        Explanation.load(folder)


WRONG: list[Any] = [None, [], {}, 1, "x", [1], {"a": 1}, {"a": {"b": "c"}}]


@pytest.mark.parametrize("field", ["target", "inputs", "entries", "ledgers", "sha256", "options", "mode", "several"])
def test_a_head_with_a_wrong_field_loads_or_is_refused(field: str, made: Explanation, tmp_path: Path) -> None:
    """Whatever stands there: an explanation or our own error, nothing else."""
    folder = made.save(tmp_path / "it")
    whole = (folder / HEAD).read_text()
    refused = 0
    for value in WRONG:
        rewrite(folder, **{field: value})
        try:
            assert isinstance(Explanation.load(folder), Explanation)
        except ExplanationFileError:
            refused += 1
        (folder / HEAD).write_text(whole)
    head = json.loads(whole)
    del head[field]
    (folder / HEAD).write_text(json.dumps(head))
    with pytest.raises(ExplanationFileError):
        Explanation.load(folder)
    assert refused or field in ("target", "options", "mode", "several", "inputs")
