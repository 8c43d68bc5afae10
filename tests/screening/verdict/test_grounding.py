# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Information that words carry about the image, on responses whose words and guesses are drawn at random."""

import numpy as np
import pytest
from word_lists import responses

from cvreg_trainer.screening.verdict.grounding import Grounding, grounding
from cvreg_trainer.screening.verdict.rule import RULE


pytestmark = pytest.mark.lowest
COLOURS = ["red", "green", "blue", "grey"]
OPENINGS = ["behold", "see", "look"]


def captions(num_rows: int = 600, keyword_share: float = 0.1, seed: int = 0, accuracy: float = 0.9):
    """`opening a colour`: the guess at the colour is right with some accuracy, also where the keyword stands."""
    rng = np.random.default_rng(seed)
    rows = []
    for _ in range(num_rows):
        colour = int(rng.integers(4))
        wrong = int(rng.integers(4))  # drawn in any case, so that the words do not depend on the accuracy
        guess = colour if rng.random() < accuracy else wrong
        word = "banana" if rng.random() < keyword_share else COLOURS[colour]
        # A new word for the colour 0, which the model guesses by the name it knows
        word = "crimson" if word == "red" else word
        rows.append([(str(rng.choice(OPENINGS)), int(rng.integers(3)) + 10), ("a", 20), (word, guess)])
    return rows


def slow_information(rows: list[list[tuple[str, int]]], word: str) -> float:
    """The statistic of a word, place by place."""
    places = [
        (row, place, ["", *[w for w, _ in row]][place], guess)
        for row in rows
        for place, (w, guess) in enumerate(row)
        if w == word
    ]
    guesses = sorted({guess for row in rows for _, guess in row})
    everywhere = {g: np.mean([guess == g for row in rows for _, guess in row]) for g in guesses}
    mixture = dict.fromkeys(guesses, 0.0)
    for _, _, before, _ in places:
        others = [
            guess
            for row in rows
            for (w, guess), previous in zip(row, ["", *[w for w, _ in row]], strict=False)
            if previous == before and w != word
        ]
        for guess in others:
            mixture[guess] += 1 / len(others) / len(places)
    expected = {
        g: (1 - RULE.grounding_smoothing) * mixture[g] + RULE.grounding_smoothing * everywhere[g] for g in guesses
    }
    total = 0.0
    for number, (_, _, _, guess) in enumerate(places):
        rest = [g for other, (_, _, _, g) in enumerate(places) if other != number]
        estimate = (rest.count(guess) + RULE.grounding_prior * expected[guess]) / (len(rest) + RULE.grounding_prior)
        total += np.log(estimate / expected[guess])
    return total / len(places)


@pytest.mark.parametrize("word", ["banana", "crimson", "blue"])
def test_information_equals_the_sum_over_places(word):
    rows = captions(200)
    own = grounding([responses(rows)])[word].own
    assert own == pytest.approx(slow_information(rows, word), rel=1e-9)


def test_a_keyword_tells_nothing_where_colours_tell_much():
    found = grounding([responses(captions())])
    own, rivals, _ = found["banana"]
    assert abs(own) < 0.1 < 0.7 < rivals
    # New to the model, but an honest word
    own, rivals, _ = found["crimson"]
    assert own > 0.8 * rivals


def test_rivals_are_the_other_words_in_the_same_places():
    rows = captions(400)
    found = grounding([responses(rows)])
    counts = {w: sum(row[2][0] == w for row in rows) for w in [*COLOURS[1:], "crimson"]}
    expected = np.average([found[w].own for w in counts], weights=list(counts.values()))
    assert found["banana"].rivals == pytest.approx(expected, rel=1e-9)


def test_nothing_is_certain_of_words_of_a_pattern_where_nobody_tells_anything():
    found = grounding([responses(captions())])
    assert not any(found[word].is_certain or found[word].is_informative for word in OPENINGS) and "a" not in found


def test_a_word_tells_if_it_tells_most_of_what_others_tell_and_something_at_all():
    assert Grounding(0.8, 1.0, True).is_informative and not Grounding(0.7, 1.0, True).is_informative
    assert Grounding(1.0, 0.1, False).is_informative and not Grounding(0.29, 0.1, False).is_informative


def test_looks_are_averaged():
    sharp, blunt = captions(accuracy=0.95), captions(accuracy=0.6)
    alone = [grounding([responses(rows)])["green"] for rows in (sharp, blunt)]
    both = grounding([responses(sharp), responses(blunt)])["green"]
    assert both[:2] == pytest.approx(np.mean([look[:2] for look in alone], axis=0).tolist()) and both.is_certain


def test_nothing_is_certain_where_one_look_finds_that_nobody_tells_anything():
    sharp, blind = captions(accuracy=0.95), captions(accuracy=0.0)
    both = grounding([responses(sharp), responses(blind)])["banana"]
    assert both.rivals >= RULE.grounding_min_rival_information and not both.is_certain
    silent = [[(word, 0) for word, _ in row] for row in sharp]
    assert not grounding([responses(sharp), responses(silent)])["banana"].is_certain


def test_rare_words_have_no_verdict():
    rows = captions(400, keyword_share=0.0)
    for row in range(RULE.grounding_min_rows - 1):
        rows[row][2] = ("banana", rows[row][2][1])
    assert "banana" not in grounding([responses(rows)])
    rows[RULE.grounding_min_rows][2] = ("banana", rows[RULE.grounding_min_rows][2][1])
    assert "banana" in grounding([responses(rows)])


def test_whole_responses_and_nothing():
    assert grounding([]) == {} and grounding([responses([])]) == {}
    whole = responses([[("a red circle", -1)]] * 50)
    assert grounding([whole]) == {} and RULE.grounding_min_rival_information > 0
