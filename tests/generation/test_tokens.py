"""Relevance of generated tokens: each as on its own prefix, nothing from the future or padding, every unit told."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from dlb_core import DLBacktrace, ExplanationFileError, integrated
from dlb_core.generation import DLBAutoSampler, GenerationExplanation
from dlb_core.kernel.packs import registry
from dlb_core.kernel.tip import find_tip

from .test_decoding import sampler, shared
from .writers import END, PAD, prompt, writer

CAUSAL = ["Llama", "GPT2", "Mistral", "Olmoe"]
#: What computes in float32, whatever its weights are: OLMoE's router.
SINGLE = {"Olmoe": 1e-4}
MODES = ["default", "epsilon", "attnlrp", "auto"]
ALL_MODES = sorted(registry().modes)


def on_prefix(here: DLBAutoSampler, sequence: Tensor, start: int, stop: int, mode: str, **asked: Any) -> Any:
    """The token at `stop` explained on what stands before it, without padding."""
    prefix = sequence[None, start:stop]
    inputs = {"input_ids": prefix, "attention_mask": torch.ones_like(prefix)}
    return here.dlb.explain(inputs, mode=mode, target=int(sequence[stop]), **asked)


@pytest.mark.parametrize("name", CAUSAL)
def test_every_token_has_the_relevance_of_its_own_prefix(name: str) -> None:
    here = shared(name)
    ids, mask = prompt()
    for mode in MODES[CAUSAL.index(name) % 2 :: 2]:
        sequences, info = here.generate(
            ids, mask, max_new_tokens=5, min_new_tokens=5, temperature=1.5, return_relevance=True, mode=mode
        )
        assert info.steps == (0, 1, 2, 3, 4)
        assert info.relevance.shape == (2, 5, 10)
        for sample, start in ((0, 2), (1, 0)):
            for n, step in enumerate(info.steps[::2]):
                stop = 5 + step
                alone = on_prefix(here, sequences[sample], start, stop, mode).inputs["input_ids"][0]
                row = info.relevance[sample, 2 * n]
                close = SINGLE.get(name, 1e-9)
                torch.testing.assert_close(row[start:stop], alone, rtol=close, atol=close)
                assert bool((row[:start] == 0).all())  # padding
                assert bool((row[stop:] == 0).all())  # the future


@settings(max_examples=6)
@given(
    data=st.data(),
    name=st.sampled_from(CAUSAL),
    mode=st.sampled_from([m for m in ALL_MODES if m not in ("contrastive", "z-box")]),
    samples=st.integers(1, 3),
    length=st.integers(3, 6),
    new=st.integers(1, 4),
    seed=st.sampled_from(["multiplier", "logit", "probability"]),
    chunk=st.sampled_from([None, 1, 2]),
)
def test_rows_and_accounts_make_up_the_seed(
    data: st.DataObject, name: str, mode: str, samples: int, length: int, new: int, seed: str, chunk: int | None
) -> None:
    here = shared(name)
    ids, mask = prompt(samples, length, data.draw(st.integers(0, 99)))
    generator = torch.Generator().manual_seed(data.draw(st.integers(0, 99)))
    _sequences, info = here.generate(
        ids, mask, max_new_tokens=new, temperature=2.0, generator=generator, return_relevance=True, mode=mode,
        seed=seed, chunk=chunk,
    )  # fmt: skip
    assert bool(info.relevance.isfinite().all())
    for n, ledger in enumerate(info.ledgers):
        rows = float(info.relevance[:, n].sum())
        assert rows + sum(ledger.accounts.values()) == pytest.approx(ledger.seed, abs=1e-8 * ledger.scale + 1e-12)
        if seed == "multiplier":
            assert ledger.seed == pytest.approx(100 * int(info.generated[:, n].sum()))


@pytest.mark.parametrize("name", ["T5", "Bart"])
def test_an_encoder_decoder_explains_its_source_and_its_own_text(name: str) -> None:
    here = shared(name)
    ids, mask = prompt()
    sequences, info = here.generate(ids, mask, max_new_tokens=4, num_beams=2, return_relevance=True, mode="epsilon")
    generated = sequences.shape[1] - 1
    assert info.source_relevance.shape == (2, generated, 5)
    for n, step in enumerate(info.steps):
        prefix = sequences[:, : 1 + step]
        target = [(step, int(token)) for token in sequences[:, 1 + step]]
        inputs = {"input_ids": ids, "attention_mask": mask, "decoder_input_ids": prefix}
        alone = here.dlb.explain(inputs, mode="epsilon", target=target).inputs
        real = info.generated[:, step]
        torch.testing.assert_close(info.source_relevance[real, n], alone["input_ids"][real], rtol=1e-9, atol=1e-9)
        torch.testing.assert_close(
            info.relevance[real, n, : 1 + step], alone["decoder_input_ids"][real], rtol=1e-9, atol=1e-9
        )
    assert bool((info.source_relevance[0, :, :2] == 0).all())  # padding


def test_what_follows_the_end_of_a_text_is_not_explained() -> None:
    here = shared("Llama")
    ids, mask = prompt()
    sequences = torch.cat([ids, torch.tensor([[5, END, PAD, PAD], [7, 8, 9, 10]])], 1)
    info = here.explain(sequences, 5, mask, mode="epsilon")
    assert info.generated.tolist() == [[True, True, False, False], [True] * 4]
    assert bool((info.relevance[0, :2].abs().sum(-1) > 0).all())
    assert bool((info.relevance[0, 2:] == 0).all())
    assert [ledger.seed for ledger in info.ledgers] == pytest.approx([200, 200, 100, 100])


def test_only_some_tokens_and_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    here = shared("Llama")
    ids, mask = prompt()
    sequences, whole = here.generate(
        ids, mask, max_new_tokens=5, min_new_tokens=5, return_relevance=True, mode="default"
    )
    for asked, steps in ((2, (0, 1)), ([3, -1], (3, 4)), (9, (0, 1, 2, 3, 4))):
        info = here.explain(sequences, 5, mask, explain_tokens=asked, mode="default", chunk=2)
        assert info.steps == steps
        torch.testing.assert_close(info.relevance, whole.relevance[:, list(steps)])
    _, some = here.generate(ids, mask, max_new_tokens=5, dlb_tokens_count=1, return_relevance=True, mode="default")
    torch.testing.assert_close(some.relevance, whole.relevance[:, :1])


def test_two_maps_for_and_against() -> None:
    here = shared("GPT2")
    ids, mask = prompt()
    sequences, info = here.generate(
        ids, mask, max_new_tokens=3, min_new_tokens=3, return_relevance=True, mode="contrastive"
    )
    assert bool((info.positive >= 0).all())
    assert bool((info.negative >= 0).all())
    torch.testing.assert_close(info.positive - info.negative, info.relevance)
    alone = on_prefix(here, sequences[1], 0, 7, "contrastive")
    torch.testing.assert_close(info.positive[1, 2, :7], alone.positive["input_ids"][0], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(info.negative[1, 2, :7], alone.negative["input_ids"][0], rtol=1e-9, atol=1e-9)
    with pytest.raises(AttributeError, match="one map"):
        _ = here.explain(sequences, 5, mask, explain_tokens=1, mode="epsilon").positive


@pytest.mark.parametrize("name", ["Gemma2", "OPT"])
def test_a_tip_goes_through_what_follows_the_vocabulary(name: str) -> None:
    """A cap, a scale, a bias on the logits: the tokens as targets of the whole output say the same."""
    here = sampler(writer(name))
    ids, _ = prompt(3, 6)
    ids, mask = ids[1:], torch.ones_like(ids[1:])
    assert find_tip(here.dlb.plan("default"), here.dlb._engine.output_node) is not None
    for mode in ("default", "epsilon"):
        info = here.explain(ids, 4, mask[:, :4], mode=mode, seed="logit")
        targets = [[(3 + n, int(token)) for token in ids[:, 4 + n]] for n in range(2)]
        inputs = {"input_ids": ids, "attention_mask": mask}
        whole = here.dlb.explain(inputs, mode=mode, targets=targets, seed="logit")
        torch.testing.assert_close(info.relevance.transpose(0, 1), whole.inputs["input_ids"])
        assert [ledger.accounts for ledger in info.ledgers] == [
            pytest.approx(ledger.accounts) for ledger in whole.ledger
        ]


class Mixing(nn.Module):
    """A writer whose last layer looks at the position before, too: it has no tip."""

    def __init__(self, inner: Any) -> None:
        super().__init__()
        self.inner, self.config, self.generation_config = inner, inner.config, inner.generation_config
        self.generate = inner.generate
        self.prepare_inputs_for_generation = inner.prepare_inputs_for_generation

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        logits = self.inner(input_ids=input_ids, attention_mask=attention_mask).logits
        return logits + logits.roll(1, 1).cumsum(1) / 7


def test_without_a_tip_tokens_go_one_by_one() -> None:
    model = Mixing(writer("Llama")).eval()
    ids, mask = prompt()
    here = DLBAutoSampler(DLBacktrace(model, {"input_ids": ids, "attention_mask": mask}))
    engine = here.dlb._engine
    assert find_tip(here.dlb.plan("epsilon"), engine.output_node) is None
    sequences = torch.cat([ids, torch.tensor([[5, 6], [7, 8]])], 1)
    grown = torch.cat([mask, torch.ones(2, 2, dtype=torch.long)], 1)
    for mode in ("epsilon", "contrastive"):
        info = here.explain(sequences, 5, mask, mode=mode)
        for n in range(2):
            target = [(4 + n, int(token)) for token in sequences[:, 5 + n]]
            alone = here.dlb.explain(sequences, grown, mode=mode, target=target)
            torch.testing.assert_close(info.relevance[:, n], alone.inputs["input_ids"], rtol=1e-9, atol=1e-9)


def test_layers_tell_what_they_returned_and_their_relevance() -> None:
    here = shared("Llama")
    ids, mask = prompt()
    sequences, info = here.generate(
        ids,
        mask,
        max_new_tokens=3,
        min_new_tokens=3,
        return_relevance=True,
        return_layerwise_output=True,
        mode="epsilon",
    )
    assert list(info) == ["relevance_trace", "layerwise_output_trace"]
    states = here.dlb.model.model(
        sequences, attention_mask=torch.cat([mask, torch.ones(2, 3, dtype=torch.long)], 1),
        position_ids=torch.tensor([[0, 0, 0, 1, 2, 3, 4, 5], [0, 1, 2, 3, 4, 5, 6, 7]]), output_hidden_states=True,
    ).hidden_states  # fmt: skip
    for n in range(3):
        torch.testing.assert_close(info["layerwise_output_trace"][n]["model.layers.0"], states[1][:, 4 + n])
    alone = on_prefix(here, sequences[1], 0, 7, "epsilon", keep=["model.layers.0"])
    torch.testing.assert_close(info.layers["model.layers.0"][1, 2, :7], alone.relevance["model.layers.0"][0].sum(-1))


def test_experts_of_every_token() -> None:
    here = shared("Olmoe")
    ids, mask = prompt()
    _, info = here.generate(ids, mask, max_new_tokens=3, min_new_tokens=3, return_relevance=True, mode="epsilon")
    name = "model.layers.1.mlp.experts"
    trace = info["relevance_trace"]
    assert [entry["expert_relevance"][name].shape for entry in trace] == [(4,)] * 3
    layer = info.experts[name]
    assert layer.by_token.shape == (3, 2, 8, 4)
    for n in range(3):
        reached = float(layer.relevance[n].sum()) + sum(layer.accounts[n].values())
        assert reached == pytest.approx(layer.entered[n])
        assert torch.equal(trace[n]["expert_relevance"][name], layer.relevance[n])


@pytest.mark.parametrize("of", ["logit", "log-probability"])
def test_a_whole_answer_in_one_pass(of: str) -> None:
    here = shared("Llama")
    ids, mask = prompt()
    sequences = torch.cat([ids, torch.tensor([[5, 6, 9], [7, 8, 3]])], 1)
    found = here.explain_answer(sequences, 5, mask, of=of, mode="epsilon")
    if of == "logit":  # relevance is linear in its seed: the sum over the tokens
        tokens = here.explain(sequences, 5, mask, mode="epsilon", seed="logit")
        torch.testing.assert_close(found.inputs["input_ids"], tokens.relevance.sum(1), rtol=1e-8, atol=1e-8)
    part = here.explain_answer(sequences, 5, mask, span=(0, 1), of=of, mode="epsilon")
    assert not torch.allclose(part.inputs["input_ids"], found.inputs["input_ids"])
    with pytest.raises(ValueError, match="of="):
        here.explain_answer(sequences, 5, mask, of="loss")


@pytest.mark.parametrize("name", ["Olmoe", "T5"])
def test_saving_and_loading(name: str, tmp_path: Path) -> None:
    here = shared(name)
    ids, mask = prompt()
    _, info = here.generate(
        ids,
        mask,
        max_new_tokens=3,
        return_relevance=True,
        return_scores=True,
        return_layerwise_output=True,
        mode="epsilon",
    )
    folder = info.save(tmp_path / "out")
    again = GenerationExplanation.load(folder)
    assert list(again) == list(info) == ["scores_trace", "relevance_trace", "layerwise_output_trace"]
    assert torch.equal(again.relevance, info.relevance)
    assert torch.equal(again.sequences, info.sequences)
    assert again.steps == info.steps
    assert again.ledgers == info.ledgers
    assert [*again.experts] == [*info.experts]
    assert (again.source_relevance is None) == (again.source is None) == (name != "T5")
    assert again.source is None or torch.equal(again.source, ids)
    for mine, theirs in zip(info["scores_trace"], again["scores_trace"], strict=True):
        assert torch.equal(mine, theirs)
    (folder / "generation.json").write_text("{}")
    with pytest.raises(ExplanationFileError):
        GenerationExplanation.load(folder)


def test_what_was_not_asked_for_is_not_there() -> None:
    here = shared("Llama")
    ids, mask = prompt()
    _, info = here.generate(ids, mask, max_new_tokens=2, return_scores=True)
    assert list(info) == ["scores_trace"]
    with pytest.raises(KeyError, match="scores_trace"):
        _ = info["relevance_trace"]
    with pytest.raises(ValueError, match="several points"):
        here.generate(ids, mask, max_new_tokens=2, return_relevance=True, mode=integrated("epsilon"))


def test_bad_texts_are_refused() -> None:
    here = shared("Llama")
    ids, mask = prompt()
    with pytest.raises(ValueError, match="prompt_length"):
        here.explain(ids, 5, mask)
    with pytest.raises(ValueError, match="source="):
        here.explain(ids, 3, mask[:, :3], source=ids)
