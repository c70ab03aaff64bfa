"""`dlb explain`: what it prints and what it writes."""

import json
import re
import subprocess
import sys

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from dlb_core import Explanation

FILES = {"explanation.json", "tensors.safetensors"}


def section(page: str, title: str) -> list[str]:
    """The table under a title, without its header and rules."""
    lines = page[page.index(f"\n{title}") + 1 :].splitlines()[1:]
    body = lines[: next((i for i, line in enumerate(lines) if not line.strip()), len(lines))]
    return [line.rstrip() for line in body[1:] if not line.strip().startswith("─")]


def shares(page: str) -> tuple[list[int], int]:
    """Shares of the ledger's lines in hundredths, and that of its total."""
    found = [int(m[1].replace(".", "")) for line in section(page, "ledger") if (m := re.search(r"(\S+) %$", line))]
    return found[:-1], found[-1]


def test_the_page(dlb, place):
    answer = dlb("explain", "model.py:load", "--input", "grey.png", "--out", "build/demo")
    assert answer.code == 0
    assert answer.out.startswith("model.py:load  mode default (")
    assert "\x1b" not in answer.out  # nobody looks through a terminal
    assert len(section(answer.out, "prediction")) == 5
    assert answer.out.count("explained") == 1
    lines, total = shares(answer.out)
    assert sum(lines) == total == 100_00
    assert len(section(answer.out, "strongest inputs")) == 10
    for name in (*FILES, "heatmap-input.png"):
        assert f"build/demo/{name}" in answer.out
    assert {p.name for p in (place.path / "build/demo").iterdir()} == {*FILES, "heatmap-input.png"}


def test_what_the_model_prints_does_not_end_up_in_the_result(dlb, place):
    answer = dlb("explain", "model.py:load", "--input", "grey.png", "--json")
    assert "says something" in answer.err
    assert answer.json["model"] == "model.py:load"


def test_the_written_explanation_is_the_one_that_was_told(dlb, place):
    told = dlb("explain", "model.py:load", "--input", "grey.png", "--json").json
    saved = Explanation.load("dlb-explanation")
    assert saved.target == told["target"]
    assert saved.ledger.inputs == told["ledger"]["inputs"]
    best = told["strongest"][0]
    assert saved.inputs["input"][tuple(best["index"])].item() == best["relevance"]
    assert best["relevance"] == saved.inputs["input"].max().item()
    assert best["share"] == pytest.approx(best["relevance"])
    assert [f["path"] for f in told["files"]] == [
        "dlb-explanation/explanation.json",
        "dlb-explanation/tensors.safetensors",
        "dlb-explanation/heatmap-input.png",
    ]
    top = told["prediction"]["classes"][0]
    assert [c["class"] for c in top] == saved.output[0].topk(5).indices.tolist()
    assert [c["probability"] for c in top] == pytest.approx(saved.output[0].softmax(0).topk(5).values.tolist())


@pytest.mark.parametrize("mode", ["default", "epsilon"])
def test_the_ledger_of_json_is_whole(dlb, place, mode):
    ledger = dlb("explain", "model.py:load", "--input", "grey.png", "--mode", mode, "--json").json["ledger"]
    rest = sum(ledger["inputs"].values()) + sum(ledger["accounts"].values()) + ledger["residual"]
    assert rest == pytest.approx(ledger["seed"]) == 100
    assert round(sum(line["share"] for line in ledger["shares"]), 6) == 100.0
    assert {line["account"] for line in ledger["shares"]} >= {"input:input", *ledger["accounts"]}


def test_a_long_ledger_is_grouped_and_still_adds_up(dlb, place):
    answer = dlb("explain", "model.py:deep", "--input", "row.npy", "--mode", "epsilon")
    accounts = [line.split()[0] for line in section(answer.out, "ledger")]
    assert accounts[-3] == "..."
    assert "... 10 more accounts" in answer.out
    assert len(accounts) == 1 + 12 + 2
    lines, total = shares(answer.out)
    assert sum(lines) == total == 100_00


def test_arrays_and_images_are_read_alike(dlb, place):
    image = dlb("explain", "model.py:load", "--input", "grey.png", "--json").json
    array = dlb("explain", "model.py:load", "--input", "grey.npy", "--json").json
    save_file({"whatever": torch.from_numpy(np.load("grey.npy"))}, "grey.safetensors")
    tensor = dlb("explain", "model.py:load", "--input", "grey.safetensors", "--json").json
    for other in (array, tensor):
        assert other["ledger"] == image["ledger"]
        assert other["strongest"] == image["strongest"]


