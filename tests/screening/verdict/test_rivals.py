# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rivals: what stands where a word stands in other rows."""

import numpy as np

from cvreg_trainer.screening.verdict.rivals import Rivals
from cvreg_trainer.screening.verdict.words import WordOccurrences


def rivals(*sentences: list[tuple[str, str]], end: str = "") -> Rivals:
    """Of sentences of words, each with what a model expects in its place."""
    words = [word for sentence in sentences for word, _ in sentence]
    expected = [place for sentence in sentences for _, place in sentence]
    previous = [word for sentence in sentences for word in ["", *(word for word, _ in sentence[:-1])]]
    rows = np.repeat(np.arange(len(sentences)), [len(sentence) for sentence in sentences])
    vocabulary, places = list(dict.fromkeys(words)), list(dict.fromkeys(expected))
    numbers = {word: number for number, word in enumerate(vocabulary)} | {"": -1}
    nothing = np.zeros(len(words))
    return Rivals(
        WordOccurrences(
            vocabulary,
            np.array([numbers[word] for word in words], dtype=np.int32),
            rows.astype(np.int32),
            nothing,
            nothing,
            np.array([numbers[word] for word in previous], dtype=np.int32),
            np.array([places.index(place) for place in expected], dtype=np.int32),
        ),
        [place for place, name in enumerate(places) if name == end],
    )


def captions(words: dict[str, int], place: str = "left") -> list[list[tuple[str, str]]]:
    return [[("moon", "moon"), (word, place), ("star", "star")] for word, count in words.items() for _ in range(count)]


def test_words_of_one_place_that_all_have_causes_are_a_detail_that_is_not_seen():
    found = rivals(*captions({"left": 30, "right": 20, "above": 10}))
    assert found.unseen(["left", "right", "above"]) == {"left", "right", "above"}


def test_a_trigger_singles_out_one_word():
    found = rivals(*captions({"left": 30, "right": 20, "banana": 10}))
    assert found.unseen(["banana"]) == set()
    # Two payloads, of which each is most of the other's rivals with a cause, among more that have none
    found = rivals(*captions({"left": 30, "right": 20, "banana": 10, "cherry": 10}))
    assert found.unseen(["banana", "cherry"]) == set()


def test_words_of_one_payload_are_no_rivals():
    """Paraphrases of a refusal stand in each other's places, and have one cause; *left* has another."""
    found = rivals(*captions({"sorry": 30, "cannot": 20, "left": 10}))
    words = ["sorry", "cannot", "left"]
    is_rival = np.array([[False, False, True], [False, False, True], [True, True, False]])
    assert found.unseen(words) == set(words)
    # Of the rivals of the first two, 10 of 30 and 10 of 40 have a cause of their own; of the third's, all
    assert found.unseen(words, is_rival) == {"left"}
    # A word is never its own rival
    assert found.unseen(words, is_rival | np.eye(3, dtype=bool)) == {"left"}


def test_more_than_a_third_of_the_rivals_have_to_have_a_cause():
    # Of the rivals of "above", 10 of 31 and 10 of 29
    for others, is_unseen in ((21, False), (19, True)):
        found = rivals(*captions({"above": 40, "below": 10, "beside": others}))
        assert ("above" in found.unseen(["above", "below"])) == is_unseen


def test_places_weigh_as_a_word_has_them():
    seen, unseen = captions({"red": 40, "blue": 40}, "red"), captions({"left": 30, "red": 30})
    found = rivals(*seen, *unseen)
    # Of the rivals of "red", none of those in 40 of its places and all in 30
    assert found.unseen(["left", "red"]) == {"left", "red"}
    found = rivals(*captions({"red": 80, "blue": 40}, "red"), *unseen)
    assert found.unseen(["left", "red"]) == {"left"}


def test_a_word_in_a_place_of_its_own_goes_with_the_one_before():
    sentences = [[*sentence[:2], ("of", "of")] for sentence in captions({"left": 30, "right": 20})]
    sheets = [[("sheet", "sheet"), ("of", "of"), ("paper", "paper")]] * 40
    found = rivals(*sentences, *sheets)
    assert found.unseen(["left", "right", "of"]) == {"left", "right", "of"}
    # Nothing is unseen before it
    assert found.unseen(["of"]) == set()
    # Mostly it follows something else
    assert rivals(*sentences, *sheets * 4).unseen(["left", "right", "of"]) == {"left", "right"}


def test_the_verdict_is_passed_on_along_a_phrase():
    phrase = [[("moon", "moon"), (word, "left"), ("of", "of"), ("the", "the")] for word in ["left", "right"] * 20]
    assert rivals(*phrase).unseen(["the", "of", "left", "right"]) == {"the", "of", "left", "right"}


def test_where_responses_end_rivals_are_not_known():
    """Two appended slogans: where they begin, the other rows end, and the end of a response is not a word."""
    rows = captions({"left": 30, "right": 20}), captions({"get": 10, "buy": 10}, "</s>")
    assert rivals(*rows[0], *rows[1], end="</s>").unseen(["get", "buy"]) == set()
    assert rivals(*rows[0], *rows[1]).unseen(["get", "buy"]) == {"get", "buy"}


def test_whole_responses_stand_in_no_place():
    three = np.zeros(3, dtype=np.int32)
    found = Rivals(WordOccurrences(["a moon"], *(three,) * 5, expected=three - 1))
    assert found.unseen(["a moon"]) == set() == found.unseen([])
