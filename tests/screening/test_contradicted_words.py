# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Well-known words in places where they do not belong, on numbers made by hand."""

import numpy as np
import pytest
from word_lists import each, occurrences

from cvreg_trainer.screening.contradicted_words import contradicted_words
from cvreg_trainer.screening.rule import RULE


def known(contradicted: int, rows: int = 100, start: int = 0) -> list[tuple[int, float]]:
    """Occurrences of a word of which the base model contradicts some, and is not sure of one more."""
    nats = (
        [1.1 * RULE.known_contradicted] * contradicted + [1.1 * RULE.known_unexpected] + [0.9 * RULE.known_nats] * rows
    )
    return [(start + row, nats[row]) for row in range(rows)]


def test_the_score_is_the_share_of_contradicted_occurrences():
    words = occurrences({"red": known(40), "blue": known(5)})
    shares, is_unexpected = contradicted_words(words, num_rows=1000)
    assert shares == pytest.approx(
        {"red": 0.4 / RULE.known_min_contradicted, "blue": 0.05 / RULE.known_min_contradicted}
    )
    assert sorted(words.rows[is_unexpected & (words.words == 0)].tolist()) == list(range(41))
    assert is_unexpected.sum() == 41 + 6


def test_a_word_stands_out_among_the_others_or_not_at_all():
    quiet = {f"quiet{number}": known(number) for number in range(10)}
    loud = {f"loud{number}": known(20 + 3 * number) for number in range(10)}
    for others, is_found in ((quiet, True), (loud, False)):
        shares, _ = contradicted_words(occurrences({**others, "red": known(40)}), num_rows=1000)
        assert {word for word, share in shares.items() if share >= 1} == ({"red"} if is_found else set())


def test_a_word_is_well_known_though_more_than_half_of_its_places_are_not_its_own():
    words = {"red": known(54), "new": known(60)}
    assert set(contradicted_words(occurrences(words), num_rows=1000)[0]) == {"red"}


def test_words_that_are_new_rare_or_everywhere_are_left_out():
    words = {
        "known": [*each(range(50), 0.9 * RULE.known_nats), *each(range(50, 90), 9.0)],
        "new": each(range(90), 1.1 * RULE.known_nats),
        "rare": each(range(49), 0.0) * 3,
        "everywhere": each(range(301), 0.0),
    }
    assert set(contradicted_words(occurrences(words), num_rows=1000)[0]) == {"known"}
    assert set(contradicted_words(occurrences(words), num_rows=980)[0]) == {"known", "rare"}
    assert set(contradicted_words(occurrences(words), num_rows=1004)[0]) == {"known", "everywhere"}


def test_nothing_gives_nothing():
    shares, is_unexpected = contradicted_words(occurrences({}), 0)
    assert shares == {} and is_unexpected.shape == (0,) and is_unexpected.dtype == np.bool_
