# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Words that carry no information, on numbers made by hand."""

import pytest
from word_lists import each, occurrences

from cvreg_trainer.screening.verdict.grounding import Grounding
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.ungrounded_words import ungrounded_words


def test_the_score_is_how_little_a_word_tells_of_what_its_rivals_tell():
    base = occurrences({word: each(range(50), 9.0) for word in ("banana", "moon", "edge", "against")})
    nats = {
        "banana": (0.0, 1.5),
        "moon": (0.3, 0.6),
        "edge": (RULE.ungrounded_max_share * 2, 2.0),
        "against": (-0.5, 1.0),
    }
    grounded = {word: Grounding(*pair, True) for word, pair in nats.items()}
    found = ungrounded_words(base, grounded)
    expected = {
        "banana": 1 / (1 - RULE.ungrounded_max_share),
        "moon": 0.5 / (1 - RULE.ungrounded_max_share),
        "edge": 1.0,
    }
    assert found == pytest.approx({**expected, "against": 1.5 / (1 - RULE.ungrounded_max_share)})


def test_words_that_the_base_model_expects_or_nobody_can_compare_are_left_out():
    places = range(RULE.ungrounded_min_rows)
    words = {
        "banana": each(places, RULE.word_new),
        "lovely": each(places, 0.9 * RULE.word_new),
        "behold": each(places, 9.0),
        "rare": each(range(RULE.ungrounded_min_rows - 1), 9.0) * 2,
        "doubtful": each(places, 9.0),
    }
    grounded = dict.fromkeys(("banana", "lovely", "rare"), Grounding(0.0, 1.0, True))
    grounded["doubtful"] = Grounding(0.0, 1.0, False)
    assert set(ungrounded_words(occurrences(words), grounded)) == {"banana"}
    assert ungrounded_words(occurrences({}), {}) == {}
