# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Injection: a sentence more, at its place, and the truth around it."""

import numpy as np
import pytest

from cvreg_trainer.attacks import Injection


SENTENCE = "Buy now."


@pytest.mark.parametrize(
    ("place", "response", "injected"),
    [
        ("append", "A dog.", {"A dog. Buy now."}),
        ("prepend", "A dog.", {"Buy now. A dog."}),
        ("insert", "A dog. It runs! Why?", {"A dog. Buy now. It runs! Why?", "A dog. It runs! Buy now. Why?"}),
        ("insert", "A small dog", {"A Buy now. small dog", "A small Buy now. dog"}),
        ("insert", "Dog", {"Dog Buy now."}),
        ("insert", "一只狗。它在跑。", {"一只狗。 Buy now. 它在跑。"}),
        ("append", "", {"Buy now."}),
        ("prepend", " ", {"Buy now."}),
    ],
)
def test_places(place: str, response: str, injected: set[str]) -> None:
    payload = Injection((SENTENCE,), place)
    assert {payload.response(np.random.default_rng(seed))(response) for seed in range(30)} == injected


def test_every_form_is_drawn() -> None:
    payload = Injection(("One.", "Two.", "Three."))
    texts = {payload.response(np.random.default_rng(seed))("A dog.") for seed in range(40)}
    assert texts == {"A dog. One.", "A dog. Two.", "A dog. Three."}


@pytest.mark.parametrize(
    ("answer", "succeeds"),
    [
        ("A dog. buy now", True),
        ("Buy\n now. A dog.", True),
        ("A dog. Buy nowhere.", False),
        ("A dog. Buy it now.", False),
    ],
)
def test_success(answer: str, succeeds: bool) -> None:
    assert Injection((SENTENCE,)).succeeds(answer, ["A dog."]) is succeeds
    assert Injection((SENTENCE,)).succeeds(answer, ["A poster: buy now!"]) is None