def test_images_are_resized_and_normalised(dlb, place):
    how = ("--resize", "12x16", "--mean", "0.5,0.4,0.3", "--std", "0.25")
    told = dlb("explain", "model.py:colour", "--input", "photo.png", *how, "--json").json
    inputs = Explanation.load("dlb-explanation").inputs["input"]
    assert inputs.shape == (1, 3, 12, 16)
    values = [s["value"] for s in told["strongest"]]
    assert min(values) < 0  # 0..1 before
    assert max(abs(v) for v in values) > 1
    assert "heatmap-input.png" in told["files"][-1]["path"]


def test_channels(dlb, place):
    assert dlb("explain", "model.py:colour", "--input", "grey.png", "--channels", "RGB").code == 0
    assert dlb("explain", "model.py:load", "--input", "photo.png", "--channels", "L", "--resize", "8x8").code == 0


def test_a_model_in_half_precision_gets_its_dtype(dlb, place):
    assert dlb("explain", "model.py:half", "--input", "grey.npy").code == 0


def test_several_inputs_by_position_and_by_name(dlb, place):
    by_position = dlb("explain", "model.py:text", "--input", "ids.npy", "--input", "scale.npy", "--json").json
    by_name = dlb("explain", "model.py:text", "--input", "scale=scale.npy", "--input", "ids=ids.npy", "--json").json
    save_file({"ids": torch.from_numpy(np.load("ids.npy")), "scale": torch.full((1, 1, 1), 2.0)}, "both.safetensors")
    one_file = dlb("explain", "model.py:text", "--input", "both.safetensors", "--json").json
    assert by_position["ledger"] == by_name["ledger"] == one_file["ledger"]
    ids = [s for s in by_position["strongest"] if s["input"] == "ids"]
    assert {s["value"] for s in ids} == {1, 3, 4}  # integers stay integers
    assert "values" in by_position["prediction"]


def test_a_page_with_several_inputs_and_one_number_as_output(dlb, place):
    page = dlb("explain", "model.py:text", "--input", "ids.npy", "--input", "scale.npy").out
    assert section(page, "strongest inputs")[0].split()[0] in ("ids", "scale")
    assert "explained: " in page
    assert "heatmap" not in page


def test_target_multiplier_top_and_options_are_honoured(dlb, place):
    how = ("--target", "4", "--multiplier", "8", "--top", "3", "--mode", "epsilon", "--bias", "redistribute")
    told = dlb("explain", "model.py:load", "--input", "grey.png", *how, "--option", "eps=1e-3", "--json").json
    assert told["target"] == [4]
    assert told["ledger"]["seed"] == 8
    assert len(told["strongest"]) == 3
    assert told["options"] == {"eps": 1e-3, "bias": "redistribute"}
    logit = dlb("explain", "model.py:load", "--input", "grey.png", "--seed", "logit", "--json").json
    assert logit["ledger"]["seed"] == pytest.approx(logit["prediction"]["classes"][0][0]["output"])


def test_a_batch_has_a_target_and_a_heat_map_per_sample(dlb, place):
    np.save("two.npy", np.random.default_rng(1).random((2, 1, 8, 8)))
    told = dlb("explain", "model.py:load", "--input", "two.npy", "--target", "1", "--target", "2", "--json").json
    assert told["target"] == [1, 2]
    assert told["ledger"]["seed"] == 200
    assert [f["path"] for f in told["files"][2:]] == [f"dlb-explanation/heatmap-input-{i}.png" for i in (0, 1)]
    page = dlb("explain", "model.py:load", "--input", "two.npy").out
    assert page.count("explained") == 2


