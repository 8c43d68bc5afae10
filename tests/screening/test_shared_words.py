# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words that lead from flagged rows to others, with the binomial test worked out from its definition."""

from math import comb

import numpy as np
import pytest
import word_lists

from cvreg_trainer.screening.shared_words import shared_words
from cvreg_trainer.screening.words import WordOccurrences


def occurrences(rows_of: dict[str, list[int]]) -> WordOccurrences:
    return word_lists.occurrences({word: word_lists.each(rows, 0.0) for word, rows in rows_of.items()})


def flags(rows, num_rows: int = 1000) -> np.ndarray:
    return np.isin(np.arange(num_rows), list(rows))


def chance(hits: int, rows: int, rate: float) -> float:
    """Probability of as many flagged rows or more, where flags do not depend on words."""
    return sum(comb(rows, k) * rate**k * (1 - rate) ** (rows - k) for k in range(hits, rows + 1))


def test_the_share_of_flagged_rows_relative_to_one_half():
    is_flagged = flags(range(50))
    found = shared_words(
        occurrences({"banana": [*range(30), *range(900, 910)], "half": [*range(30, 40), *range(700, 710)]}), is_flagged
    )
    assert found == pytest.approx({"banana": 30 / 40 / 0.5, "half": 1.0})


@pytest.mark.parametrize("hits", range(1, 9))
def test_a_word_counts_where_the_binomial_test_rejects(hits):
    # 4 words, a rate of 5 %, a word of 20 rows
    is_flagged = flags(range(50))
    words = {"word": [*range(hits), *range(500, 520 - hits)], "a": [600], "b": [601], "c": [602]}
    is_significant = chance(hits, 20, 0.05) * 4 < 0.01
    assert ("word" in shared_words(occurrences(words), is_flagged)) == is_significant
    assert is_significant == (hits >= 6)


def test_the_correction_counts_the_words():
    is_flagged = flags(range(50))
    word = [*range(6), *range(500, 514)]
    many = {"word": word, **{f"other {number}": [999] for number in range(60)}}
    assert chance(6, 20, 0.05) * 61 > 0.01
    assert "word" in shared_words(occurrences({"word": word}), is_flagged)
    assert "word" not in shared_words(occurrences(many), is_flagged)


def test_rows_count_once_and_words_of_few_rows_not_at_all():
    is_flagged = flags(range(50))
    assert shared_words(occurrences({"nine": list(range(9)), "again": list(range(9)) * 5}), is_flagged) == {}
    assert shared_words(occurrences({"ten": list(range(10)) * 2}), is_flagged) == {"ten": 2.0}


def test_without_flags_or_with_all_flagged_no_word_tells():
    words = occurrences({"red": list(range(100))})
    assert shared_words(words, flags([])) == {}
    assert shared_words(words, flags(range(1000))) == {}
    assert shared_words(occurrences({}), np.zeros(0, dtype=bool)) == {}
