"""Decoding is transformers': token for token, with the same arguments and seed; the caller's random state is left."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from dlb_core import DLBacktrace
from dlb_core.generation import DLBAutoSampler

from .writers import BEGIN, prompt, writer

WAYS: dict[str, dict[str, Any]] = {
    "greedy": {},
    "temperature": {"temperature": 0.8},
    "top-k": {"top_k": 5},
    "top-p": {"top_p": 0.9, "temperature": 1.4},
    "all three": {"temperature": 1.2, "top_k": 20, "top_p": 0.95},
    "beams": {"num_beams": 3},
    "two of the beams": {"num_beams": 3, "num_return_sequences": 2},
    "sampled beams": {"num_beams": 2, "temperature": 1.5},
    "three samples": {"temperature": 1.3, "num_return_sequences": 3},
    "penalties": {"repetition_penalty": 1.5, "min_new_tokens": 3, "no_repeat_ngram_size": 2},
    "another end": {"eos_token_id": [7, 9, 11, 13, 40, 41, 42, 43]},
}
SAMPLED = {"temperature", "top_k", "top_p"}


def sampler(model: Any) -> DLBAutoSampler:
    ids, mask = prompt()
    inputs = {"input_ids": ids, "attention_mask": mask}
    if model.config.is_encoder_decoder:
        inputs["decoder_input_ids"] = ids[:, :3]
    return DLBAutoSampler(DLBacktrace(model, inputs))


@cache
def shared(name: str) -> DLBAutoSampler:
    """The sampler of a writer, traced once in a process."""
    return sampler(writer(name))


@pytest.fixture(scope="module", params=["Llama", "GPT2", "T5"])
def written(request: pytest.FixtureRequest) -> DLBAutoSampler:
    return shared(request.param)


@pytest.fixture(scope="module")
def llama() -> DLBAutoSampler:
    return shared("Llama")


@pytest.mark.parametrize("way", WAYS)
def test_tokens_are_those_of_generate(way: str, written: DLBAutoSampler) -> None:
    ids, mask = prompt()
    asked = {"max_new_tokens": 6, **WAYS[way]}
    torch.manual_seed(11)
    here = written.generate(ids, mask, **asked)
    torch.manual_seed(11)
    theirs = written.dlb.model.generate(ids, attention_mask=mask, do_sample=not SAMPLED.isdisjoint(asked), **asked)
    assert torch.equal(here, theirs)
    torch.manual_seed(11)
    scored, info = written.generate(ids, mask, return_scores=True, **asked)
    assert torch.equal(scored, theirs)
    assert info.scores.shape == info.tokens.shape
    assert len(info["scores_trace"]) == info.tokens.shape[1]


def test_without_a_sampling_argument_decoding_is_greedy_whatever_the_config_says() -> None:
    model = writer("Llama")
    ids, mask = prompt()
    greedy = model.generate(ids, attention_mask=mask, max_new_tokens=6, do_sample=False)
    model.generation_config.update(do_sample=True, temperature=3.0, num_beams=1, top_k=0)
    torch.manual_seed(0)
    assert torch.equal(sampler(model).generate(ids, mask, max_new_tokens=6), greedy)


def test_random_numbers_go_on_and_the_callers_state_stays(written: DLBAutoSampler) -> None:
    ids, mask = prompt()
    torch.manual_seed(4)
    before = torch.get_rng_state()
    asked = {"max_new_tokens": 6, "temperature": 1.5}
    first = written.generate(ids, mask, **asked)
    assert torch.equal(torch.get_rng_state(), before)
    generator = torch.Generator().manual_seed(4)
    assert torch.equal(written.generate(ids, mask, generator=generator, **asked), first)
    assert not torch.equal(written.generate(ids, mask, generator=generator, **asked), first)  # it went on
    assert torch.equal(torch.get_rng_state(), before)


def test_every_new_token_is_told_as_it_comes(written: DLBAutoSampler) -> None:
    ids, mask = prompt()
    told: list[Any] = []
    sequences = written.generate(ids, mask, max_new_tokens=4, eos_token_id=BEGIN, on_token=told.append)
    generated = sequences.shape[1] - (1 if written.dlb.model.config.is_encoder_decoder else ids.shape[1])
    assert torch.equal(torch.stack(told, 1), sequences[:, -generated:])


def test_an_interrupt_leaves_no_trace(written: DLBAutoSampler) -> None:
    ids, mask = prompt()
    torch.manual_seed(4)
    before = torch.get_rng_state()

    def stop(token: Any) -> None:
        raise KeyboardInterrupt

    whole = written.generate(ids, mask, max_new_tokens=3, temperature=1.5)
    with pytest.raises(KeyboardInterrupt):
        written.generate(ids, mask, max_new_tokens=3, temperature=1.5, on_token=stop)
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(written.generate(ids, mask, max_new_tokens=3, temperature=1.5), whole)


def test_padding_is_inferred_as_transformers_does(llama: DLBAutoSampler) -> None:
    ids, mask = prompt()
    assert torch.equal(llama.generate(ids, max_new_tokens=4), llama.generate(ids, mask, max_new_tokens=4))


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ({"temperature": 0.0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"output_scores": True}, "return_scores"),
        ({"explain_tokens": 0, "return_relevance": True}, "explain_tokens"),
        ({"explain_tokens": [9], "return_relevance": True}, "step 9"),
        ({"explain_tokens": "some", "return_relevance": True}, "explain_tokens"),
        ({"explain_tokens": 2, "dlb_tokens_count": 2, "return_relevance": True}, "another name"),
        ({"mode": "fast", "return_relevance": True}, "unknown mode"),
        ({"seed": "units", "return_relevance": True}, "seed"),
    ],
)
def test_bad_arguments_are_refused(asked: dict[str, Any], says: str, llama: DLBAutoSampler) -> None:
    ids, mask = prompt()
    with pytest.raises(ValueError, match=says):
        llama.generate(ids, mask, max_new_tokens=3, **asked)


def test_bad_prompts_are_refused(llama: DLBAutoSampler) -> None:
    here = llama
    ids, mask = prompt()
    for bad in (ids[0], ids.double(), [1, 2]):
        with pytest.raises(ValueError, match="token ids"):
            here.generate(bad, max_new_tokens=2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="attention_mask has shape"):
        here.generate(ids, mask[:, 1:], max_new_tokens=2)
    with pytest.raises(ValueError, match="has no generate"):
        DLBAutoSampler(DLBacktrace(nn.Linear(2, 2).eval(), torch.randn(1, 2)))
