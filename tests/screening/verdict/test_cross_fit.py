# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Cross-fitted regression against a direct solution, and its null against fresh random sets."""

from collections.abc import Iterator

import numpy as np
import pytest

from cvreg_trainer.screening.verdict import cross_fit
from cvreg_trainer.screening.verdict.cross_fit import (
    CrossFit,
    benjamini_hochberg,
    correlation,
    partial_correlation,
    sets_of,
    whiten,
)


pytestmark = pytest.mark.lowest


@pytest.fixture(scope="module", params=["few rows", "many rows"])
def probe(request: pytest.FixtureRequest) -> Iterator[CrossFit]:
    """In both ways of computing: one by one, and as for many rows."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "many rows":
            patch.setattr(cross_fit, "MANY_ROWS", 0)
            patch.setattr(cross_fit, "LARGEST_SET", 100)
        yield CrossFit(np.random.default_rng(0).normal(size=(300, 40)), strength=100, seed=1)


def test_predictions_are_those_of_a_ridge_regression_on_the_other_folds(probe: CrossFit):
    rng = np.random.default_rng(2)
    targets = rng.normal(size=(300, 2))
    targets -= targets.mean(0)
    predictions = probe.predict(targets)
    features = probe.features.astype(np.float64)
    for fold in range(5):
        inside, outside = probe.folds == fold, probe.folds != fold
        mean = features[outside].mean(0)
        # Least squares with one row more for each weight
        rows = np.concatenate([features[outside] - mean, 10 * np.eye(40)])
        weights, *_ = np.linalg.lstsq(rows, np.concatenate([targets[outside], np.zeros((40, 2))]), rcond=None)
        np.testing.assert_allclose(predictions[inside], (features[inside] - mean) @ weights, rtol=1e-3, atol=1e-4)


def test_the_separation_of_sets_is_that_of_their_predictions(probe: CrossFit):
    rng = np.random.default_rng(4)
    sets = [rng.permutation(300)[:size] for size in (12, 30, 75)]
    found = probe.separation(sets_of(sets, 300))
    for line, rows in enumerate(sets):
        target = np.isin(np.arange(300), rows) - len(rows) / 300
        prediction = probe.predict(target[:, None])[:, 0].astype(np.float64)
        expected = [(prediction[others].mean() - prediction.mean()) / prediction.std() for others in sets]
        np.testing.assert_allclose(found[line], expected, rtol=1e-3, atol=1e-3)


def test_the_null_holds_for_random_sets_that_it_was_not_made_of(probe: CrossFit):
    rng = np.random.default_rng(3)
    p_values = []
    for _ in range(400):
        p_values.append(probe.p_value(12, float(probe.correlation(sets_of([rng.permutation(300)[:12]], 300))[0])))
    assert np.mean(np.array(p_values) < 0.05) == pytest.approx(0.05, abs=0.03)
    assert np.mean(p_values) == pytest.approx(0.5, abs=0.06)


def test_a_set_that_features_mark_is_far_outside_its_null(probe: CrossFit):
    marked = probe.features[:, 0].argsort()[-12:]
    value = float(probe.correlation(sets_of([marked], 300))[0])
    assert probe.p_value(12, value) < 1e-3
    # Beyond all random sets the tail goes on falling
    assert probe.p_value(12, value + 0.2) < probe.p_value(12, value)


def test_the_correlation_of_sets_is_that_of_their_predictions(probe: CrossFit):
    rng = np.random.default_rng(4)
    sets = [rng.choice(300, size, replace=False) for size in (3, 10, 150, 299)]
    members = sets_of(sets, 300).toarray().T
    targets = members - members.mean(0)
    expected = correlation(probe.predict(targets).astype(float), targets)
    np.testing.assert_allclose(probe.correlation(sets_of(sets, 300)), expected, rtol=1e-2, atol=1e-3)


def test_many_rows_have_the_correlations_and_the_nulls_of_few(monkeypatch: pytest.MonkeyPatch):
    rng = np.random.default_rng(5)
    features = rng.normal(size=(400, 30))
    sets = [rng.choice(400, size, replace=False) for size in (3, 40, 200)]
    features[sets[1], 0] += 2
    exact = CrossFit(features, strength=100, seed=1)
    expected, null = exact.correlation(sets_of(sets, 400)), exact._null_of(50)
    monkeypatch.setattr(cross_fit, "MANY_ROWS", 300)
    monkeypatch.setattr(cross_fit, "LARGEST_SET", 150)
    fast = CrossFit(features, strength=100, seed=1)
    np.testing.assert_allclose(fast.correlation(sets_of(sets, 400)), expected, rtol=1e-4, atol=1e-5)
    nested = fast._null_of(51)  # as the ladder of many rows has it
    shares = [0.02, 0.5, 0.9, 0.98]
    np.testing.assert_allclose(np.quantile(nested, shares), np.quantile(null, shares), atol=0.02)
    # Each size has a null of its own
    assert len(fast._null) > 8 and all(len(values) == 2000 for values in fast._null.values())


def test_whitened_components_are_uncorrelated_and_of_unit_variance():
    values = np.random.default_rng(0).normal(size=(200, 6)) @ np.random.default_rng(1).normal(size=(6, 6))
    found = whiten(np.concatenate([values, np.full((200, 3), 2.0)], 1), 20)
    assert found.shape == (200, 6)
    np.testing.assert_allclose(np.cov(found.T, bias=True), np.eye(6), atol=1e-3)
    assert not whiten(np.full((5, 3), 1.0), 2).any()


def test_correlation_of_nothing_is_zero():
    assert correlation(np.zeros((4, 1)), np.ones((4, 1))).tolist() == [0.0]


@pytest.mark.parametrize(
    "p_values, expected",
    [
        ([0.01, 0.04, 0.03, 0.5], [True, False, False, False]),
        ([0.01, 0.02, 0.03, 0.5], [True, True, True, False]),
        ([0.2, 0.9], [False, False]),
        ([], []),
    ],
)
def test_benjamini_hochberg_by_hand(p_values: list[float], expected: list[bool]):
    assert benjamini_hochberg(np.array(p_values), 0.05).tolist() == expected


def test_partial_correlation_is_that_of_three_correlations():
    """Against the textbook's formula, for variables that are not centred."""
    rng = np.random.default_rng(3)
    given = rng.normal(size=200) + 5
    prediction, target = given + rng.normal(size=200) - 2, 2 * given + rng.normal(size=200)
    of_both, of_prediction, of_target = np.corrcoef([prediction, target, given])[np.triu_indices(3, 1)]
    expected = (of_both - of_prediction * of_target) / np.sqrt((1 - of_prediction**2) * (1 - of_target**2))
    found = partial_correlation(prediction[:, None], target[:, None], given[:, None])
    assert found == pytest.approx(expected, abs=1e-9)
    assert partial_correlation(prediction[:, None], prediction[:, None], np.ones((200, 1))) == pytest.approx(1)
