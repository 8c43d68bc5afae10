# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Drop the rows whose states lie farthest out along the direction in which states differ most: spectral signatures.

Source: Tran, Li and Madry, "Spectral Signatures in Backdoor Attacks" (NeurIPS 2018). For each class, the states of the
last hidden layer are centred, and a row's score is its squared component along their first right singular vector. Of
a share of poisoned rows that is known, one and a half times as many rows are dropped.

Departures: there are no classes, so all rows are one; the state is that of the language model's last layer at the end
of the prompt, where it decides what to say first. The share of poisoned rows that is assumed is 5 %.
"""

from __future__ import annotations

import numpy as np

from .reading import Detection, Look
from .scoring import flag_share


ASSUMED_RATE = 0.05


def spectral_scores(states: np.ndarray) -> np.ndarray:
    """
    Squared component of each row's centred state along the first right singular vector of all of them.

    Args:
        states (`np.ndarray` of shape `(num_rows, D)`):
            States; a row of NaN scores 0.

    Returns:
        `np.ndarray` of shape `(num_rows,)`.
    """
    known = ~np.isnan(states).any(axis=1)
    scores = np.zeros(len(states))
    if known.any():
        centred = states[known] - states[known].mean(axis=0)
        scores[known] = (centred @ np.linalg.svd(centred, full_matrices=False)[2][0]) ** 2
    return scores


def detect_by_spectrum(look: Look) -> Detection:
    """
    Spectral signatures of the rows' states.

    Args:
        look ([`Look`]):
            By a model that was trained on the rows.

    Returns:
        [`Detection`]: squared components, and 7.5 % of the rows flagged.
    """
    scores = spectral_scores(look.reading.states)
    return Detection(scores, flag_share(scores, 1.5 * ASSUMED_RATE))
