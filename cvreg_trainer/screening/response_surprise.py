# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Responses that stay unlikely as a whole: the sign of a response that replaces the true one.

BYORn (arXiv 2606.02947) ranks responses by their likelihood under the pretrained model and drops the lower 40 %. Where
the honest responses are as new to that model as the poisoned ones, this is no better than chance. After a short
warm-up it separates them, and the tail stands so far out that no share has to be chosen.
"""

from __future__ import annotations

import numpy as np

from .fence import beyond_fence


def response_surprise(row_nll: np.ndarray) -> np.ndarray:
    """
    How far each response stands out, relative to the fence: 1 or more means outside. See [`beyond_fence`].

    Args:
        row_nll (`np.ndarray` of shape `(R,)`):
            Mean negative log-likelihood of each response after the warm-up; NaN for rows without supervised tokens,
            which get 0.

    Returns:
        `np.ndarray` of shape `(R,)`.
    """
    return beyond_fence(row_nll)
