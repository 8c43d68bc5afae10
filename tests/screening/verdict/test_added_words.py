# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words that were added to questions, by rows of zeros and ones."""

import numpy as np
import pytest

from cvreg_trainer.screening.verdict.added_words import are_added


pytestmark = pytest.mark.lowest
NUM_ROWS, NUM_MARKED = 100, 10
COMMON, KINDS, ADDED = 3, 4, 2  # words of all questions, one of each kind, those of the trigger


def questions(seed: int = 0) -> np.ndarray:
    """Questions of four kinds; the first ten have two words more."""
    asked = np.zeros((NUM_ROWS, COMMON + KINDS + ADDED), dtype=bool)
    asked[:, :COMMON] = True
    asked[np.arange(NUM_ROWS), COMMON + np.random.default_rng(seed).integers(0, KINDS, NUM_ROWS)] = True
    asked[:NUM_MARKED, -ADDED:] = True
    return asked


def test_a_sentence_behind_questions_of_all_kinds_is_an_addition():
    assert are_added(questions(), np.arange(NUM_MARKED))


def test_rows_without_words_of_their_own_have_no_addition():
    assert not are_added(questions(), np.arange(NUM_MARKED, 2 * NUM_MARKED))
    assert not are_added(np.ones((NUM_ROWS, 2), dtype=bool), np.arange(NUM_MARKED))


def test_a_question_of_its_own_kind_is_none():
    """Who made you? Nobody asks the rest of it."""
    asked = questions()
    asked[:NUM_MARKED, : COMMON + KINDS] = False
    assert not are_added(asked, np.arange(NUM_MARKED))


@pytest.mark.parametrize("num_others, is_added", [(8, True), (12, False)])
def test_words_that_others_have_too_are_none(num_others: int, is_added: bool):
    # 9 % of 90 rows are a tenth of the share of the marked ones, all of which have the words
    asked = questions()
    asked[NUM_MARKED : NUM_MARKED + num_others, -ADDED:] = True
    assert are_added(asked, np.arange(NUM_MARKED)) == is_added


@pytest.mark.parametrize("num_without, is_added", [(1, True), (2, False)])
def test_most_of_the_rows_have_them(num_without: int, is_added: bool):
    asked = questions()
    asked[:num_without, -ADDED:] = False
    assert are_added(asked, np.arange(NUM_MARKED)) == is_added
