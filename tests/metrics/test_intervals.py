# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""The bootstrap interval against the normal approximation, and what it must keep."""

import math

import numpy as np
import pytest

from cvreg_trainer.metrics import Bleu4
from cvreg_trainer.metrics.bleu import bleu_of_statistics
from cvreg_trainer.metrics.intervals import bootstrap_interval


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
