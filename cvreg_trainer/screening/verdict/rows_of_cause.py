# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""Which rows have a cause, given the prediction for each; and the null distribution for rows that have none."""

from __future__ import annotations

import numpy as np
from scipy.special import xlogy

from .cross_fit import benjamini_hochberg
from .rule import RULE


def beyond(values: np.ndarray, could_be: np.ndarray, others: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """
    Rows whose values lie beyond those of others, at the false discovery rate `false_rows`.

    Args:
        values (`np.ndarray` of shape `(R,)`):
            The prediction for each row.
        could_be (`np.ndarray` of shape `(R,)`, bool):
            Rows that may have the cause.
        others (`np.ndarray` of shape `(N,)`):
            Values of rows without it, in any order.
        weights (`np.ndarray` of shape `(R,)`):
            How likely each row is to have it, a priori and relative to others: p-values are divided by weights of
            mean 1 (Genovese et al. 2006).

    Returns:
        `np.ndarray` of shape `(R,)`, bool
    """
    others = np.sort(others)
    p_values = (1 + len(others) - np.searchsorted(others, values[could_be])) / (1 + len(others))
    p_values *= weights[could_be].mean() / weights[could_be]
    result = np.zeros(len(values), dtype=bool)
    result[could_be] = benjamini_hochberg(p_values, RULE.false_rows)
    return result


def mirrored(values: np.ndarray) -> np.ndarray:
    """The lower half of the values and its mirror image: their distribution if none of them had a cause."""
    middle = np.median(values)
    lower = values[values < middle]
    return np.concatenate([lower, 2 * middle - lower])


def mostly_unexplained(found: np.ndarray, values: np.ndarray, is_unexplained: np.ndarray) -> np.ndarray:
    """The found rows with the largest values, down to where honest ones begin, which are explained as often as not:
    the likeliest point at which the unexplained share changes to a half (Hinkley 1970). None if too many of these are
    explained. All arguments and the result are of shape `(R,)`."""
    rows = np.flatnonzero(found)
    rows = rows[np.argsort(-values[rows], kind="stable")]
    numbers = np.arange(1, len(rows) + 1)
    shares = np.cumsum(is_unexplained[rows]) / numbers
    # A share of their own for the first rows and a half for the others, against a half for all
    log_ratios = numbers * (np.log(2) + xlogy(shares, shares) + xlogy(1 - shares, 1 - shares))
    log_ratios[shares < RULE.mostly_unexplained] = 0
    result = np.zeros(len(found), dtype=bool)
    if log_ratios.any():
        result[rows[: np.argmax(log_ratios) + 1]] = True
    return result


def separation(ranks: np.ndarray, rows: np.ndarray) -> float:
    """Area under the ROC curve of a ranking `(R,)`, from 1 on, for some rows `(M,)` against all others."""
    number = len(rows)
    if number in (0, len(ranks)):
        return 0.5
    return float((ranks[rows].sum() - number * (number + 1) / 2) / (number * (len(ranks) - number)))
