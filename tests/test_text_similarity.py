"""The example of two sentences: every unit of the cosine is in its page, by words."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch
from pipeline.makers import bare_encoder

from dlb_core import pairs

EXAMPLE = Path(__file__).parents[1] / "examples/text_similarity.py"
A, B = "This product is amazing.", "the quick brown fox don't regret"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> str:
    return bare_encoder(tmp_path_factory.mktemp("encoder"))


def test_the_page_is_by_words_and_adds_up(
    example: dict[str, Any], folder: str, capsys: pytest.CaptureFixture[str]
) -> None:
    before = torch.are_deterministic_algorithms_enabled()
    told = []
    for _ in range(2):
        example["main"]([A, B, "--model", folder])
        told.append(capsys.readouterr().out)
    assert told[0] == told[1]
    assert torch.are_deterministic_algorithms_enabled() == before
    lines = told[0].strip().splitlines()
    assert lines[:2] == [A, B]
    head = next(i for i, line in enumerate(lines) if line.endswith("special"))
    assert lines[head].split() == ["the", "quick", "brown", "fox", "don't", "regret", "special"]
    rows = [line.split() for line in lines[head + 1 : head + 7]]
    assert [row[0] for row in rows] == ["This", "product", "is", "amazing", ".", "special"]
    cells = [[float(value) for value in row[1:]] for row in rows]
    ledger = lines[-1]
    cosine, *parts = (float(n) for n in re.findall(r"(-?\d+\.\d{4})", ledger.replace("- ", "-").replace("+ ", "")))
    assert ledger.startswith(f"ledger: {cosine:.4f} = ")
    assert sum(parts) == pytest.approx(cosine, abs=3e-4)
    assert sum(sum(row[:-1]) for row in cells[:-1]) == pytest.approx(100 * parts[0], abs=0.05 * 30)
    assert sum(map(sum, cells)) == pytest.approx(100 * (parts[0] + parts[1]), abs=0.05 * 42)


def test_a_cell_is_the_sum_of_its_word_pieces(example: dict[str, Any], folder: str) -> None:
    explainer = example["Explainer"](Path(folder))
    one, two = explainer.encode(A), explainer.encode(B)
    found = pairs(explainer.dlb, one.tensors, two.tensors, mode="auto", input="input_ids")
    assert float(found.similarity) == pytest.approx(
        torch.nn.functional.cosine_similarity(*(explainer.dlb.model(**e.tensors) for e in (one, two))).item(), abs=1e-5
    )
    groups = [example["_groups"](encoded) for encoded in (one, two)]
    for encoded, group in zip((one, two), groups, strict=True):
        places = sorted(place for _, each in group for place in each.tolist())
        assert places == [*range(len(encoded.pieces[0].tokens))]
    page = example["page"](A, B, found, one, two)
    row = next(line for line in page.splitlines() if line.startswith("amazing")).split()[1:]
    (where,) = (places for name, places in groups[0] if name == "amazing")
    assert len(where) > 1
    for (_, places), cell in zip(groups[1], row, strict=True):
        assert float(cell) == pytest.approx(100 * float(found.matrix[where][:, places].sum()), abs=0.051)


def test_one_sentence_is_not_two(example: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as stop:
        example["main"]([A])
    assert stop.value.code == 2
    assert "give two sentences" in capsys.readouterr().err
