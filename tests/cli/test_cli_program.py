"""Exported programs: refused without trust, because loading one can run code."""

import importlib.util

import pytest
import torch


@pytest.fixture
def program(place):
    spec = importlib.util.spec_from_file_location("model_of_this_test", place.path / "model.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    batch = torch.export.Dim("batch", min=1)
    exported = torch.export.export(module.load(), (torch.zeros(2, 1, 8, 8),), dynamic_shapes=({0: batch},))
    torch.export.save(exported, place.path / "model.pt2")
    return "model.pt2"


def test_without_trust(dlb, place, program, monkeypatch):
    monkeypatch.setattr(torch.export, "load", lambda path: pytest.fail("was loaded"))
    before = place.entries()
    answer = dlb("explain", program, "--input", "grey.png")
    assert answer.code == 2
    assert "loading one can run code" in answer.err
    assert "--trust" in answer.err
    assert place.entries() == before


def test_with_trust_it_says_the_same_as_the_module(dlb, program):
    of_program = dlb("explain", program, "--trust", "--input", "grey.png", "--json").json
    of_module = dlb("explain", "model.py:load", "--input", "grey.png", "--json").json
    assert of_program["target"] == of_module["target"]
    assert of_program["ledger"]["seed"] == of_module["ledger"]["seed"]
    assert [s["index"] for s in of_program["strongest"]] == [s["index"] for s in of_module["strongest"]]


def test_the_plan_of_a_program_needs_no_input(dlb, program):
    assert "aten::conv2d.default" in dlb("explain", program, "--trust", "--plan").out
    assert dlb("explain", program, "--trust").code == 2


def test_an_input_that_was_not_traced(dlb, program):
    answer = dlb("explain", program, "--trust", "--input", "photo.png")
    assert answer.code == 2
    assert "another shape" in answer.err


@pytest.mark.parametrize("content", [b"hello", None], ids=["foreign", "truncated"])
def test_a_broken_program(dlb, place, program, content):
    whole = (place.path / program).read_bytes()
    (place.path / "bad.pt2").write_bytes(content if content is not None else whole[: len(whole) // 2])
    answer = dlb("explain", "bad.pt2", "--trust", "--input", "grey.png")
    assert answer.code == 2
    assert "bad.pt2" in answer.err
    assert "Traceback" not in answer.err
