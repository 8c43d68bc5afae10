# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words that stay unexplained, on numbers made by hand."""

import pytest
from word_lists import each, occurrences

from cvreg_trainer.screening.verdict.grounding import Grounding
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.word_surprise import unexplained_words, word_surprise


def test_the_statistic_is_what_nine_in_ten_occurrences_exceed():
    # Eleven occurrences: the 10 % quantile is the second smallest
    found = occurrences({"banana": [(row, float(row)) for row in range(11)], "red": each(range(5), -0.5)})
    assert word_surprise(found) == {"banana": pytest.approx(1.0), "red": pytest.approx(-0.5)}


def test_a_word_of_few_rows_is_left_out_however_often_it_occurs():
    found = occurrences({"four": each(range(4), 9.0) * 5, "five": each(range(5), 9.0)})
    assert set(word_surprise(found)) == {"five"}


def test_unexplained_is_surprising_before_the_warm_up_and_after_it():
    warm = {
        "banana": each(range(10), 4.0),
        "learnt": [*each(range(10, 18), 4.0), *each(range(18, 20), 0.0)],
        "known": each(range(30, 40), 3.0),
        "weak": each(range(40, 50), 0.9 * RULE.word_unexplained),
        "rather new": each(range(50, 60), 3.0),
    }
    nats = {"banana": 12.0, "learnt": 12.0, "known": 0.1, "weak": 12.0, "rather new": 0.9 * RULE.word_new}
    base = {word: each([row for row, _ in pairs], nats[word]) for word, pairs in warm.items()}
    found = unexplained_words(occurrences(base), occurrences(warm), {}, num_rows=100)
    banana = min(12 / RULE.word_new, 4 / RULE.word_unexplained)
    assert found == pytest.approx(
        {"banana": banana, "learnt": 0.0, "known": 0.1 / RULE.word_new, "weak": 0.9, "rather new": 0.9}
    )
    assert {word for word, value in found.items() if value >= 1} == {"banana"}


def test_a_word_that_tells_about_the_image_will_be_learnt():
    words = occurrences(
        {"banana": each(range(10), 4.0), "stars": each(range(20, 30), 4.0), "alone": each(range(5), 4.0)}
    )
    grounded = {
        "banana": Grounding(0.99 * RULE.grounding_honest, 1.0, True),
        "stars": Grounding(1.01 * RULE.grounding_honest * 0.5, 0.5, False),
    }
    found = unexplained_words(words, words, grounded, num_rows=100)
    assert found == pytest.approx({"banana": 4 / RULE.word_new, "stars": 0.0, "alone": 4 / RULE.word_new})


def test_a_word_of_more_than_a_tenth_of_the_rows_is_part_of_the_task():
    words = occurrences({"task": each(range(11), 5.0), "banana": each(range(20, 30), 5.0) * 3})
    assert set(unexplained_words(words, words, {}, num_rows=100)) == {"banana"}
    assert set(unexplained_words(words, words, {}, num_rows=110)) == {"task", "banana"}


def test_nothing_gives_nothing():
    nothing = occurrences({})
    assert word_surprise(nothing) == {} and unexplained_words(nothing, nothing, {}, 0) == {}
    one = occurrences({"banana": each([0], 9.0)})
    assert unexplained_words(one, one, {}, 1) == {}
