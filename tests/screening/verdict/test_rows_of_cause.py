# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Rows of a cause, from numbers."""

import numpy as np
import pytest
from scipy.stats import binom, false_discovery_control, mannwhitneyu

from cvreg_trainer.screening.verdict.rows_of_cause import beyond, mirrored, mostly_unexplained, separation
from cvreg_trainer.screening.verdict.rule import RULE


pytestmark = pytest.mark.lowest


def test_rows_beyond_others_are_those_of_benjamini_and_hochberg():
    rng = np.random.default_rng(0)
    values = np.concatenate([rng.normal(4, 1, 30), rng.normal(0, 1, 370)])
    could_be = np.arange(400) < 100
    found = beyond(values, could_be, values[~could_be], np.ones(400))
    p_values = [(1 + (values[~could_be] >= value).sum()) / 301 for value in values[could_be]]
    assert found[could_be].tolist() == (false_discovery_control(p_values) <= RULE.false_rows).tolist()
    assert found[:30].sum() > 20 and not found[~could_be].any()


def test_a_row_of_little_weight_needs_more():
    values, could_be = np.array([3.5, 3.5, *np.linspace(-3, 3, 200)]), np.arange(202) < 2
    weights = np.where(np.arange(202) == 0, 1.95, 0.05)
    for given, expected in ((np.ones(202), [True, True]), (weights, [True, False])):
        assert beyond(values, could_be, values[2:], given).tolist()[:2] == expected


def test_the_mirrored_null_does_not_see_the_upper_half():
    values = np.random.default_rng(1).normal(size=1001)
    null = mirrored(values)
    assert np.median(null) == pytest.approx(np.median(values), abs=0.01)
    assert null.max() + null.min() == pytest.approx(2 * np.median(values))
    assert np.array_equal(mirrored(np.where(values > np.median(values), values + 100, values)), null)


@pytest.mark.parametrize("share", [1.0, 0.9])
def test_rows_are_taken_down_to_where_honest_ones_begin(share: float):
    """Against the likelihoods of all places for the change, written out."""
    rng = np.random.default_rng(0)
    values, is_unexplained = (
        -np.arange(100.0),
        np.where(np.arange(100) < 40, rng.random(100) < share, np.arange(100) % 2),
    )
    is_unexplained = is_unexplained.astype(bool)
    found = mostly_unexplained(values > -80, values, is_unexplained)
    assert np.array_equal(np.flatnonzero(found), np.arange(found.sum())) and 36 <= found.sum() <= 44
    best, likeliest = 0, -np.inf
    for number in range(1, 81):
        of_first = binom(1, is_unexplained[:number].mean()).pmf(is_unexplained[:number]).prod()
        log_likelihood = np.log(of_first) + (80 - number) * np.log(0.5)
        if is_unexplained[:number].mean() >= RULE.mostly_unexplained and log_likelihood > likeliest:
            best, likeliest = number, log_likelihood
    assert found.sum() == best


def test_no_rows_are_taken_if_too_many_of_the_first_are_explained():
    values, is_unexplained = -np.arange(100.0), np.arange(100) % 4 > 0
    assert not mostly_unexplained(values > -80, values, is_unexplained).any()
    assert not mostly_unexplained(np.zeros(100, dtype=bool), values, is_unexplained).any()


def test_the_separation_is_the_statistic_of_mann_and_whitney():
    ranks, rows = np.random.default_rng(2).permutation(50) + 1.0, np.array([3, 8, 20, 41])
    statistic = mannwhitneyu(ranks[rows], np.delete(ranks, rows)).statistic
    assert separation(ranks, rows) == pytest.approx(statistic / (4 * 46))
    assert separation(ranks, rows[:0]) == separation(ranks, np.arange(50)) == 0.5