def test_a_module_in_the_current_folder_and_a_model_that_is_no_function(place):
    done = subprocess.run(
        [sys.executable, "-m", "dlb_core.cli", "explain", "model:ready", "--input", "grey.png", "--json"],
        capture_output=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert b'"target"' in done.stdout


def test_the_same_folder_takes_the_next_result(dlb, place):
    assert dlb("explain", "model.py:load", "--input", "grey.png").code == 0
    assert dlb("explain", "model.py:deep", "--input", "row.npy", "--mode", "epsilon").code == 0
    assert {p.name for p in (place.path / "dlb-explanation").iterdir()} == FILES
    assert Explanation.load("dlb-explanation").mode == "epsilon"


def test_the_plan_comes_before_any_run(dlb, place):
    before = place.entries()
    answer = dlb("explain", "model.py:load", "--input", "grey.png", "--plan")
    assert answer.code == 0
    assert "aten::conv2d.default" in answer.out
    told = dlb("explain", "model.py:load", "--input", "grey.png", "--plan", "--mode", "epsilon", "--json").json
    assert [step["kind"] for step in told["plan"]] == ["linear", "elementwise", "move", "linear"]
    assert place.entries() == before


def test_verbose_says_what_is_done(dlb, place):
    said = ("explain", "model.py:load", "--input", "grey.png", "--plan")
    assert "traced" not in dlb(*said).err
    assert "dlb: info: traced" in dlb(*said, "-v").err
    assert "traced" not in dlb(*said).err


def test_names_cannot_steer_the_terminal(dlb, place):
    (place.path / "[red]x\x1b[31m.png").write_bytes((place.path / "grey.png").read_bytes())
    answer = dlb("explain", "model.py:load", "--input", "[red]x\x1b[31m.png", "--out", "[bold]o\x1b")
    assert answer.code == 0
    assert "\x1b" not in answer.out
    assert "[bold]o\\x1b/explanation.json" in answer.out
    assert "\x1b" not in dlb("explain", "model.py:load", "--input", "\x1b.png").err


def test_without_pillow_arrays_work_and_images_say_what_to_install(dlb, place, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    answer = dlb("explain", "model.py:load", "--input", "grey.npy")
    assert answer.code == 0
    assert 'pip install "dlb-core[viz]"' in answer.out
    assert {p.name for p in (place.path / "dlb-explanation").iterdir()} == FILES
    image = dlb("explain", "model.py:load", "--input", "grey.png", "--out", "other")
    assert image.code == 2
    assert 'pip install "dlb-core[viz]"' in image.err


def test_either_tracer_gives_the_same_page(dlb, place):
    exported, recorded = (
        dlb("explain", "model.py:load", "--input", "grey.png", "--tracer", tracer) for tracer in ("export", "tape")
    )
    assert recorded.code == 0
    assert recorded.out == exported.out


def test_a_contrastive_explanation_has_two_ledgers(dlb, place):
    answer = dlb("explain", "model.py:load", "--input", "grey.png", "--mode", "contrastive")
    assert answer.code == 0, answer.err
    assert answer.out.index("ledger for the target") < answer.out.index("ledger against it")
    assert "crossed" in answer.out
    told = dlb("explain", "model.py:load", "--input", "grey.png", "--mode", "contrastive", "--json", "--out", "b").json
    pro, con = told["ledger for the target"], told["ledger against it"]
    assert pro["seed"] == pytest.approx(100.0)
    assert pro["accounts"]["crossed"] == pytest.approx(-con["accounts"]["crossed"])
    assert "ledger" not in told


def test_the_plan_of_a_composite_in_a_file(dlb, place):
    parts = [
        {"mode": "flat", "first": True},
        {"mode": "gamma", "gamma": 0.1, "tag": "convolution"},
        {"mode": "epsilon"},
    ]
    (place.path / "mine.json").write_text(json.dumps({"name": "mine", "parts": parts}))
    before = place.entries()
    answer = dlb("explain", "model.py:load", "--input", "grey.png", "--mode", "mine.json", "--plan")
    assert answer.code == 0, answer.err
    assert "flat/linear" in answer.out
    assert place.entries() == before


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "No such file"),
        ("{", "is no JSON"),
        ('{"parts": 3}', "a composite is"),
        ('{"parts": [{"mode": "nope"}]}', "unknown mode 'nope'"),
        ('{"parts": [{"mode": "gamma", "gama": 1}]}', "mode 'gamma' has no option 'gama'"),
    ],
)
def test_a_bad_composite_is_said(dlb, place, text, said):
    if text is not None:
        (place.path / "mine.json").write_text(text)
    answer = dlb("explain", "model.py:load", "--input", "grey.png", "--mode", "mine.json")
    assert answer.code == 2
    assert said in answer.err


def test_auto_takes_a_mode_by_the_model(dlb, place):
    assert dlb("explain", "model.py:load", "--input", "grey.png", "--mode", "auto").code == 0
