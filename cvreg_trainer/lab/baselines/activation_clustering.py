# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Part the rows' states in two clusters and suspect the smaller: activation clustering.

Source: Chen et al., "Detecting Backdoor Attacks on Deep Neural Networks by Activation Clustering" (SafeAI 2019). For
each class, the activations of the last hidden layer are reduced to 10 dimensions by independent component analysis and
parted by 2-means. Clean data fall apart into halves, poisoned data into a large and a small cluster.

Departures: there are no classes, so all rows are one; the activations are the state of the language model's last layer
at the end of the prompt. The source looks at relative size, at the silhouette, or trains again without a cluster; here
it is relative size alone, and the smaller cluster is flagged if it has less than 35 % of the rows, the threshold of a
public implementation (the Adversarial Robustness Toolbox).
"""

from __future__ import annotations

import warnings

import numpy as np

from ...extras import from_extra
from .reading import Detection, Look


DIMENSIONS, LARGEST_SHARE = 10, 0.35


def cluster_activations(states: np.ndarray, seed: int = 0) -> Detection:
    """
    Two clusters of states.

    Args:
        states (`np.ndarray` of shape `(num_rows, D)`):
            States; rows of NaN are never flagged.
        seed (`int`, *optional*, defaults to `0`):
            Of both algorithms.

    Returns:
        [`Detection`]: how much nearer each row is to the smaller cluster's centre than to the larger one's, and that
        cluster if it is small.
    """
    with from_extra("report"):
        from sklearn.cluster import KMeans
        from sklearn.decomposition import FastICA
        from sklearn.exceptions import ConvergenceWarning

    known = ~np.isnan(states).any(axis=1)
    scores, flagged = np.zeros(len(states)), np.zeros(len(states), dtype=bool)
    if known.sum() < 2:
        return Detection(scores, flagged)
    dimensions = min(DIMENSIONS, states.shape[1], int(known.sum()) - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        ica = FastICA(dimensions, whiten="unit-variance", random_state=seed, max_iter=1000)
        reduced = ica.fit_transform(states[known])
    clusters = KMeans(2, n_init=10, random_state=seed).fit(reduced)
    distances = clusters.transform(reduced)  # (num_rows, 2)
    smaller = int(np.bincount(clusters.labels_, minlength=2).argmin())
    scores[known] = distances[:, 1 - smaller] - distances[:, smaller]
    scores[~known] = scores[known].min()
    members = clusters.labels_ == smaller
    flagged[known] = members & (members.mean() < LARGEST_SHARE)
    return Detection(scores, flagged)


def detect_by_clusters(look: Look) -> Detection:
    """
    Activation clustering of the rows' states.

    Args:
        look ([`Look`]):
            By a model that was trained on the rows.

    Returns:
        [`Detection`]: see [`cluster_activations`].
    """
    return cluster_activations(look.reading.states)
