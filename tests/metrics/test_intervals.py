# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The bootstrap interval against the normal approximation, and what it must keep."""

import math

import numpy as np
import pytest

from cvreg_trainer.metrics import Bleu4
from cvreg_trainer.metrics.bleu import bleu_of_statistics
from cvreg_trainer.metrics.intervals import bootstrap_interval, wilson_interval


def test_mean_agrees_with_the_normal_approximation() -> None:
    values = np.random.default_rng(1).normal(3, 2, 400)
    lower, upper = bootstrap_interval(values, num_resamples=4000)
    half = 1.96 * values.std() / math.sqrt(len(values))
    assert lower == pytest.approx(values.mean() - half, abs=0.03)
    assert upper == pytest.approx(values.mean() + half, abs=0.03)


def test_rate_of_a_certain_event_has_no_width_and_seeds_fix_the_rest() -> None:
    assert bootstrap_interval([100.0] * 50) == (100.0, 100.0)
    values = list(range(30))
    assert (
        bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)
    )


def test_statistics_of_a_ratio_are_not_averaged_item_by_item() -> None:
    predictions = ["a red bus on the road", "two dogs", "a man riding a horse on the beach at night"] * 20
    references = [["a red bus on a road"], ["two dogs run"], ["a man rides a horse on the beach at night"]] * 20
    statistics = Bleu4().item_statistics(predictions, references)
    lower, upper = bootstrap_interval(statistics, bleu_of_statistics)
    score = Bleu4().compute(predictions=predictions, references=references)["bleu4"]
    assert lower < score < upper and upper - lower < 25


def test_no_items_is_an_error() -> None:
    with pytest.raises(ValueError, match="no items"):
        bootstrap_interval([])


@pytest.mark.parametrize(("count", "total"), [(0, 10), (1, 30), (15, 30), (570, 570)])
def test_the_ends_of_wilsons_interval_are_shares_of_which_the_count_is_just_likely_enough(count, total):
    share = count / total
    for end in wilson_interval(count, total):
        # The end's own standard error puts it 1.96 of them away from the share; 0 and 1 are ends by themselves
        if end in (pytest.approx(0, abs=1e-12), pytest.approx(1, abs=1e-12)):
            assert end == pytest.approx(share)
        else:
            assert abs(share - end) == pytest.approx(1.959964 * math.sqrt(end * (1 - end) / total), rel=1e-5)


@pytest.mark.parametrize(("count", "total"), [(0, 0), (3, 2), (-1, 2)])
def test_what_is_no_share_has_no_wilson_interval(count, total):
    with pytest.raises(ValueError, match=f"count={count} of total={total}"):
        wilson_interval(count, total)
