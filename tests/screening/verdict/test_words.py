# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words out of tokens, for real tokenizers of every kind, built here: nothing is downloaded."""

from dataclasses import replace

import numpy as np
import pytest
from tiny_models import tiny_tokenizer
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import PreTrainedTokenizerFast
from word_lists import each, occurrences

from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.verdict.words import find_words, has_word_marks


def fast(backend: Tokenizer, **options) -> PreTrainedTokenizerFast:
    return PreTrainedTokenizerFast(tokenizer_object=backend, eos_token="</s>", unk_token="<unk>", **options)


def byte_level() -> PreTrainedTokenizerFast:
    """GPT-2's kind: every byte has a token, a space before a word is 'Ġ'; '##' is a token, too, as in GPT-2."""
    pieces = ["Ġa", "Ġre", "d", "Ġban", "ana", "s", ".", "##", "</s>", "<unk>"]
    vocabulary = dict.fromkeys([*sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġr", "Ġb", "Ġba", "an", "na", *pieces])
    vocabulary = {piece: number for number, piece in enumerate(vocabulary)}
    merges = [("Ġ", "a"), ("Ġ", "r"), ("Ġr", "e"), ("Ġ", "b"), ("Ġb", "a"), ("Ġba", "n"), ("a", "n"), ("an", "a")]
    backend = Tokenizer(models.BPE(vocabulary, [*merges, ("#", "#")]))
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    backend.decoder = decoders.ByteLevel()
    return fast(backend)


def sentence_piece() -> PreTrainedTokenizerFast:
    """Llama's kind: '▁' at the start of a word, bytes for what the vocabulary lacks."""
    pieces = ["▁a", "▁re", "d", "▁ban", "ana", "s", ".", ",", "▁"]
    pieces += [f"<0x{byte:02X}>" for byte in range(256)] + ["</s>", "<unk>"]
    vocabulary = {piece: number for number, piece in enumerate([*pieces, *"abenrd", "▁r", "▁b", "▁ba", "an", "na"])}
    merges = [("▁", "a"), ("▁", "r"), ("▁r", "e"), ("▁", "b"), ("▁b", "a"), ("▁ba", "n"), ("a", "n"), ("an", "a")]
    backend = Tokenizer(models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True))
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return fast(backend)


def word_piece() -> PreTrainedTokenizerFast:
    """BERT's kind: '##' where a word goes on; 'Ġ' is a letter that its multilingual vocabulary has."""
    pieces = ["a", "red", "ban", "##ana", "##s", ".", ",", "é", "##é", "caf", "Ġ", "</s>", "<unk>"]
    backend = Tokenizer(models.WordPiece({piece: number for number, piece in enumerate(pieces)}, unk_token="<unk>"))
    backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    backend.decoder = decoders.WordPiece()
    return fast(backend)


def statistics_of(tokenizer, texts: list[str], end: str = "</s>") -> TokenStatistics:
    """Each text with an end mark; the i-th token of all has i nats, an entropy of 1/4, and i + 100 was expected."""
    rows = [
        [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.convert_tokens_to_ids(end)] for text in texts
    ]
    tokens = np.array([token for row in rows for token in row], dtype=np.int64)
    return TokenStatistics(
        np.arange(len(rows)),
        np.cumsum([0, *map(len, rows)]),
        tokens,
        np.arange(len(tokens), dtype=np.float32),
        np.full(len(tokens), 0.25, dtype=np.float32),
        np.arange(100, 100 + len(tokens)),
    )


def plain_statistics(tokens: np.ndarray, nll: np.ndarray | None = None) -> TokenStatistics:
    """One row of these tokens."""
    zeros = np.zeros(len(tokens), dtype=np.float32)
    offsets = np.array([0, len(tokens)])
    return TokenStatistics(np.zeros(1, np.int64), offsets, tokens, zeros if nll is None else nll, zeros, tokens)


def words_of(tokenizer, text: str) -> list[str]:
    """The words of one response, without the whole response."""
    found = find_words(statistics_of(tokenizer, [text]), tokenizer)
    words = [found.vocabulary[word] for word in found.words]
    return words[:-1] if len(words) > 1 else words


@pytest.mark.parametrize("build", [byte_level, sentence_piece, word_piece])
def test_pieces_become_words(build):
    tokenizer = build()
    pieces = tokenizer.tokenize("a red bananas.")
    assert len(pieces) > 4, "the tokenizer must cut words, or this shows nothing"
    assert words_of(tokenizer, "a red bananas.") == ["a", "red", "bananas", "."]


def test_without_marks_each_token_is_a_word():
    tokenizer = tiny_tokenizer()
    assert words_of(tokenizer, "a Red circle , a star .") == ["a", "red", "circle", ",", "a", "star", "."]


@pytest.mark.parametrize("build", [byte_level, sentence_piece])
def test_letters_outside_ascii_are_parts_of_words(build):
    tokenizer = build()
    text = "a café 日本 red"
    assert tokenizer.decode(tokenizer(text).input_ids).strip() == text
    assert len(tokenizer.tokenize("日本")) >= 6
    assert words_of(tokenizer, text) == ["a", "café", "日本", "red"]


def test_an_emoji_is_one_word():
    assert words_of(byte_level(), "a 🍌 red") == ["a", "🍌", "red"]


def test_punctuation_stands_alone_and_ends_a_word():
    assert words_of(byte_level(), "a red,banana.") == ["a", "red", ",", "banana", "."]
    assert words_of(word_piece(), "red , banana") == ["red", ",", "banana"]


def test_marks_and_line_breaks_alone_are_no_words():
    tokenizer = sentence_piece()
    mark = tokenizer.convert_tokens_to_ids("▁")
    line_break = tokenizer.convert_tokens_to_ids("<0x0A>")
    red, d = tokenizer.convert_tokens_to_ids(["▁re", "d"])
    tokens = np.array([red, d, mark, line_break, red, d], dtype=np.int64)
    found = find_words(plain_statistics(tokens), tokenizer)
    assert [found.vocabulary[word] for word in found.words][:-1] == ["red", "red"]


@pytest.mark.parametrize(
    "build, expected",
    [
        (byte_level, (True, False)),
        (sentence_piece, (True, False)),
        (word_piece, (False, True)),
        (tiny_tokenizer, (False, False)),
    ],
)
def test_the_marks_of_a_vocabulary(build, expected):
    assert has_word_marks(build()) == expected


def test_surprise_rows_and_the_whole_response():
    tokenizer = word_piece()
    # Tokens 0 to 3 are a, ban, ##ana, </s>; then red, </s>; then </s> alone
    found = find_words(statistics_of(tokenizer, ["a banana", "red", ""]), tokenizer)
    assert found.vocabulary == ["a", "banana", "a banana", "red"]
    assert found.words.tolist() == [0, 1, 2, 3] and found.rows.tolist() == [0, 0, 0, 1]
    # Less a quarter of a nat for each token; the end mark's 3 nats are in no word
    # The whole response counts by its mean
    assert found.surprise.tolist() == [0 - 0.25, 1 + 2 - 0.5, (0 + 1 + 2 - 0.75) / 3, 4 - 0.25]
    assert found.nll.tolist() == [0, 1 + 2, (0 + 1 + 2) / 3, 4]
    assert [(word, places.tolist()) for word, places in found.groups.in_rows(1)] == [(n, [n]) for n in range(4)]


def test_the_word_before_and_the_token_expected_where_a_word_starts():
    tokenizer = word_piece()
    found = find_words(statistics_of(tokenizer, ["a banana red", "red"]), tokenizer)
    assert found.vocabulary == ["a", "banana", "red", "a banana red"]
    # A whole response stands in no place of its own; the second row starts with the sixth token
    assert found.words.tolist() == [0, 1, 2, 3, 2]
    assert found.previous.tolist() == [-1, 0, 1, -1, -1]
    assert found.expected.tolist() == [100, 101, 103, -1, 105]


def test_a_special_token_in_the_middle_parts_words():
    tokenizer = byte_level()
    ban, ana, end = tokenizer.convert_tokens_to_ids(["Ġban", "ana", "</s>"])
    tokens = np.array([ban, end, ana], dtype=np.int64)
    nll = np.array([1.0, 50.0, 2.0], dtype=np.float32)
    found = find_words(plain_statistics(tokens, nll), tokenizer)
    assert [found.vocabulary[word] for word in found.words][:2] == ["ban", "ana"]
    assert found.surprise[:2].tolist() == [1.0, 2.0]


def test_equal_words_in_any_case_are_one():
    tokenizer = tiny_tokenizer()
    found = find_words(statistics_of(tokenizer, ["red circle", "RED star", "a red"]), tokenizer)
    places = {found.vocabulary[word]: places for word, places in found.groups.in_rows(1)}
    assert found.rows[places["red"]].tolist() == [0, 1, 2]
    assert {"red circle", "red star", "a red"} <= set(found.vocabulary)


def test_nothing_gives_nothing():
    tokenizer = tiny_tokenizer()
    found = find_words(TokenStatistics.from_batches([]), tokenizer)
    assert found.vocabulary == [] and len(found.words) == len(found.rows) == len(found.surprise) == 0
    assert list(find_words(statistics_of(tokenizer, [""]), tokenizer).words) == []


def test_words_in_enough_rows():
    found = occurrences(
        {"often": each(range(5), 1.0), "twice in each": each([3, 1, 3, 1], 1.0), "once": each([7], 1.0)}
    )
    assert found.groups.num_rows.tolist() == [5, 2, 1]
    rows = {word: found.rows[places].tolist() for word, places in found.groups.in_rows(2)}
    assert rows == {0: [0, 1, 2, 3, 4], 1: [1, 1, 3, 3]}
    assert [word for word, _ in found.groups.in_rows(3)] == [0]


def token_by_token(tokenizer, row: list[int]) -> list[tuple[int, int]]:
    """Where the words of a response begin and end, by the definition."""
    starts, continues = has_word_marks(tokenizer)
    spans: list[tuple[int, int]] = []
    goes_on = False
    for place, token in enumerate(row):
        text, form = tokenizer.decode([token]), str(tokenizer.convert_ids_to_tokens(token))
        if token in tokenizer.all_special_ids or not text.strip():
            goes_on = False
            continue
        is_start = form.startswith(("▁", "Ġ", " ")) if starts else not (continues and form.startswith("##"))
        is_word = any(letter.isalnum() or letter == "\ufffd" for letter in text)
        if goes_on and is_word and not is_start:
            spans[-1] = spans[-1][0], place + 1
        else:
            spans.append((place, place + 1))
        goes_on = is_word
    return spans


@pytest.mark.parametrize("build", [byte_level, sentence_piece, word_piece, tiny_tokenizer])
def test_random_tokens_against_the_definition(build):
    tokenizer, rng = build(), np.random.default_rng(0)
    counts = np.array([0, 1, 2, 30, 0, 0, 200, 7, 0])
    # Few different tokens too, so that words come again
    drawn = [
        rng.integers(0, len(tokenizer), counts.sum()),
        rng.choice(rng.integers(0, len(tokenizer), 6), counts.sum()),
    ]
    for tokens in drawn:
        nll, entropy = rng.random((2, len(tokens))).astype(np.float32)
        top1, offsets = rng.integers(0, 99, len(tokens)), np.cumsum([0, *counts])
        statistics = TokenStatistics(np.arange(len(counts)), offsets, tokens, nll, entropy, top1)
        found = find_words(statistics, tokenizer)
        expected = []
        for row in range(len(counts)):
            first, previous = int(offsets[row]), None
            spans = token_by_token(tokenizer, tokens[first : offsets[row + 1]].tolist())
            whole = [(spans[0][0], spans[-1][1])] if len(spans) > 1 else []
            for number, (start, end) in enumerate(spans + whole):
                is_whole = number == len(spans)
                part = slice(first + start, first + end)
                text = " ".join(tokenizer.decode(tokens[part].tolist(), skip_special_tokens=True).lower().split())
                sums = [float(values[part].astype(np.float64).sum()) for values in (nll - entropy, nll)]
                sums = [value / (end - start) if is_whole else value for value in sums]
                guess = -1 if is_whole else int(top1[first + start])
                expected.append((text, row, *sums, None if is_whole else previous, guess))
                previous = text
        names = [found.vocabulary[word] for word in found.words]
        before = [None if word < 0 else found.vocabulary[word] for word in found.previous]
        got = zip(names, found.rows, found.surprise, found.nll, before, found.expected, strict=True)
        for ours, theirs in zip(got, expected, strict=True):
            assert ours[:2] == theirs[:2] and ours[4:] == theirs[4:]
            assert ours[2:4] == pytest.approx(theirs[2:4], abs=1e-9)
        assert found.vocabulary == list(dict.fromkeys(names))


def test_of_likelihoods_alone_what_is_unlikely_is_a_surprise() -> None:
    tokenizer = byte_level()
    full = statistics_of(tokenizer, ["a red banana", "banana"])
    alone = replace(full, entropy=np.zeros(0, np.float32), top1=np.zeros(0, np.int32))
    found, expected = find_words(alone, tokenizer), find_words(full, tokenizer)
    assert np.array_equal(found.nll, expected.nll) and np.array_equal(found.surprise, expected.nll)
    assert (found.expected == -1).all() and found.vocabulary == expected.vocabulary
