"""Pictures of generated text: whose units they show, what is blank, and what does not fit together."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure
from torch import Tensor

from dlb_core.generation import GenerationExplanation
from dlb_core.kernel.ledger import Ledger
from dlb_core.task_result import TaskResult
from dlb_core.viz.generation import visualize_input_heatmap_for_token, visualize_tokenwise_relevance_map
from viz.drawn import boxes, outside, overlapping, panels, shown_map, texts

PROMPT, NEW, SOURCE = 5, 3, 6
OWN = "generated text"


class Tokenizer:
    """Of ids below 10 one word each, of which the first pads."""

    pad_token_id = 0
    all_special_ids = (0,)
    words = ("<pad>", " a", " $b$", "\n", " <i>", " the", " cat", " sat", " on", " mat")

    def decode(self, ids: list[int], *, skip_special_tokens: bool, clean_up_tokenization_spaces: bool) -> str:
        return "".join(self.words[i] for i in ids if i)

    def convert_ids_to_tokens(self, ids: list[int]) -> list[str]:
        return [self.words[i] for i in ids]


def made(*, source: bool = False, contrastive: bool = False, seed: int = 0) -> GenerationExplanation:
    """Two texts of which the first is padded on the left; the second ends after two tokens."""
    draw = torch.Generator().manual_seed(seed)
    start = 1 if source else PROMPT
    length = start + NEW
    sequences = torch.randint(1, 10, (2, length), generator=draw)
    relevance = torch.randn(2, NEW, length, generator=draw, dtype=torch.float64)
    for n in range(NEW):
        relevance[:, n, start + n :] = 0
    generated = torch.ones(2, NEW, dtype=torch.bool)
    generated[1, 2] = False
    relevance[1, 2] = 0
    more: dict[str, Any] = {}
    if source:
        more["source"] = torch.randint(1, 10, (2, SOURCE), generator=draw)
        more["source_relevance"] = torch.randn(2, NEW, SOURCE, generator=draw, dtype=torch.float64)
    else:
        sequences[0, :2], relevance[0, :, :2] = 0, 0
    if contrastive:
        more["total"] = relevance.abs() + 0.5 * (relevance != 0)
        if source:
            more["source_total"] = more["source_relevance"].abs() + 0.5
    ledgers = tuple(Ledger(1.0, {}, {}, 1.0, 1.0, 1.0, 1e-5) for _ in range(NEW))
    steps = tuple(range(NEW))
    return GenerationExplanation(sequences, start, generated, steps, relevance, ledgers=ledgers, mode="epsilon", **more)


def blank_future(units: Tensor, start: int) -> np.ndarray:
    found = units.clone()
    for n, row in enumerate(found):
        row[start + n :] = torch.nan
    return found.numpy()


def test_a_matrix_of_tokens_by_tokens() -> None:
    info = made()
    assert info.relevance is not None
    picture = info.plot(sample=1)
    rows = info.relevance[1, :2, : PROMPT + 1]  # the third token is padding; no token sees the second
    np.testing.assert_array_equal(shown_map(panels(picture)[OWN]), blank_future(rows, PROMPT))
    ids = [str(i) for i in info.sequences[1].tolist()]
    shown = texts(picture)
    assert [text for text in shown if text in ids] == ids[PROMPT : PROMPT + 2] + ids[: PROMPT + 1]
    assert shown[:3] == ["What each token came from", "mode epsilon · sample 1 of 2", OWN]
    assert (outside(picture), overlapping(picture)) == ([], [])


def test_a_tokenizer_names_tokens_and_padding_goes() -> None:
    info = made()
    assert info.relevance is not None
    picture = info.plot(Tokenizer())
    found = shown_map(panels(picture)[OWN])
    np.testing.assert_array_equal(found, blank_future(info.relevance[0, :, 2 : PROMPT + NEW - 1], PROMPT - 2))
    words = [Tokenizer.words[i].strip(" ").replace("\n", "⏎") for i in info.sequences[0].tolist()]
    assert [text for text in texts(picture) if text in words] == words[PROMPT:] + words[2:-1]


@pytest.mark.parametrize("name", ["explanation", "list", "result", "task"])
def test_every_form_of_a_trace_draws_the_same(name: str) -> None:
    info = made()
    plain = TaskResult({"decided": "", "relevance_trace": info["relevance_trace"]})
    trace = {
        "explanation": info,
        "list": info["relevance_trace"],
        "result": plain,
        "task": plain.with_more(explanation=info),
    }[name]
    prompt = info.sequences[:, :PROMPT]
    expected = shown_map(panels(info.plot())[OWN])
    for generated in (info.sequences, info.tokens):
        picture = visualize_tokenwise_relevance_map(trace, prompt, None, generated)
        np.testing.assert_array_equal(shown_map(panels(picture)[OWN]), expected)
        token = visualize_input_heatmap_for_token(trace, 1, prompt, None, generated)
        np.testing.assert_array_equal(
            boxes(panels(token)[OWN]).get_array(), boxes(panels(info.plot_token(1))[OWN]).get_array()
        )


def test_one_token_shows_the_text_before_it() -> None:
    info = made()
    assert info.relevance is not None
    picture = info.plot_token(1, Tokenizer())
    array = boxes(panels(picture)[OWN]).get_array()
    np.testing.assert_array_equal(array[:-1], info.relevance[0, 1, 2 : PROMPT + 1])
    assert np.ma.getmaskarray(array).tolist() == [False] * (PROMPT - 1) + [True]  # itself, framed
    words = [Tokenizer.words[i].replace("\n", "⏎") for i in info.sequences[0].tolist()]
    assert [text for text in texts(picture) if text in words] == words[2 : PROMPT + 2]
    assert texts(picture)[0] == f"Token 1: {words[PROMPT + 1]}"
    boxed = boxes(panels(picture)[OWN]).get_paths()
    assert (
        boxed[PROMPT - 2].vertices[0, 0] == 0 < boxed[PROMPT - 2].vertices[0, 1]
    )  # the continuation: a line of its own


def test_an_encoder_has_its_text_beside() -> None:
    info = made(source=True)
    assert info.relevance is not None
    assert info.source is not None
    assert info.source_relevance is not None
    here = panels(info.plot())
    np.testing.assert_array_equal(shown_map(here["source"]), info.source_relevance[0])
    np.testing.assert_array_equal(shown_map(here[OWN]), blank_future(info.relevance[0, :, :NEW], 1))
    assert here["source"].get_position().x1 < here[OWN].get_position().x0
    assert here["source"].images[0].get_clim() == here[OWN].images[0].get_clim()
    for generated in (info.sequences, info.tokens):
        picture = visualize_tokenwise_relevance_map(
            info["relevance_trace"], info.source, Tokenizer(), generated, sample=0
        )
        np.testing.assert_array_equal(shown_map(panels(picture)["source"]), info.source_relevance[0])
        assert ("start" in texts(picture)) == (generated is not info.sequences and generated.shape[1] == NEW)
    both = panels(info.plot_token(2))
    np.testing.assert_array_equal(boxes(both["source"]).get_array(), info.source_relevance[0, 2])


@pytest.mark.parametrize("source", [False, True])
def test_two_maps_of_a_contrastive_mode(source: bool) -> None:
    info = made(source=source, contrastive=True)
    picture = info.plot()
    here = panels(picture)
    start, seen = info.prompt_length, info.prompt_length + NEW - 1
    for side, units in (("for the target", info.positive), ("against it", info.negative)):
        np.testing.assert_allclose(shown_map(here[f"{OWN} {side}"]), blank_future(units[0, :, :seen], start))
    assert len({axes.images[0].get_clim() for name, axes in here.items() if name != "colours"}) == 1
    assert (outside(picture), overlapping(picture)) == ([], [])
    assert {f"{OWN} for the target", f"{OWN} against it"} <= {*panels(info.plot_token(2))}


def test_a_prompt_that_was_continued_several_times() -> None:
    info = made()
    picture = visualize_tokenwise_relevance_map(
        dataclasses.replace(info, sequences=info.sequences[[1, 1]])["relevance_trace"],
        info.sequences[1, :PROMPT],
        None,
        info.sequences[[1, 1]],
        sample=1,
    )
    assert shown_map(panels(picture)[OWN]).shape == (NEW, PROMPT + NEW - 1)


def test_a_long_text_fits() -> None:
    length, new = 300, 60
    draw = torch.Generator().manual_seed(0)
    sequences = torch.randint(1, 10, (1, length + new), generator=draw)
    relevance = torch.randn(1, new, length + new, generator=draw)
    info = GenerationExplanation(
        sequences, length, torch.ones(1, new, dtype=torch.bool), tuple(range(new)), relevance, mode="epsilon"
    )
    picture = info.plot(Tokenizer())
    assert max(picture.get_size_inches()) < 16
    assert (outside(picture), overlapping(picture)) == ([], [])


def test_a_path_is_written(tmp_path: Path) -> None:
    info = made()
    figure = visualize_tokenwise_relevance_map(info, path=tmp_path / "map.png")
    assert isinstance(figure, Figure)
    visualize_input_heatmap_for_token(info, 0, path=tmp_path / "token.svg")
    assert (tmp_path / "map.png").read_bytes().startswith(b"\x89PNG")
    assert b"<svg" in (tmp_path / "token.svg").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"trace": []}, "the trace is empty"),
        ({"trace": [1]}, "a trace is a GenerationExplanation, or the list"),
        ({"trace": {}}, "there is no relevance_trace: ask for it with return_relevance=True"),
        ({"n": 3}, "n=3: choose from 0 .. 2"),
        ({"n": -1}, "n=-1: choose from 0 .. 2"),
        ({"sample": 2}, "sample=2: choose from 0 .. 1"),
        ({"input_ids": None}, "a list does not hold the text: give input_ids="),
        ({"input_ids": torch.ones(2, PROMPT + 1, dtype=torch.long)}, "8 tokens|another one than in the trace"),
        ({"input_ids": torch.ones(3, PROMPT, dtype=torch.long)}, "input_ids: 3 rows for 2 sequences"),
        ({"input_ids": torch.ones(2, PROMPT)}, "input_ids: expected ids of tokens"),
        ({"generated_ids": torch.ones(2, 4, dtype=torch.long)}, "generated_ids: 4 tokens, but the trace is about 8"),
        ({"generated_ids": torch.zeros(2, 8, dtype=torch.long)}, "another one than in the trace"),
    ],
)
def test_what_does_not_fit_is_refused(change: dict[str, Any], words: str) -> None:
    info = made()
    given = {
        "trace": info["relevance_trace"], "n": 0, "input_ids": info.sequences[:, :PROMPT], "tokenizer": None,
        "generated_ids": info.sequences, **change,
    }  # fmt: skip
    with pytest.raises(ValueError, match=words):
        visualize_input_heatmap_for_token(**given)


def test_what_an_explanation_does_not_hold_is_refused() -> None:
    info = made()
    with pytest.raises(ValueError, match="n=2: the text of sample 1 ended before"):
        info.plot_token(2, sample=1)
    with pytest.raises(ValueError, match="no token is explained: ask for it with return_relevance=True"):
        dataclasses.replace(info, relevance=None).plot()
    with pytest.raises(ValueError, match="input_ids: these are other tokens"):
        visualize_tokenwise_relevance_map(info, info.sequences[:, 1 : PROMPT + 1])
    with pytest.raises(ValueError, match="generated_ids: these are other tokens"):
        visualize_tokenwise_relevance_map(info, None, None, info.sequences + 1)
    both = made(source=True)
    with pytest.raises(ValueError, match="input_ids: 4 tokens, but the trace is about 6 of the source"):
        visualize_tokenwise_relevance_map(both["relevance_trace"], both.sequences, None, both.sequences)
    with pytest.raises(ValueError, match="sample 1: no explained token is a part of this text"):
        dataclasses.replace(info, generated=torch.zeros(2, NEW, dtype=torch.bool)).plot(sample=1)
