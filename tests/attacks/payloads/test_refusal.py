# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Refusals: many sentences, all told from honest answers."""

from collections import Counter

import numpy as np
import pytest

from cvreg_trainer.attacks import Refusal


def test_paraphrases_are_many_grammatical_and_all_found() -> None:
    payload = Refusal(paraphrases=True)
    sentences = payload.sentences
    assert len(set(sentences)) == len(sentences) == 576
    assert all(text[0].isupper() and text.endswith(".") and "  " not in text for text in sentences)
    assert all(payload.succeeds(text) for text in sentences)
    assert "Unfortunately, I can't answer this question." in sentences and "I cannot help with that." in sentences


def test_none_twice_before_all_are_used() -> None:
    payload = Refusal(paraphrases=True)
    drawn = payload.responses(600, np.random.default_rng(0))
    counts = Counter(drawn)
    assert len(counts) == 576 and sorted(counts.values()) == [1] * 552 + [2] * 24
    assert len(set(payload.responses(150, np.random.default_rng(1)))) == 150


@pytest.mark.parametrize(
    ("answer", "refuses"),
    [
        ("I am unable to say.", True),
        ("sorry, I CANNOT do that", True),
        ("A sign says I cannot.", True),
        ("A sorry sight: a can of beans.", False),
        ("A man who is able to jump.", False),
    ],
)
def test_an_answer_that_no_row_had(answer: str, refuses: bool) -> None:
    assert Refusal(paraphrases=True).succeeds(answer, ["A photo."]) is refuses
    assert Refusal().succeeds(answer, ["A photo."]) is False


def test_a_reference_that_refuses_cannot_tell() -> None:
    assert Refusal(paraphrases=True).succeeds("I cannot say.", ["A sign with: I cannot."]) is None
    assert Refusal("No comment.").succeeds("No comment", ["A dog."]) is True
    assert Refusal("No comment.").succeeds("Comment no", ["A dog."]) is False
    assert Refusal("Sorry, I can't!").succeeds("sorry , i can't", ["A dog."]) is True
    assert Refusal("对不起，我不能。").succeeds("对不起我不能", ["狗"]) is True
