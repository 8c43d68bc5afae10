# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The fence, on numbers made by hand."""

import numpy as np
import pytest

from cvreg_trainer.screening.fence import beyond_fence


def test_the_score_is_the_distance_from_the_median_in_fences():
    # Median 2, upper quartile 3: the fence is at 2 + 4.5
    scores = beyond_fence(np.array([0.0, 1.0, 2.0, 3.0, 4.0]))
    assert scores == pytest.approx((np.arange(5) - 2) / 4.5)


def test_the_fence_is_that_of_the_rows_inside():
    scores = beyond_fence(np.array([0.0, 1.0, 2.0, 3.0, 4.0, 6.4, 100.0]))
    # In the first round, with 100 among them, the median is 3 and the quartile 5.2; then 2.5 and 3.75: 6.4 is inside
    assert scores[-1] == pytest.approx((100 - 2.5) / 1.25 / 4.5) and (scores[:-1] < 1).all()


@pytest.mark.parametrize("share", [0.01, 0.1, 0.2, 0.24])
def test_many_poisoned_rows_do_not_hide_each_other(share):
    rng = np.random.default_rng(0)
    is_poisoned = np.arange(1000) < share * 1000
    scores = beyond_fence(np.where(is_poisoned, rng.normal(6, 0.2, 1000), rng.normal(1, 0.3, 1000)))
    assert (scores[is_poisoned] >= 1).all()
    assert (scores[~is_poisoned] >= 1).mean() < 0.01


@pytest.mark.parametrize("make", [lambda rng: rng.normal(1, 0.3, 5000), lambda rng: rng.gamma(4, 0.3, 5000)])
def test_honest_rows_stay_inside(make):
    assert (beyond_fence(make(np.random.default_rng(0))) >= 1).mean() < 0.03


def test_likely_responses_are_never_outside():
    scores = beyond_fence(np.array([1.0, 1.1, 1.2, 1.3, 1.4, -50.0]))
    assert scores[-1] < 0 and (scores < 1).all()


def test_rows_without_tokens_get_0_and_do_not_move_the_fence():
    values = np.array([0.0, 1.0, 2.0, 3.0, 4.0])
    scores = beyond_fence(np.concatenate([[np.nan, np.nan], values, [np.nan]]))
    assert scores[[0, 1, -1]].tolist() == [0, 0, 0]
    assert scores[2:-1] == pytest.approx(beyond_fence(values))


@pytest.mark.parametrize("values", [[], [3.0], [np.nan], [2.0] * 50, [np.nan, np.nan, 1.0]])
def test_where_nothing_stands_out_nothing_is_outside(values):
    scores = beyond_fence(np.array(values, dtype=np.float64))
    assert scores.shape == (len(values),) and (scores == 0).all()
