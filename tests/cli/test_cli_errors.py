"""Bad input to `dlb explain`: one message, the right exit code, nothing written."""

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

LOAD, GREY = "model.py:load", ("--input", "grey.png")


@pytest.mark.parametrize(
    ("argv", "code", "said"),
    [
        # the model
        (("model.py", *GREY), 2, "module:factory"),
        (("nowhere.py:load", *GREY), 2, "nowhere.py: no such file"),
        (("no_such_module:load", *GREY), 2, "no module 'no_such_module'"),
        (("model.py:laod", *GREY), 2, "has no 'laod'; it has: "),
        (("model.py:number", *GREY), 2, "is a int"),
        (("model.py:wants", *GREY), 2, "'path'"),
        (("model.py:fails", *GREY), 1, "RuntimeError: no weights here"),
        (("model.py:leaves", *GREY), 1, "SystemExit: bye"),
        (("model.py:training", *GREY), 1, "model.eval()"),
        (("broken.py:load", *GREY), 1, "ZeroDivisionError"),
        (("nothing.pt2", *GREY), 2, "no such file"),
        # the inputs
        ((LOAD,), 2, "--input"),
        ((LOAD, "--input", "none.npy"), 2, "none.npy: no such file"),
        ((LOAD, "--input", "pickled.npy"), 2, "pickled.npy"),
        ((LOAD, "--input", "cut.npy"), 2, "cut.npy"),
        ((LOAD, "--input", "cut.safetensors"), 2, "cut.safetensors"),
        ((LOAD, "--input", "cut.png"), 2, "cut.png"),
        ((LOAD, "--input", "model.py"), 2, "model.py is no .npy, .safetensors or image"),
        ((LOAD, "--input", "complex.npy"), 2, "complex64"),
        ((LOAD, "--input", "archive.npy"), 2, "archive"),
        ((LOAD, "--input", "flat.npy"), 1, "the model itself fails on this input"),
        ((LOAD, *GREY, *GREY), 2, "forward does not take"),
        ((LOAD, "--input", "wrong=grey.png"), 2, "it takes: input"),
        ((LOAD, "--input", "input=grey.png", *GREY), 2, "name all of them, or none"),
        ((LOAD, "--input", "input=grey.png", "--input", "input=grey.png"), 2, "given twice"),
        ((LOAD, "--input", "input=two.safetensors"), 2, "leave input= out"),
        ((LOAD, "--input", "grey.npy", "--resize", "8x8"), 2, "--resize is for images"),
        ((LOAD, *GREY, "--resize", "8"), 2, "224x224"),
        ((LOAD, *GREY, "--mean", "a"), 2, "--mean a"),
        ((LOAD, *GREY, "--mean", "1,2,3"), 2, "3 numbers for an image of 1 channel"),
        ((LOAD, *GREY, "--std", "0"), 2, "positive"),
        # what to explain
        ((LOAD, *GREY, "--mode", "epsilom"), 2, "unknown mode 'epsilom'; the modes are: auto, alpha-beta, attnlrp"),
        ((LOAD, *GREY, "--option", "gamma=1"), 2, "no option 'gamma'"),
        ((LOAD, *GREY, "--option", "gamma"), 2, "KEY=VALUE"),
        ((LOAD, *GREY, "--option", "bias=absorb", "--bias", "absorb"), 2, "given twice"),
        ((LOAD, *GREY, "--target", "10"), 2, "0 .. 9"),
        ((LOAD, *GREY, "--target", "cat"), 2, "--target cat"),
        ((LOAD, *GREY, "--target", "1", "--target", "2"), 2, "one per sample"),
        ((LOAD, *GREY, "--task", "guess"), 2, "multi-class classification"),
        ((LOAD, *GREY, "--multiplier", "0"), 2, "multiplier=0.0"),
        ((LOAD, *GREY, "--seed", "logit", "--multiplier", "5"), 2, "scaler"),
        ((LOAD, *GREY, "--output", "logits"), 2, "floating outputs"),
        ((LOAD, *GREY, "--top", "0"), 2, "--top 0"),
        ((LOAD, *GREY, "--device", "toaster"), 2, "--device toaster"),
        (("model.py:cube", "--input", "row.npy"), 1, "linalg_matrix_exp"),
        # where to
        ((LOAD, *GREY, "--out", "model.py"), 2, "no folder"),
        ((LOAD, *GREY, "--out", "."), 2, "current folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else None,
)
def test_bad_input(dlb, place, argv, code, said):
    (place.path / "broken.py").write_text("1 / 0\n")
    np.save("pickled.npy", np.array([{}], dtype=object))
    np.save("complex.npy", np.ones(3, np.complex64))
    np.save("flat.npy", np.ones((1, 3)))
    with (place.path / "archive.npy").open("wb") as file:
        np.savez(file, a=np.ones(3))
    save_file({"a": torch.ones(1), "b": torch.ones(1)}, "two.safetensors")
    for name in ("grey.npy", "two.safetensors", "grey.png"):
        file = place.path / name
        (place.path / f"cut{file.suffix}").write_bytes(file.read_bytes()[:60])
    before = place.entries()
    answer = dlb("explain", *argv)
    assert answer.code == code, answer.err
    assert said in answer.err
    assert answer.err.count("dlb: error: ") == 1
    assert "Traceback" not in answer.err
    assert answer.out == ""
    assert place.entries() == before


def test_a_failing_model_file_is_named_with_its_line(dlb, place):
    assert "model.py:" in dlb("explain", "model.py:fails", *GREY).err
    assert 'raise RuntimeError("no weights here")' in dlb("explain", "model.py:fails", *GREY).err


def test_debug_shows_the_traceback(dlb, place):
    with pytest.raises(ValueError, match="unknown mode"):
        dlb("explain", LOAD, *GREY, "--mode", "epsilom", "--debug")


def test_a_loose_exception_says_its_type(dlb, place, monkeypatch):
    monkeypatch.setattr("dlb_core.cli.explain.strongest", lambda *a: {}["key"])
    answer = dlb("explain", LOAD, *GREY)
    assert answer.code == 1
    assert answer.err.endswith("dlb: error: KeyError: 'key' (unforeseen: --debug shows the traceback)\n")
    assert not (place.path / "dlb-explanation").exists()


@pytest.mark.parametrize("mode", ["I;16", "RGBA", "P", "1", "LA"])
def test_image_modes(dlb, place, mode):
    if mode == "I;16":
        Image.fromarray(np.full((8, 8), 40_000, np.uint16)).save("other.png")
    else:
        Image.open("grey.png").convert(mode).save("other.png")
    model = "model.py:colour" if mode in ("RGBA", "P") else LOAD
    told = dlb("explain", model, "--input", "other.png", "--json").json
    values = [s["value"] for s in told["strongest"]]
    assert all(0 <= v <= 1 for v in values)
    if mode == "I;16":
        assert values[0] == pytest.approx(40_000 / 65535)


def test_an_image_that_would_start_another_program_is_refused(dlb, place):
    (place.path / "page.eps").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\nshowpage\n")
    answer = dlb("explain", LOAD, "--input", "page.eps")
    assert answer.code == 2
    assert "page.eps is no .npy" in answer.err
