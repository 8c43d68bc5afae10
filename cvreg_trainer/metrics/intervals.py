# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""How far a score may be off because the test set is what it is: bootstrap over the items, and Wilson's for shares."""

from __future__ import annotations

import math
from collections.abc import Callable
from statistics import NormalDist
from typing import Any

import numpy as np


def bootstrap_interval(
    items: Any,
    statistic: Callable[[np.ndarray], np.ndarray] | None = None,
    confidence: float = 0.95,
    num_resamples: int = 1000,
    seed: int = 0,
) -> tuple[float, float]:
    """
    Percentile bootstrap interval of a score (Efron and Tibshirani, 1993, chapter 13).

    Args:
        items (`array_like` of shape `(N,)` or `(N, K)`):
            What each item contributes to the score.
        statistic (`Callable`, *optional*):
            Maps the means over the items of the resamples, of shape `(R,)` or `(R, K)`, to scores `(R,)`. Defaults to
            the means themselves.
        confidence (`float`, *optional*, defaults to `0.95`):
            Probability mass of the interval.
        num_resamples (`int`, *optional*, defaults to `1000`):
            Number of resamples.
        seed (`int`, *optional*, defaults to `0`):
            Seed of the resampling.

    Returns:
        `tuple[float, float]`: lower and upper end.

    Raises:
        `ValueError`: if there are no items.
    """
    values = np.asarray(items, dtype=np.float64)
    if len(values) == 0:
        raise ValueError("There are no items to resample.")
    rng = np.random.default_rng(seed)
    # The counts of the draws are enough; the resamples themselves would be R times the data
    counts = rng.multinomial(len(values), np.full(len(values), 1 / len(values)), size=num_resamples)
    means = counts @ values / len(values)
    scores = means if statistic is None else statistic(means)
    tail = 100 * (1 - confidence) / 2
    lower, upper = np.percentile(scores, [tail, 100 - tail])
    return float(lower), float(upper)


def wilson_interval(count: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """
    Score interval of a share (Wilson, "Probable Inference, the Law of Succession, and Statistical Inference", 1927).
    It is usable for few items and for shares of 0 and 1, where a bootstrap has nothing to draw from.

    Args:
        count (`int`), total (`int`):
            Items that count, and all of them.
        confidence (`float`, *optional*, defaults to `0.95`):
            Probability mass of the interval.

    Returns:
        `tuple[float, float]`: lower and upper end, from 0 to 1.

    Raises:
        `ValueError`: if there are no items, or `count` is not among 0 to `total`.
    """
    if not 0 <= count <= total or total == 0:
        raise ValueError(f"count={count} of total={total} is not a share.")
    z = NormalDist().inv_cdf((1 + confidence) / 2)
    share, scale = count / total, 1 + z**2 / total
    centre = (share + z**2 / (2 * total)) / scale
    margin = z / scale * math.sqrt(share * (1 - share) / total + z**2 / (4 * total**2))
    return max(0.0, centre - margin), min(1.0, centre + margin)
