# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Responses that stay unlikely as a whole: the sign of a response that replaces the true one.

BYORn (arXiv 2606.02947) ranks responses by their likelihood under the pretrained model and drops the lower 40 %. Where
the honest responses are as new to that model as the poisoned ones, this is no better than chance. After a short
warm-up it tells them apart, and the tail stands so far out that no share has to be chosen.
"""

from __future__ import annotations

import numpy as np


# Distances from the median, in units of the distance between the median and the upper quartile
FENCE = 4.5
ROUNDS = 6


def response_surprise(row_nll: np.ndarray) -> np.ndarray:
    """
    How far each response stands out, relative to the fence: 1 or more means outside.

    Median and quartile are those of the rows inside the fence, found in a few rounds, so that many poisoned rows do
    not hide each other.

    Args:
        row_nll (`np.ndarray` of shape `(R,)`):
            Mean negative log-likelihood of each response after the warm-up; NaN for rows without supervised tokens,
            which get 0.

    Returns:
        `np.ndarray` of shape `(R,)`.
    """
    is_valid = np.isfinite(row_nll)
    scores = np.zeros(len(row_nll))
    is_inside = is_valid
    for _ in range(ROUNDS):
        if not is_inside.any():
            break
        median, quartile = np.quantile(row_nll[is_inside], [0.5, 0.75])
        spread = max(quartile - median, 1e-6)
        scores = np.where(is_valid, (row_nll - median) / spread / FENCE, 0.0)
        inside = is_valid & (scores < 1)
        if (inside == is_inside).all():
            break
        is_inside = inside
    return scores
