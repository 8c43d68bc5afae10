# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The words of the question that tell rows apart."""

from cvreg_trainer.screening.audit.question_words import MAX_WORDS, telling_words


COLOURS = ("red", "blue", "green", "grey")


def questions(number: int) -> list[str]:
    return [f"What is the {COLOURS[row % 4]} thing in picture {row}?" for row in range(number)]


def test_a_word_that_only_these_rows_have():
    asked = [f"Consider: {text}" if row < 10 or row == 60 else text for row, text in enumerate(questions(100))]
    assert telling_words(asked, range(10)) == ((":", 10, 1), ("consider", 10, 1))
    # It need not be in all of them
    assert ("consider", 10, 1) in telling_words(asked, range(15))


def test_words_that_all_rows_have_or_few_of_them_tell_nothing():
    assert telling_words(questions(100), range(0, 100, 4)) == (("red", 25, 0),)
    assert telling_words(questions(100), range(20)) == ()
    # Two rows are too few to be sure
    asked = [f"Consider {text}" if row < 2 else text for row, text in enumerate(questions(20))]
    assert telling_words(asked, range(2)) == ()


def test_at_most_ten_words_and_no_failure_without_questions():
    long = " ".join(f"word{place}" for place in range(30))
    asked = [long if row < 10 else "what" for row in range(100)]
    assert len(telling_words(asked, range(10))) == MAX_WORDS
    assert telling_words([""] * 20, range(5)) == () == telling_words([], [])
    assert telling_words(["a"] * 20, range(20)) == ()
