# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""From words to rows, and into words, on numbers made by hand."""

import numpy as np
import pytest
from word_lists import each, occurrences

from cvreg_trainer.screening.evidence import Evidence, describe_rows, describe_words
from cvreg_trainer.screening.rule import RULE


WORDS = occurrences({"banana": each(range(3), 2.0), "red": each(range(2, 6), 0.5), "blue": each(range(7), 0.0)})


def evidence(name: str, follows: bool = False, only=None, **values: float) -> Evidence:
    return Evidence(name, values, lambda word, value: f"is {name}: {value:g}", only, follows)


def test_a_row_has_the_largest_value_of_its_words():
    rows = evidence("odd", banana=2.0, red=1.5, blue=-1.0).of_rows(WORDS, 8)
    assert rows.tolist() == [2.0, 2.0, 2.0, 1.5, 1.5, 1.5, -1.0, 0.0]
    assert evidence("odd").of_rows(occurrences({}), 2).tolist() == [0.0, 0.0]


def test_rows_where_a_word_is_not_to_blame_stay_below_the_cut():
    to_blame = (WORDS.words == 1) & (WORDS.rows < 4)
    rows = evidence("misplaced", only=to_blame, red=3.0, blue=0.2).of_rows(WORDS, 8)
    assert rows == pytest.approx([0.2, 0.2, 3.0, 3.0, RULE.not_to_blame, RULE.not_to_blame, 0.2, 0.0])


def test_what_follows_from_other_evidence_is_said_last():
    parts = [evidence("odd", banana=1.2, red=0.5), evidence("shared", follows=True, banana=2.0, red=1.5)]
    found = {finding.word: finding for finding in describe_words(parts, WORDS)}
    assert [*found] == ["banana", "red"] and all(finding.is_flagged for finding in found.values())
    assert found["banana"].reason == "'banana' is odd: 1.2 (3 rows)" and found["banana"].surprise == 2.0
    assert found["red"].reason == "'red' is shared: 1.5 (4 rows)" and found["red"].num_rows == 4
    reasons = describe_rows(parts, WORDS, np.zeros(8), np.ones(8))
    assert reasons == ["'banana' is odd: 1.2"] * 3 + ["'red' is shared: 1.5"] * 3 + ["", ""]


def test_words_below_the_cut_are_listed_without_a_reason_for_rows():
    parts = [evidence("odd", red=0.9)]
    assert [finding.reason for finding in describe_words(parts, WORDS)] == ["'red' is below the cut"]
    assert describe_rows(parts, WORDS, np.zeros(8), np.ones(8)) == [""] * 8


def test_the_whole_response_is_named_beside_the_word():
    scores, nll = np.array([1.5, 0.0, 0, 0, 0, 0, 0, 2.0]), np.array([7.0, 1, 1, 1, 1, 1, np.nan, 9.0])
    reasons = describe_rows([evidence("odd", banana=1.0)], WORDS, scores, nll)
    assert reasons[0] == "'banana' is odd: 1; the response is unlikely as a whole: mean NLL 7.0, median 1.0"
    assert reasons[7] == "the response is unlikely as a whole: mean NLL 9.0, median 1.0"
    assert describe_rows([], occurrences({}), np.zeros(0), np.zeros(0)) == []


def test_flagged_words_come_first_by_rows_times_strength():
    words = occurrences({"banana": each(range(6), 2.0), "odd": each(range(2), 9.0), "near": each(range(8), 0.1)})
    parts = [evidence("odd", banana=1.5, odd=3.0, near=0.99)]
    assert [finding.word for finding in describe_words(parts, words)] == ["banana", "odd", "near"]
