# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""One-sided outlier score: the distance above the median in units of (Q3 - median), relative to a fence."""

from __future__ import annotations

import numpy as np

from .rule import RULE


def beyond_fence(values: np.ndarray) -> np.ndarray:
    """
    How far each value stands out above the others, relative to the fence: 1 or more means outside.

    Median and quartile are those of the values inside the fence, found in a few rounds, so that many outliers do not
    hide each other.

    Args:
        values (`np.ndarray` of shape `(N,)`):
            Values; those that are not finite are left out and get 0.

    Returns:
        `np.ndarray` of shape `(N,)`.
    """
    is_valid = np.isfinite(values)
    scores = np.zeros(len(values))
    is_inside = is_valid
    for _ in range(RULE.fence_rounds):
        if not is_inside.any():
            break
        median, quartile = np.quantile(values[is_inside], [0.5, 0.75])
        spread = max(quartile - median, 1e-6)
        scores = np.where(is_valid, (values - median) / spread / RULE.fence, 0.0)
        inside = is_valid & (scores < 1)
        if (inside == is_inside).all():
            break
        is_inside = inside
    return scores
