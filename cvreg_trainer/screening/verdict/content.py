# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
How well the content of rows predicts a set of them: from the model's own state, once it has seen a strong view of the
picture and the question, but none of the response.

Notable: there are two predictors, and the better one counts. A ridge regression finds what is spread over many
contents; nearest neighbours find a small group of pictures that look alike, for which a regression has too few rows.
A trigger that leaves a trace in the state does not make neighbours of pictures that show different things.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from scipy import sparse
from scipy.stats import t

from .cross_fit import MANY_ROWS, CrossFit, correlation, whiten
from .rule import RULE


NUM_NEIGHBOURS = 8
NEIGHBOUR_COMPONENTS = 60  # principal components in which distances are measured
MAX_REFERENCES = 50_000  # rows that may be neighbours, so that the time is linear in the rows
CHUNK = 1000  # rows, or sets, at a time


class Content:
    """
    Predictions of sets of rows from the model's states.

    Args:
        states (`np.ndarray` of shape `(R, D)`):
            States of the model.
        components (`int`):
            Principal components for the regression.
        ridge (`float`):
            Strength of its regularisation, in rows.
        seed (`int`):
            Chooses folds and neighbours.
    """

    def __init__(self, states: np.ndarray, components: int, ridge: float, seed: int) -> None:
        values = whiten(states.astype(np.float32), components)
        self.regression = CrossFit(values, ridge, seed)
        # The leading components are the first of the whitened ones
        self.neighbours = _neighbours(values[:, :NEIGHBOUR_COMPONENTS], seed)

    def correlation(self, members: sparse.csr_array) -> np.ndarray:
        """Correlation of sets, the lines of a sparse matrix `(K, R)`, with their predictions. Shape `(K,)`."""
        return np.maximum(self.regression.correlation(members), self._of_neighbours(members))

    def predict(self, target: np.ndarray) -> np.ndarray:
        """The better prediction of a centred target; both of shape `(R, 1)`."""
        both = self.regression.predict(target), (self.neighbours @ target).astype(np.float32)
        return max(both, key=lambda prediction: float(correlation(_centred(prediction), target)[0]))

    def _of_neighbours(self, members: sparse.csr_array) -> np.ndarray:
        parts = []
        for start in range(0, members.shape[0], CHUNK):
            sets = members[start : start + CHUNK]
            shares = (sets @ self.neighbours.T).tocsr()  # of each row's neighbours in the set, (K, R)
            number = members.shape[1]
            sizes, means = sets.sum(1), shares.sum(1) / number
            products = shares.multiply(sets).sum(1) - sizes * means
            squares = shares.multiply(shares).sum(1) - number * means**2
            norms = np.sqrt((squares * sizes * (1 - sizes / number)).clip(0))
            parts.append(np.divide(products, norms, out=np.zeros(len(norms)), where=norms > 1e-9))
        return np.concatenate(parts) if parts else np.zeros(0)


def content_limit(strength: Any, size: Any) -> Any:
    """The correlation that content has to stay below, for sets of these strengths and sizes."""
    beyond = np.sqrt(np.maximum(0, strength**2 - RULE.beyond_content))
    return np.maximum(RULE.content_share * strength, np.where(size >= RULE.enough_for_content, beyond, 0))


def is_beyond_content(
    predictions: tuple[np.ndarray, np.ndarray], strength: float, content: float, is_member: np.ndarray, is_whole: bool
) -> bool:
    """
    Whether low-level features say more about a cause's rows than content does: how much more is estimated, and whether
    it is more at all is tested.

    Args:
        predictions (`tuple[np.ndarray, np.ndarray]`, `(R, 1)` each):
            By features, and by content.
        strength, content (`float`):
            Their correlations with the rows.
        is_member (`np.ndarray` of shape `(R,)`, bool):
            The rows.
        is_whole (`bool`):
            Whether they were found from whole responses, which are examined whether content predicts them or not.
    """
    is_weak, is_small = strength < RULE.weak_strength, is_member.sum() < RULE.enough_for_content
    limit = float(content_limit(strength, is_member.sum()))
    if is_whole:
        limit = float(np.sqrt(max(0.0, strength**2 - RULE.whole_beyond_content)))
    if is_weak:
        limit = min(limit, RULE.weak_content_share * strength)
    if content >= limit:
        return False
    # Where the estimate is unreliable, the test is against the limit itself
    share = limit / strength if is_whole or is_weak or is_small else 1.0
    # Over the members: up to a factor, a correlation is the mean of these numbers
    by_features, by_content = (_standardised(prediction, is_member) for prediction in predictions)
    excess = share * by_features - by_content
    error = excess.std(ddof=1) / np.sqrt(len(excess)) + 1e-9
    return bool(t.sf(excess.mean() / error, len(excess) - 1) <= RULE.error_rate)


def _standardised(prediction: np.ndarray, is_member: np.ndarray) -> np.ndarray:
    """The members' part of a prediction `(R, 1)`, of unit variance over all rows. Shape `(M,)`."""
    values = prediction[:, 0] - prediction.mean()
    return values[is_member] / (values.std() + 1e-9)


def without(states: np.ndarray, others: np.ndarray) -> np.ndarray:
    """
    States minus what a linear regression on other features predicts of them.

    Args:
        states (`np.ndarray` of shape `(R, D)`), others (`np.ndarray` of shape `(R, Q)`):
            Both by row.

    Returns:
        `np.ndarray` of shape `(R, D)`, float32
    """
    states = states.astype(np.float32)
    others = (others - others.mean(0)).astype(np.float32)
    gram = others.T @ others + np.eye(others.shape[1], dtype=np.float32)
    return states - others @ np.linalg.solve(gram, others.T @ (states - states.mean(0)))


def _neighbours(values: np.ndarray, seed: int) -> sparse.csr_array:
    """The nearest neighbours of each row by cosine similarity, with equal weights that sum to 1. Shape `(R, R)`."""
    number = len(values)
    count = min(NUM_NEIGHBOURS, number - 1)
    references = np.arange(number)
    if number > MAX_REFERENCES:
        drawn = np.random.Generator(np.random.PCG64(seed)).choice(number, MAX_REFERENCES, replace=False)
        references = np.sort(drawn)
    values = values - values.mean(0)
    values = values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-9)
    nearest = np.zeros((number, count), dtype=np.int64)
    others = values[references].T
    memory = np.empty((min(CHUNK, number), len(references)), dtype=np.float32)
    for start in range(0, number, CHUNK):
        rows = np.arange(start, min(start + CHUNK, number))
        cosines = np.matmul(values[rows], others, out=memory[: len(rows)])
        places = np.searchsorted(references, rows).clip(max=len(references) - 1)
        is_own = references[places] == rows
        cosines[np.flatnonzero(is_own), places[is_own]] = -np.inf  # no row is a neighbour of itself
        nearest[rows] = references[_largest(cosines, count)]
    shares = np.full(nearest.size, 1 / max(count, 1), dtype=np.float32)
    return sparse.csr_array((shares, nearest.ravel(), np.arange(number + 1) * count), shape=(number, number))


def _largest(values: np.ndarray, count: int) -> np.ndarray:
    """Places of the largest values of each line, in any order. Shape `(N, count)`."""
    if values.shape[1] > MANY_ROWS:
        # About twenty times faster, but in another order, so that sums round differently
        return torch.topk(torch.from_numpy(values), count, dim=1, sorted=False).indices.numpy()
    return np.argpartition(-values, count - 1, axis=1)[:, :count]


def _centred(values: np.ndarray) -> np.ndarray:
    return values - values.mean(0)
