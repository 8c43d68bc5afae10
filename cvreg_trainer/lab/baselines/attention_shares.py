# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Drop the rows in which some heads share their attention out otherwise, between template, image and text: TCAP.

Source: Liu, Fang and Cong, "TCAP: Tri-Component Attention Profiling for Unsupervised Backdoor Detection in MLLM
Fine-Tuning" (arXiv 2601.21692, ICML 2026). The model that was trained on the rows reads each of them up to the end of
the prompt, and each head's attention from there is summed over the system's part (role tags and special tokens
included), the image and the user's text. A Gaussian mixture, of one to five components by Akaike's criterion, is
fitted to the scaled shares of the system; its components make a minority and a majority, and a head's separation is
the inverse of their densities' overlap. The best separated heads of the last layers vote for the rows of their
minority, and an EM after Dawid and Skene weighs the votes; rows of a posterior above a half are dropped.

Departures: the paper was read in others' summaries, not its code, so these are our own choices: the last half of the
layers, 10 heads, a vote from a posterior of a half on; the minority is the lighter end of the components in the order
of their means, where they part best, and has 1 % of the rows or more, so that no head stands out for a single row.
The EM starts from the mean of the votes. The score is the posterior's log-odds. Where the template has no system
message, the system's part is its role tags and special tokens.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...extras import from_extra
from .reading import SYSTEM, Detection, Look


NUM_HEADS, LAYER_SHARE, VOTE = 10, 0.5, 0.5
MOST_COMPONENTS, LEAST_SHARE = 5, 0.01
ITERATIONS = 100


def divergent_rows(shares: np.ndarray) -> Detection:
    """
    The rows for which the most sensitive heads vote.

    Args:
        shares (`np.ndarray` of shape `(num_rows, L, H, 3)`):
            `shares` of a [`Reading`].

    Returns:
        [`Detection`]: log-odds of the posterior, and the rows where it is above 0.
    """
    layers = shares.shape[1]
    known = ~np.isnan(shares).any(axis=(1, 2, 3))
    system = shares[known][:, layers - max(1, int(LAYER_SHARE * layers)) :, :, SYSTEM]
    system = system.reshape(len(system), -1)
    scores, flagged = np.zeros(len(shares)), np.zeros(len(shares), dtype=bool)
    if len(system) <= MOST_COMPONENTS:
        return Detection(scores, flagged)
    heads = [_minority(system[:, head]) for head in range(system.shape[1])]
    best = sorted(range(len(heads)), key=lambda head: -heads[head][0])[:NUM_HEADS]
    votes = [heads[head][1] > VOTE for head in best if heads[head][0] > 0]
    if not votes:
        return Detection(scores, flagged)
    scores[known] = vote_log_odds(np.stack(votes, axis=1))
    scores[~known] = scores[known].min()
    flagged[known] = scores[known] > 0
    return Detection(scores, flagged)


def detect_by_attention_shares(look: Look) -> Detection:
    """
    TCAP on the rows.

    Args:
        look ([`Look`]):
            By a model that was trained on the rows.

    Returns:
        [`Detection`]: see [`divergent_rows`].
    """
    return divergent_rows(look.reading.shares)


def _minority(values: np.ndarray) -> tuple[float, np.ndarray]:
    """How well a head's minority is separated, 0 if it has none, and each row's posterior of being in it."""
    spread = np.ptp(values)
    if spread == 0:
        return 0.0, np.zeros(len(values))
    scaled = ((values - values.min()) / spread)[:, None]
    mixture = _fit(scaled)
    order = mixture.means_.ravel().argsort()
    grid = np.linspace(-0.2, 1.2, 1401)
    densities = mixture.weights_ * _normal(grid[:, None], mixture.means_.ravel(), mixture.covariances_.ravel())
    best, members = 0.0, order[:0]
    for cut in range(1, len(order)):
        low, high = order[:cut], order[cut:]
        lighter = low if mixture.weights_[low].sum() < 0.5 else high
        if mixture.weights_[lighter].sum() < LEAST_SHARE:
            continue
        overlap = np.minimum(densities[:, low].sum(1), densities[:, high].sum(1)).sum() * (grid[1] - grid[0])
        if 1 / (overlap + 1e-6) > best:
            best, members = 1 / (overlap + 1e-6), lighter
    return best, mixture.predict_proba(scaled)[:, members].sum(1)


def _fit(values: np.ndarray) -> Any:
    with from_extra("report"):
        from sklearn.mixture import GaussianMixture

    fitted = [GaussianMixture(number, random_state=0).fit(values) for number in range(1, MOST_COMPONENTS + 1)]
    return min(fitted, key=lambda mixture: mixture.aic(values))


def _normal(values: np.ndarray, means: np.ndarray, variances: np.ndarray) -> np.ndarray:
    return np.exp(-((values - means) ** 2) / (2 * variances)) / np.sqrt(2 * np.pi * variances)


def vote_log_odds(votes: np.ndarray) -> np.ndarray:
    """
    What the votes of heads of unknown reliability come to, by the EM of Dawid and Skene (Applied Statistics, 1979).

    Args:
        votes (`np.ndarray` of bool, shape `(num_rows, num_heads)`):
            For each row, which heads say that it is poisoned.

    Returns:
        `np.ndarray` of shape `(num_rows,)`: log-odds of being poisoned.
    """
    odds = np.log((votes.mean(1) + 1e-3) / (1 - votes.mean(1) + 1e-3))
    for _ in range(ITERATIONS):
        poisoned = 1 / (1 + np.exp(-odds))
        # Half a row of each kind and vote, so that no head is ever sure
        hits = (votes.T @ poisoned + 0.5) / (poisoned.sum() + 1)
        false = (votes.T @ (1 - poisoned) + 0.5) / ((1 - poisoned).sum() + 1)
        rate = (poisoned.sum() + 0.5) / (len(votes) + 1)
        for_it, against = np.log(hits / false), np.log((1 - hits) / (1 - false))
        odds = np.log(rate / (1 - rate)) + votes @ for_it + ~votes @ against
    return odds
