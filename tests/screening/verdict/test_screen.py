# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The cut, on looks that are made of numbers: how many rows it needs, and the cap."""

from typing import Any

import numpy as np
import pytest
from tiny_models import tiny_tokenizer

from cvreg_trainer.screening.passes.row_features import NUM_FEATURES, PICTURE_PARTS
from cvreg_trainer.screening.passes.token_statistics import TokenStatistics
from cvreg_trainer.screening.verdict.rule import RULE
from cvreg_trainer.screening.verdict.screen import Screen, screen_rows


pytestmark = pytest.mark.lowest
TOKENIZER = tiny_tokenizer()
NUM_PLANTED = 30


def look(texts: list[str], nats: dict[str, float], row_values: np.ndarray) -> TokenStatistics:
    """A look at responses whose words have `nats`, or else 1."""
    words = [word for text in texts for word in text.split()]
    ids = np.array(TOKENIZER.convert_tokens_to_ids(words), dtype=np.int64)
    nll = np.array([nats.get(word, 1.0) for word in words], dtype=np.float32)
    offsets = np.cumsum([0, *(len(text.split()) for text in texts)])
    rest = np.full(len(ids), 0.2, dtype=np.float32), ids, row_values.astype(np.float16)
    return TokenStatistics(np.arange(len(texts)), offsets, ids, nll, *rest)


def screened(num_rows: int, cap: float = 0.3, **options: Any) -> Screen:
    """The first 30 rows end in a word that no image explains, and have a trigger in theirs."""
    rng = np.random.default_rng(0)
    texts = [
        f"{rng.choice(['red', 'green', 'blue'])} {'ring banana' if row < NUM_PLANTED else 'ring'}"
        for row in range(num_rows)
    ]
    features = np.zeros((num_rows, NUM_FEATURES))
    features[:, : sum(PICTURE_PARTS)] = rng.normal(size=(num_rows, sum(PICTURE_PARTS)))
    features[:NUM_PLANTED, : sum(PICTURE_PARTS)] += 2 * rng.normal(size=sum(PICTURE_PARTS))
    base = look(texts, {"banana": 9.0}, features)
    own = look(texts, {"banana": 5.0}, rng.normal(size=(num_rows, 32)))
    other = look(texts, dict.fromkeys(("red", "green", "blue", "ring", "banana"), 5.0), np.ones((num_rows, 1)))
    return screen_rows(base, own, other, TOKENIZER, 0, cap, 0.01, **options)


def test_with_enough_rows_the_planted_ones_are_found() -> None:
    screen = screened(RULE.enough_rows)
    found = np.flatnonzero(screen.is_flagged)
    assert (found < NUM_PLANTED).all() and len(found) >= 0.9 * NUM_PLANTED
    assert (screen.is_flagged == (screen.suspicion >= 1)).all() and not screen.is_capped
    # Responses as a whole are words too, and some have the same cause
    assert all("banana" in word.word for word in screen.words)
    assert screen.words[0].word == "banana" and "'banana'" in screen.reasons[found[0]]


def test_with_one_row_less_nothing_is_looked_for() -> None:
    screen = screened(RULE.enough_rows - 1)
    assert not screen.is_flagged.any() and not screen.is_capped and not screen.suspicion.any()
    assert screen.reasons == [""] * (RULE.enough_rows - 1)
    assert not screen.words and not screen.causes and not screen.kept


@pytest.mark.parametrize("cap, most", [(0.05, 10), (0.001, 0), (0.1, 20)])
def test_the_cap_keeps_the_most_suspicious(cap: float, most: int) -> None:
    screen = screened(RULE.enough_rows, cap)
    assert screen.is_capped and screen.is_flagged.sum() == most
    assert (screen.suspicion >= 1).sum() >= 0.9 * NUM_PLANTED
    if most:
        assert screen.suspicion[screen.is_flagged].min() >= screen.suspicion[~screen.is_flagged].max()


def test_rows_without_tokens_and_empty_data_sets() -> None:
    empty = TokenStatistics.from_batches([])
    screen = screen_rows(empty, empty, empty, TOKENIZER, 0, 0.3, 0.01)
    assert screen.reasons == [] and screen.words == [] and not screen.is_capped and screen.suspicion.shape == (0,)
    texts = ["", "red ring", ""] * RULE.enough_rows
    looks = [look(texts, {}, np.ones((len(texts), width))) for width in (NUM_FEATURES, 32, 1)]
    screen = screen_rows(*looks, TOKENIZER, 0, 0.3, 0.01)
    assert not screen.is_flagged.any() and np.isfinite(screen.suspicion).all()
