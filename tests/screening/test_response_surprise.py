# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Unlikely responses: which way is unlikely, and rows without a response."""

import numpy as np

from cvreg_trainer.screening.response_surprise import response_surprise


def test_only_unlikely_responses_stand_out():
    row_nll = np.concatenate([np.random.default_rng(0).normal(2, 0.1, 100), [9.0, 0.0, np.nan]])
    assert np.flatnonzero(response_surprise(row_nll) >= 1).tolist() == [100]
