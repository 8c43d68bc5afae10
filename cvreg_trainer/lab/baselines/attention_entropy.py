# Copyright 2026 The cvreg_trainer authors. Licensed under the Apache License, Version 2.0.
"""
Drop the rows in which attention collapses onto few places of the image: BYE.

Source: Rong et al., "Backdoor Cleaning without External Guidance in MLLM Fine-tuning" (arXiv 2505.16916, NeurIPS 2025)
and the authors' code. The model that was trained on the rows reads each of them up to the end of the prompt; the
attention from there to the image is meaned over the heads of a layer and normalised, and its entropy taken. A layer is
sensitive if the means of a mixture of two Gaussians, fitted to its entropies over all rows, lie more than twice the
sum of the standard deviations apart. A row's score is its mean entropy over the sensitive layers; again a mixture of
two is fitted, and the rows of the lower Gaussian are dropped. Without a sensitive layer nothing is.

Departures: without a sensitive layer the ranking, which the source does not need, is by all layers. Of rows without an
image, as the source does with what is not a number, each entropy is the mean of the others'.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...extras import from_extra
from .reading import Detection, Look


def collapsed_rows(entropy: np.ndarray) -> Detection:
    """
    The rows of low entropy.

    Args:
        entropy (`np.ndarray` of shape `(num_rows, L)`):
            `image_entropy` of a [`Reading`].

    Returns:
        [`Detection`]: mean entropy with its sign changed, and the lower of two Gaussians.
    """
    known = ~np.isnan(entropy).any(axis=1)
    flagged = np.zeros(len(entropy), dtype=bool)
    if known.sum() < 2:
        return Detection(np.zeros(len(entropy)), flagged)
    filled = np.where(known[:, None], entropy, entropy[known].mean(axis=0))
    sensitive = [layer for layer in range(filled.shape[1]) if _is_bimodal(filled[:, layer])]
    scores = filled[:, sensitive or slice(None)].mean(axis=1)
    if sensitive:
        mixture = _fit(scores)
        flagged = mixture.predict(scores[:, None]) == mixture.means_.ravel().argmin()
    return Detection(-scores, flagged)


def detect_by_attention_entropy(look: Look) -> Detection:
    """
    BYE on the rows.

    Args:
        look ([`Look`]):
            By a model that was trained on the rows.

    Returns:
        [`Detection`]: see [`collapsed_rows`].
    """
    return collapsed_rows(look.reading.image_entropy)


def _is_bimodal(values: np.ndarray) -> bool:
    mixture = _fit(values)
    low, high = mixture.means_.ravel()
    return bool(abs(low - high) > 2 * np.sqrt(mixture.covariances_).sum())


def _fit(values: np.ndarray) -> Any:
    with from_extra("report"):
        from sklearn.mixture import GaussianMixture

    return GaussianMixture(2, random_state=0).fit(values[:, None])
