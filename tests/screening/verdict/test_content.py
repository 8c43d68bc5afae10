# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
import numpy as np
import pytest

from cvreg_trainer.screening.verdict import content as module
from cvreg_trainer.screening.verdict.content import Content, without
from cvreg_trainer.screening.verdict.cross_fit import CrossFit, correlation, sets_of, whiten


pytestmark = pytest.mark.lowest
NUM_ROWS = 300


def states(seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(NUM_ROWS, 20))


def in_set(rows: np.ndarray) -> np.ndarray:
    target = np.zeros((NUM_ROWS, 1), dtype=np.float32)
    target[rows] = 1
    return target - target.mean()


def neighbours_by_hand(values: np.ndarray, members: set[int]) -> np.ndarray:
    """The share of the members among each row's eight nearest neighbours by the cosine, in float64."""
    values = values.astype(np.float64) - values.astype(np.float64).mean(0)
    shares = np.zeros(NUM_ROWS)
    for row in range(NUM_ROWS):
        cosines = values @ values[row] / np.linalg.norm(values, axis=1) / np.linalg.norm(values[row])
        nearest = [place for place in np.argsort(-cosines) if place != row][:8]
        shares[row] = sum(place in members for place in nearest) / 8
    return shares


def test_the_largest_values_are_the_same_in_both_ways(monkeypatch: pytest.MonkeyPatch):
    values = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
    expected = np.sort(np.argsort(-values, axis=1)[:, :8], axis=1)
    assert np.array_equal(np.sort(module._largest(values.copy(), 8), axis=1), expected)
    monkeypatch.setattr(module, "MANY_ROWS", 10)
    assert np.array_equal(np.sort(module._largest(values.copy(), 8), axis=1), expected)


def test_the_nearest_neighbours_find_a_small_group_that_a_regression_hardly_does():
    values = states()
    rows = np.arange(6)
    values[rows] = values[0] + 0.1 * values[rows]
    content = Content(values, 20, 100.0, 0)
    found = content.correlation(sets_of([rows], NUM_ROWS))[0]
    shares = neighbours_by_hand(whiten(values, 20), set(rows.tolist()))
    expected = np.corrcoef(shares, in_set(rows)[:, 0])[0, 1]
    assert found == pytest.approx(expected, abs=1e-5)
    assert found > CrossFit(whiten(values, 20), 100.0, 0).correlation(sets_of([rows], NUM_ROWS))[0] + 0.1
    np.testing.assert_allclose(content.predict(in_set(rows))[:, 0], shares - len(rows) / NUM_ROWS, atol=1e-5)


def test_a_regression_finds_what_is_spread_over_many_contents():
    values = states()
    rows = np.flatnonzero(values[:, 0] > 0.3)
    regression = CrossFit(whiten(values, 20), 100.0, 0)
    content = Content(values, 20, 100.0, 0)
    found = content.correlation(sets_of([rows], NUM_ROWS))[0]
    assert found == pytest.approx(regression.correlation(sets_of([rows], NUM_ROWS))[0]) and found > 0.5
    np.testing.assert_allclose(content.predict(in_set(rows)), regression.predict(in_set(rows)), atol=1e-6)
    assert correlation(content.predict(in_set(rows)), in_set(rows))[0] == pytest.approx(found, abs=0.02)


def test_random_sets_are_predicted_by_chance_only():
    rng = np.random.default_rng(1)
    sets = sets_of([np.sort(rng.choice(NUM_ROWS, 30, replace=False)) for _ in range(200)], NUM_ROWS)
    found = Content(states(), 20, 100.0, 0).correlation(sets)
    assert abs(found.mean()) < 0.06 and found.max() < 0.35


def test_of_many_rows_only_some_are_neighbours(monkeypatch: pytest.MonkeyPatch):
    values = states()
    values[:150] = 3 * values[0] + values[:150]
    monkeypatch.setattr(module, "MAX_REFERENCES", 100)
    monkeypatch.setattr(module, "CHUNK", 70)
    content = Content(values, 20, 100.0, 0)
    assert len(np.unique(content.neighbours.indices)) <= 100
    assert not content.neighbours.diagonal().any()
    assert content.correlation(sets_of([np.arange(150)], NUM_ROWS))[0] > 0.8


def test_sets_of_no_and_of_all_rows_and_states_that_are_all_alike():
    sets = sets_of([np.zeros(0, dtype=int), np.arange(NUM_ROWS), np.arange(5)], NUM_ROWS)
    np.testing.assert_array_equal(Content(states(), 20, 100.0, 0).correlation(sets)[:2], 0)
    alike = Content(np.ones((NUM_ROWS, 20)), 20, 100.0, 0)
    assert np.isfinite(alike.correlation(sets)).all() and np.isfinite(alike.predict(in_set(np.arange(5)))).all()


def test_without_takes_out_what_others_say():
    rng = np.random.default_rng(0)
    others = (rng.random((NUM_ROWS, 4)) < 0.3).astype(np.float32)
    values = states()
    mixed = values + 5 * others @ rng.normal(size=(4, 20))
    residual = without(mixed, others)
    for column in others.T:
        kept = np.corrcoef(np.column_stack([residual, column]), rowvar=False)[-1, :-1]
        assert np.abs(kept).max() < 0.15
    centred, residual = values - values.mean(0), residual - residual.mean(0)
    assert np.corrcoef(residual.ravel(), centred.ravel())[0, 1] > 0.97
