# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words that stay unexplained, on numbers made by hand."""

import numpy as np
import pytest

from cvreg_trainer.screening.word_surprise import THRESHOLD, unexplained_words, word_surprise
from cvreg_trainer.screening.words import WordOccurrences


def occurrences(words: dict[str, list[tuple[int, float]]]) -> WordOccurrences:
    """From `(row, surprise)` pairs of each word, in a mixed order."""
    entries = [(index, *pair) for index, pairs in enumerate(words.values()) for pair in pairs]
    entries = [entries[place] for place in np.random.default_rng(0).permutation(len(entries))]
    numbers = np.array([entry[0] for entry in entries], dtype=np.int64)
    rows = np.array([entry[1] for entry in entries], dtype=np.int64)
    return WordOccurrences(list(words), numbers, rows, np.array([entry[2] for entry in entries], dtype=np.float64))


def each(rows, surprise: float) -> list[tuple[int, float]]:
    return [(row, surprise) for row in rows]


def test_the_statistic_is_what_nine_in_ten_occurrences_exceed():
    # Eleven occurrences: the 10 % quantile is the second smallest
    found = occurrences({"banana": [(row, float(row)) for row in range(11)], "red": each(range(5), -0.5)})
    assert word_surprise(found) == {"banana": pytest.approx(1.0), "red": pytest.approx(-0.5)}


def test_a_word_of_few_rows_is_left_out_however_often_it_occurs():
    found = occurrences({"four": each(range(4), 9.0) * 5, "five": each(range(5), 9.0)})
    assert set(word_surprise(found)) == {"five"} and set(word_surprise(found, min_rows=4)) == {"four", "five"}


def test_unexplained_is_surprising_at_every_look():
    warm = {
        "banana": each(range(10), 4.0),
        "learnt": [*each(range(10, 18), 4.0), *each(range(18, 22), 0.0)],
        "known": each(range(30, 40), 3.0),
        "weak": each(range(40, 50), 0.9 * THRESHOLD),
        "unseen": each(range(50, 56), 2.0),
        "once": each(range(60, 66), 2.5),
        "early": each(range(70, 80), 3.0),
    }
    base = {
        **{
            word: each([entry[0] for entry in warm[word][::4]], 12.0) for word in ("banana", "learnt", "weak", "early")
        },
        "known": each(range(30, 40, 4), 0.1),
        # One row of the sample says nothing about a word
        "once": each([60], 0.0),
    }
    early = {"banana": each(range(0, 10, 4), 5.0), "early": each(range(70, 80, 4), 0.2)}
    found = unexplained_words(occurrences(warm), [occurrences(base), occurrences(early)], num_rows=100)
    nats = {
        "banana": 4.0,
        "learnt": 0.0,
        "known": 0.1,
        "weak": 0.9 * THRESHOLD,
        "unseen": 2.0,
        "once": 2.5,
        "early": 0.2,
    }
    assert found == pytest.approx({word: surprise / THRESHOLD for word, surprise in nats.items()})
    assert {word for word, value in found.items() if value >= 1} == {"banana", "unseen", "once"}


def test_a_word_of_more_than_15_percent_of_the_rows_is_part_of_the_task():
    warm = occurrences({"task": each(range(16), 5.0), "banana": each(range(20, 35), 5.0) * 3})
    nothing = occurrences({})
    assert set(unexplained_words(warm, [nothing], num_rows=100)) == {"banana"}
    assert set(unexplained_words(warm, [nothing], num_rows=107)) == {"task", "banana"}


def test_nothing_gives_nothing():
    nothing = occurrences({})
    assert word_surprise(nothing) == {} and unexplained_words(nothing, [nothing], 0) == {}
    one = occurrences({"banana": each([0], 9.0)})
    assert unexplained_words(one, [nothing], 1) == {}
