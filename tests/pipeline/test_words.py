"""Relevance by words: every unit of every token goes to one word, and words are those that a reader sees."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from dlb_core.pipeline.encoding import encode, written
from dlb_core.pipeline.words import Pieces, segment
from pipeline.makers import TOKENIZERS, bytelevel, metaspace, whole_text, wordpiece

TEXTS = st.text(
    st.one_of(
        st.sampled_from("abcdefgh ilnorstuw ,.'!\u2019-\n\t  "),
        st.sampled_from("éüß東京を見たไทย👍🏽👩\u200d🚀\u0301\u00a0क्ष\ufffd"),
        st.characters(exclude_categories=("Cs",)),
    ),
    max_size=25,
)


def spelled(text: str) -> list[str]:
    return [text[a:b] for a, b in segment(text)]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("This product is amazing!", ["This", "product", "is", "amazing", "!"]),
        ("don't, l\u2019été", ["don't", ",", "l\u2019été"]),
        ("3.14 or 1,000. End.", ["3.14", "or", "1,000", ".", "End", "."]),
        ("東京を見た", ["東", "京", "を", "見", "た"]),
        ("cafe\u0301 x", ["cafe\u0301", "x"]),
        ("👍🏽👩\u200d🚀ok", ["👍🏽", "👩\u200d🚀", "ok"]),
        ("क्षत्रिय gut", ["क्षत्रिय", "gut"]),
        ("snake_case v2 'a'", ["snake_case", "v2", "'", "a", "'"]),
        (" \n", []),
        ("", []),
    ],
)
def test_words_are_those_that_a_reader_sees(text: str, words: list[str]) -> None:
    assert spelled(text) == words


@given(TEXTS)
def test_every_character_that_is_no_space_is_in_one_word(text: str) -> None:
    spans = segment(text)
    assert all(a < b for a, b in spans)
    assert all(b <= c for (_, b), (c, _) in itertools.pairwise(spans))
    covered = {i for a, b in spans for i in range(a, b)}
    assert covered == {i for i, char in enumerate(text) if not char.isspace()}


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(max_examples=40)
@given(texts=st.lists(TEXTS, min_size=1, max_size=3), pair=st.booleans(), data=st.data())
def test_no_unit_is_lost_or_counted_twice(name: str, texts: list[str], pair: bool, data: Any) -> None:
    """Over random texts and pairs, padded to one length: tokens are parted among words, sums are kept."""
    tokenizer = TOKENIZERS[name]()
    if name == "bytelevel":
        texts = [f"a{text}" for text in texts]  # it adds nothing to a text, so an empty one has no token
    encoded = encode(tokenizer, texts, [*reversed(texts)] if pair else None)
    seed = data.draw(st.integers(0, 1000))
    relevance = torch.randn(encoded.tensors["input_ids"].shape, generator=torch.Generator().manual_seed(seed))
    for pieces, row in zip(encoded.pieces, relevance, strict=True):
        found = pieces.words(row)
        everywhere = [position for word in (*found.words, *found.special) for position in word.tokens]
        assert sorted(everywhere) == [*range(len(row))]
        assert found.total == pytest.approx(float(row.double().sum()), abs=1e-9)
        for word in (*found.words, *found.special):
            assert word.relevance == pytest.approx(float(row.double()[list(word.tokens)].sum()), abs=1e-9)
        for word in found.words:
            if word.span is not None:
                assert word.text == pieces.texts[word.text_index or 0][slice(*word.span)]
        for word in found.special:
            assert all(pieces.special[i] for i in word.tokens)


@settings(max_examples=15)
@given(texts=st.lists(TEXTS, min_size=1, max_size=4), vocabulary=st.integers(257, 320), spaces=st.booleans())
def test_tokenizers_trained_on_anything_lose_nothing(texts: list[str], vocabulary: int, spaces: bool) -> None:
    """Bytes and their pairs, with or without words before them: pieces may be half a character or a whole text."""
    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=spaces, use_regex=spaces, trim_offsets=spaces)
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    made.train_from_iterator(texts, trainers.BpeTrainer(vocab_size=vocabulary, initial_alphabet=alphabet))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=made)
    for text in texts:
        (pieces,) = encode(tokenizer, [f"a{text}"]).pieces
        relevance = torch.arange(1, len(pieces.tokens) + 1).double()
        words = pieces.words(relevance)
        assert words.total == float(relevance.sum())
        assert sorted(i for word in words for i in word.tokens) == [*range(len(relevance))]
        assert [word.tokens[0] for word in words] == sorted(word.tokens[0] for word in words)
        assert "".join("".join(w.text.split()) for w in words) == "".join(f"a{text}".split())


@pytest.mark.parametrize("kind", [transformers.ByT5Tokenizer, transformers.CanineTokenizer])
def test_a_tokenizer_without_offsets_is_told_by_tokens(kind: Any) -> None:
    encoded = encode(kind(), ["ab c", "d"])
    for pieces, row in zip(encoded.pieces, encoded.tensors["attention_mask"], strict=True):
        words = pieces.words(row.float())
        assert words.total == int(row.sum())
        assert all(len(word.tokens) == 1 and word.span is None for word in words)
    assert len(encoded.pieces[0].words(torch.ones(len(encoded.pieces[0].tokens)))) == 4


@pytest.mark.parametrize("name", TOKENIZERS)
def test_each_word_gets_what_its_own_characters_got(name: str) -> None:
    """An oracle of places: one unit on every token of the characters of one word gives that word alone units."""
    text = "This product is amazing, and I don't regret buying it!"
    (pieces,) = encode(TOKENIZERS[name](), [text]).pieces
    words = pieces.words(torch.zeros(len(pieces.tokens)))
    for word in words:
        relevance = torch.zeros(len(pieces.tokens))
        start, stop = word.span
        for i, place in enumerate(pieces.places):
            inside = place is not None and text[place[1] : place[2]].strip() and place[1] < stop and place[2] > start
            relevance[i] = float(bool(inside))
        found = pieces.words(relevance)
        assert [w.text for w in found if w.relevance] == [word.text]
        assert found.total == relevance.sum() > 0


@pytest.mark.parametrize("tokenizer", [wordpiece, bytelevel, metaspace], ids=lambda make: make.__name__)
def test_a_sentence_by_words(tokenizer: Any) -> None:
    text = "This product is amazing!"
    (pieces,) = encode(tokenizer(), [text]).pieces
    assert [word.text for word in pieces.words(torch.ones(len(pieces.tokens)))] == spelled(text)


def test_a_piece_over_two_words_makes_them_one() -> None:
    """Pieces of whole texts may hold spaces; what they reach over is one word, nothing is shared out by guess."""
    text = "the lazy dog"
    (pieces,) = encode(whole_text(), [text]).pieces
    words = pieces.words(torch.ones(len(pieces.tokens)))
    assert "".join(word.text for word in words).replace(" ", "") == "thelazydog"
    crossing = any(" " in text[a:b].strip() for p in pieces.places if p for _, a, b in [p])
    assert crossing == any(" " in word.text for word in words)


def test_what_the_tokenizer_added_stands_apart() -> None:
    encoded = encode(wordpiece(), ["A terrible product", "amazing"], ["it broke", "and it is fun"])
    assert encoded.tensors["input_ids"].shape == encoded.tensors["attention_mask"].shape
    for pieces in encoded.pieces:
        names = [word.text for word in pieces.words(torch.ones(len(pieces.tokens))).special]
        assert names[:3] == ["[CLS]", "[SEP]", "[SEP]"]
        assert set(names[3:]) <= {"[PAD]"}
        assert len(names[3:]) <= 1  # all padding is one
    first, second = encoded.pieces
    assert [word.text_index for word in first.words(torch.ones(len(first.tokens)))] == [0, 0, 0, 1, 1]
    assert second.texts == ("amazing", "and it is fun")


def test_a_new_line_is_no_part_of_the_next_word() -> None:
    (pieces,) = encode(bytelevel(), ["one\n two"]).pieces
    assert [word.text for word in pieces.words(torch.ones(len(pieces.tokens)))] == ["one", "\n", "two"]


@given(TEXTS)
@settings(max_examples=60)
def test_what_was_written_is_told_by_its_characters(text: str) -> None:
    tokenizer = bytelevel()
    ids = tokenizer(text)["input_ids"]
    whole, tokens, spans, special = written(tokenizer, ids)
    assert (whole, len(tokens), len(spans)) == (text, len(ids), len(ids))
    assert not any(special)
    assert all(0 <= a <= b <= len(whole) for a, b in spans)
    covered = {i for a, b in spans for i in range(a, b)}
    if "\ufffd" not in text:
        assert covered == {*range(len(whole))}
    pieces = Pieces((), (), (), ()).and_then(whole, tokens, spans, special)
    assert pieces.words(torch.ones(len(ids), dtype=torch.float64)).total == pytest.approx(len(ids))


def test_words_as_table_and_data() -> None:
    (pieces,) = encode(wordpiece(), ["A terrible product"]).pieces
    relevance = torch.linspace(-1, 2, len(pieces.tokens))
    words = pieces.words(relevance)
    table = str(words)
    assert all(word in table for word in ("terrible", "[CLS]", "special", "= sum"))
    assert [record["text"] for record in words.records() if not record["special"]] == ["A", "terrible", "product"]
    assert sum(record["relevance"] for record in words.records()) == pytest.approx(float(relevance.sum()))
    assert words.strongest(1) == (max(words, key=lambda word: abs(word.relevance)),)


def test_texts_that_cannot_be_read_are_refused() -> None:
    (pieces,) = encode(wordpiece(), ["A terrible product"]).pieces
    with pytest.raises(ValueError, match="tokens"):
        pieces.words(torch.ones(2))
    with pytest.raises(ValueError, match="give one for each"):
        encode(wordpiece(), ["a", "b"], ["c"])
    with pytest.raises(ValueError, match="max_length=5"):
        encode(wordpiece(), ["the quick brown fox jumps over"], most=5)
    with pytest.raises(ValueError, match="must be a str"):
        encode(wordpiece(), [3])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="no text"):
        encode(wordpiece(), [])
    assert encode(wordpiece(), ["the quick brown fox"], max_length=5, most=5).tensors["input_ids"].shape == (1, 5)
